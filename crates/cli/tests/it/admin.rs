//! What admins do to others, and the log of it.

use std::fs;

use serde_json::{Value, json};

use crate::team::Team;

#[test]
fn a_member_is_removed_listed_and_taken_back() {
    let Team { anna, ben, broker: _broker } = Team::new();
    let key = ben.json_one(&["list"])["meshes"][0]["pubkey"].as_str().unwrap().to_owned();
    let said = anna.run(&["bans"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, ""));
    assert!(said.stderr.contains("Nobody was removed"), "{said:?}");
    let said = ben.run(&["ban", "Anna"]);
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.stderr.contains("only owner or admin can ban"), "{said:?}");
    assert_eq!(anna.json_one(&["ban", &key[..12]]), json!({"banned": "Ben"}));
    for line in [&["peers"][..], &["join", "team"]] {
        let said = ben.run(line);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains("You've been removed from") && said.stderr.ends_with(BACK), "{said:?}");
    }
    let bans = anna.json_one(&["bans"]);
    assert_eq!((&bans["bans"][0]["name"], &bans["bans"][0]["pubkey"]), (&json!("Ben"), &json!(key)));
    assert!(anna.run(&["bans"]).stdout.starts_with("NAME  KEY           REMOVED\nBen   "));
    assert_eq!(anna.json_one(&["unban", "Ben"]), json!({"unbanned": "Ben"}));
    assert_eq!(ben.run(&["peers"]).code, 0);
    for verb in ["ban", "kick", "disconnect"] {
        let said = anna.run(&[verb, &key[..11]]);
        assert!(said.code == 5 && said.stderr.contains("a key needs at least 12 characters"), "{verb}: {said:?}");
    }
    for (line, code) in [
        (&["ban", "Nobody"][..], 5),
        (&["ban", &key[..11]], 5),
        (&["ban", "Anna"], 3),
        (&["ban", ""], 3),
        (&["unban", "Ben"], 5),
        (&["ban"], 3),
    ] {
        let said = anna.run(line);
        assert_eq!(said.code, code, "{line:?}: {said:?}");
    }
}

const BACK: &str = "\ntry: ask an admin of the mesh to take you back (claudemesh unban); or claudemesh leave SLUG, and then join with a \
    new invite\n";

#[test]
fn who_is_removed_while_listening_is_told_what_to_do() {
    let Team { anna, ben, broker: _broker } = Team::new();
    let waiting = ben.command(&["inbox", "--wait"]).spawn().unwrap();
    until(&|| anna.json_one(&["peers"])["peers"].as_array().unwrap().len() == 1);
    anna.json_one(&["ban", "ben"]);
    let ended = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("banned") && said.ends_with(BACK), "{said}");
}

/// Asks again until the answer is yes; each time is a program that runs.
fn until(is_so: &dyn Fn() -> bool) {
    assert!((0..500).any(|_| is_so()), "it never is");
}

