//! Groups, grants, and what is known of members.

use serde_json::{Value, json};

use crate::team::Team;

#[test]
fn groups_are_joined_listed_and_left() {
    let Team { anna, ben, broker: _broker } = Team::new();
    assert_eq!(anna.json_one(&["group", "list"]), json!({"groups": []}));
    assert_eq!(
        anna.json_one(&["group", "join", "@Dev", "--role", "lead"]),
        json!({"group": "Dev", "role": "lead", "status": "joined"})
    );
    anna.json_one(&["group", "join", "front/end"]);
    let both = json!({"groups": [{"name": "Dev", "role": "lead"}, {"name": "front/end"}]});
    assert_eq!(anna.json_one(&["group", "list"]), both);
    let said = anna.run(&["group", "list"]);
    assert_eq!(said.stdout, "GROUP      ROLE\nDev        lead\nfront/end\n");
    let again = anna.run(&["group", "join", "FRONT/End"]).stdout;
    let shown = anna.json_one(&["group", "list"])["groups"][1]["name"].as_str().unwrap().to_owned();
    assert_eq!(again, format!("You are in {shown} now: what is sent to @{shown} reaches you.\n"));
    anna.json_one(&["group", "join", "front/end"]);
    assert_eq!(anna.json_one(&["group", "leave", "dev"]), json!({"group": "Dev", "status": "left"}));
    let said = anna.run(&["group", "leave", "dev"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "You were not in dev.\n"));
    assert_eq!(anna.json_one(&["group", "list"]), json!({"groups": [{"name": "front/end"}]}));
    assert_eq!(ben.json_one(&["group", "list"]), json!({"groups": []}));
    let said = anna.run(&["group", "join", "no such name"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("must be 1-64 of a-z, 0-9 and _./-"), "{said:?}");
    for everybody in ["all", "@All", "*"] {
        for line in [["group", "join", everybody], ["member", "update", &format!("--group={everybody}")]] {
            let said = anna.run(&line);
            assert_eq!(said.code, 3, "{said:?}");
            assert!(said.stderr.contains("* and @all mean everybody; choose another name"), "{said:?}");
        }
    }
}

#[test]
fn who_cannot_leave_a_group_is_told_so() {
    let Team { anna, broker: _broker, .. } = Team::new();
    anna.json_one(&["member", "update", "--group", "kitchen"]);
    let said = anna.run(&["group", "leave", "Kitchen"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.starts_with("You are still in kitchen: new sessions of yours start in it"), "{said:?}");
    assert!(said.stderr.contains("member update --group NAME, or --no-groups"), "{said:?}");
    assert_eq!(anna.json_one(&["group", "list"])["groups"][0]["name"], "kitchen");
    anna.json_one(&["member", "update", "--no-groups"]);
    assert_eq!(anna.json_one(&["group", "leave", "kitchen"])["status"], "was-not-in");
}

#[test]
fn a_33rd_group_is_refused_with_the_broker_s_words() {
    let Team { anna, broker: _broker, .. } = Team::new();
    let groups: Vec<String> = (0..32).map(|number| format!("--group=g{number}")).collect();
    let line: Vec<&str> = ["member", "update"].into_iter().chain(groups.iter().map(String::as_str)).collect();
    anna.json_one(&line);
    let said = anna.run(&["group", "join", "one-more"]);
    assert!(said.code != 0 && said.stderr.contains("you are in 32 groups; leave one first"), "{said:?}");
    anna.json_one(&["group", "leave", "g0"]);
    anna.json_one(&["group", "join", "one-more"]);
}

#[test]
fn who_is_blocked_is_refused_until_it_is_taken_back() {
    let Team { anna, ben, broker: _broker } = Team::new();
    let key = ben.json_one(&["list"])["meshes"][0]["pubkey"].clone();
    let blocked = anna.json_one(&["block", "Ben"]);
    assert_eq!(blocked, json!({"name": "Ben", "pubkey": key, "capabilities": []}));
    let said = ben.run(&["send", "Anna", "hello"]);
    assert!(said.code != 0 && said.stderr.contains("blocked by recipient grants"), "{said:?}");
    let granted = anna.json_one(&["grant", "Ben", "dm", "read"]);
    assert_eq!(granted["capabilities"], json!(["read", "dm"]));
    ben.json_one(&["send", "Anna", "hello"]);
    let said = anna.run(&["grants"]);
    let prefix = &key.as_str().unwrap()[..12];
    assert_eq!(said.stdout, format!("NAME  KEY           MAY\nBen   {prefix}  read, dm\n"));
    assert_eq!(anna.json_one(&["grant", "Ben", "--reset"])["capabilities"], Value::Null);
    assert_eq!(anna.json_one(&["grants"]), json!({"grants": {}}));
    for line in
        [&["grant", "Ben"][..], &["grant", "Ben", "fly"], &["grant", "Ben", "dm", "--reset"], &["block", "Anna"]]
    {
        assert_eq!(anna.run(line).code, 3, "{line:?}");
    }
    assert_eq!(anna.run(&["block", "Nobody"]).code, ben.run(&["verify", "Nobody"]).code);
}

#[test]
fn what_is_known_of_members_is_changed_by_whoever_may() {
    let Team { anna, ben, broker: _broker } = Team::new();
    let line = ["member", "update", "--name", "Benny", "--tag", "cook", "--group", "kitchen:chef", "--mode", "inbox"];
    let member = ben.json_one(&line)["member"].clone();
    let expected = json!({"displayName": "Benny", "roleTag": "cook", "messageMode": "inbox"});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(member[field], *value);
    }
    assert_eq!(member["groups"], json!([{"name": "kitchen", "role": "chef"}]));
    assert_eq!(ben.json_one(&["group", "list"])["groups"], member["groups"]);
    let updated = anna.json_one(&["member", "update", "Benny", "--role", "admin", "--no-groups", "--tag", ""]);
    assert_eq!(updated["member"]["role"], "admin");
    let members = ben.json_one(&["members"]);
    let listed = &members["members"][1];
    assert_eq!((&listed["roleTag"], &listed["groups"], &listed["role"]), (&Value::Null, &Value::Null, &json!("admin")));
    ben.json_one(&["member", "update", "--role", "member"]);
    let said = ben.run(&["member", "update", "Anna", "--name", "X"]);
    assert!(said.code != 0 && said.stderr.contains("only owner or admin can update others"), "{said:?}");
    let said = anna.run(&["member", "update", "--role", "member"]);
    assert!(said.code != 0 && said.stderr.contains("role of the owner must be admin"), "{said:?}");
    let said = anna.run(&["member", "update"]);
    assert!(said.code == 3 && said.stderr.contains("\ntry: --name, --tag, --group"), "{said:?}");
}