#[test]
fn connections_are_closed_by_name_or_all_at_once() {
    let Team { anna, ben, broker: _broker } = Team::new();
    for line in [&["kick", "Ben"][..], &["disconnect", "Ben"]] {
        let said = anna.run(line);
        assert_eq!(said.code, 5, "{said:?}");
        assert!(said.stderr.contains("nobody is connected who is meant by \"Ben\""), "{said:?}");
    }
    for verb in ["kick", "disconnect"] {
        assert_eq!(anna.json_one(&[verb, "--all"]), json!({"closed": [], "skipped": []}));
        assert_eq!(anna.run(&[verb, "--stale", "10min"]).stdout, "Nobody was sent away.\n");
        for line in [
            &[verb][..],
            &[verb, "Ben", "--all"],
            &[verb, "--stale", "5"],
            &[verb, "--stale", "soon"],
            &[verb, "--all", "--stale", "1h"],
        ] {
            assert_eq!(anna.run(line).code, 3, "{line:?}");
        }
        assert_eq!(ben.run(&[verb, "--all"]).code, 7);
    }
    let mut waiting = ben.command(&["inbox", "--wait"]).spawn().unwrap();
    let is_here = || anna.json_one(&["peers"])["peers"].as_array().unwrap().len() == 1;
    until(&is_here);
    assert_eq!(anna.json_one(&["kick", "Ben"]), json!({"closed": [], "skipped": ["Ben"]}));
    assert_eq!(anna.run(&["disconnect", "Ben"]).stdout, "Disconnected: Ben.\n");
    // It was not told to stay away.
    until(&is_here);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn the_log_is_listed_and_verified() {
    let Team { anna, ben, broker } = Team::new();
    anna.json_one(&["ban", "Ben"]);
    anna.json_one(&["unban", "Ben"]);
    let log = anna.json_one(&["audit", "list", "--type", "member_banned"]);
    assert_eq!((&log["total"], &log["entries"][0]["actor"]), (&json!(1), &json!("Anna")));
    assert_eq!(log["entries"][0]["payload"]["target"], "Ben");
    let said = anna.run(&["audit", "list", "--limit", "1", "--type", "member_unbanned"]);
    let lines: Vec<_> = said.stdout.lines().collect();
    assert!(
        lines[0].starts_with("ID") && lines[1].contains("  member_unbanned  Anna   target=Ben targetPubkey="),
        "{said:?}"
    );
    assert!(anna.run(&["audit", "list", "--limit", "2"]).stderr.contains("2 of "));
    let said = anna.run(&["audit", "list", "--type", "ban"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", "No entries of type ban.\n"));
    let types = |log: &Value| -> Vec<String> {
        log["entries"].as_array().unwrap().iter().map(|entry| entry["eventType"].as_str().unwrap().to_owned()).collect()
    };
    let left_out = ["--not-type", "member_unbanned", "--not-type", "peer_joined", "--not-type", "peer_left"];
    let others = anna.json_one(&[&["audit", "list"][..], &left_out].concat());
    assert!(types(&others)[0] == "member_banned" && types(&others).len() > 1, "{others}");
    assert!(types(&others).iter().all(|kind| !left_out.contains(&kind.as_str())), "{others}");
    let said = anna.run(&[&["audit", "list"][..], &left_out].concat());
    assert_eq!(said.stderr, "", "what is left out is not shown by asking for more");
    let second = anna.json_one(&[&["audit", "list", "--limit", "1", "--offset", "1"][..], &left_out].concat());
    assert_eq!((second["entries"].as_array().unwrap().len(), &second["entries"][0]), (1, &others["entries"][1]));
    let key = ben.json_one(&["list"])["meshes"][0]["pubkey"].as_str().unwrap().to_owned();
    anna.json_one(&["member", "update", &key, "--role", "admin", "--tag", &"x".repeat(64)]);
    ben.json_one(&["member", "update", "--role", "member"]);
    let piped = anna.run(&["audit", "list", "--limit", "500"]).stdout;
    assert!(
        piped.lines().any(|line| line.ends_with(&key) || line.contains(&"x".repeat(64))),
        "nothing is cut: {piped}"
    );
    let verified = anna.json_one(&["audit", "verify"]);
    assert_eq!(verified["valid"], true);
    let checkpoint = &verified["checkpoint"];
    let log = anna.json_one(&["audit", "list", "--limit", "500"]);
    let same = |entry: &&Value| entry["id"] == checkpoint["seq"];
    assert_eq!(log["entries"].as_array().unwrap().iter().find(same).unwrap()["hash"], checkpoint["hash"]);
    let said = anna.run(&["audit", "verify"]);
    let key = checkpoint["pubkey"].as_str().unwrap();
    assert!(said.stdout.starts_with("The audit log is whole: ") && said.stdout.contains(key), "{said:?}");
    for line in [&["audit", "list"][..], &["audit", "verify"]] {
        let said = ben.run(line);
        assert_eq!(said.code, 7, "{said:?}");
        assert!(said.stderr.contains("only owner or admin can read the audit log"), "{said:?}");
    }
    assert_eq!(anna.run(&["audit", "list", "--limit", "501"]).code, 3);
    // A checkpoint that the broker never signed.
    let path = broker.data_dir().join("audit-checkpoints.jsonl");
    let kept = fs::read_to_string(&path).unwrap();
    let mut line: Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    line["hash"] = json!("0".repeat(64));
    fs::write(&path, format!("{kept}{line}\n")).unwrap();
    let said = anna.run(&["audit", "verify"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.stdout.starts_with("The audit log is NOT whole"), "{said:?}");
    assert!(!said.stdout.contains("Checkpoint"), "{said:?}");
    assert!(said.stderr.contains("the audit log was changed, at entry "), "{said:?}");
}
