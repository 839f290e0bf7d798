//! What is sent to many.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::team::Team;
use crate::user::User;

/// Carl joins Anna and Ben.
fn carl(team: &Team) -> User {
    let carl = User::new();
    let invite = team.anna.json_one(&["invite"]);
    carl.json_one(&["join", invite["url"].as_str().unwrap(), "--name", "Carl"]);
    carl
}

fn states(sent: &Value) -> Vec<(&str, &str)> {
    let recipients = sent["recipients"].as_array().unwrap();
    let mut states: Vec<_> =
        recipients.iter().map(|one| (one["name"].as_str().unwrap(), one["state"].as_str().unwrap())).collect();
    states.sort_unstable();
    states
}

#[test]
fn everybody_gets_what_is_sent_to_everybody_also_who_was_away_and_not_the_sender() {
    let team = Team::new();
    let carl = carl(&team);
    for (who, text) in [("*", "to all"), ("@all", "to all again")] {
        let sent = team.anna.json_one(&["send", who, text]);
        assert_eq!((&sent["to"], &sent["encrypted"]), (&json!({"audience": who}), &json!(false)));
        assert_eq!(states(&sent), [("Ben", "queued"), ("Carl", "queued")]);
    }
    for user in [&team.ben, &carl] {
        let got = user.json(&["inbox"]);
        let got: Vec<_> = got.iter().map(|one| (&one["text"], &one["encrypted"], &one["from"])).collect();
        let open = (&json!(false), &json!("Anna"));
        assert_eq!(got, [(&json!("to all"), open.0, open.1), (&json!("to all again"), open.0, open.1)]);
    }
    assert_eq!(team.anna.json(&["inbox"]).len(), 0);
}

#[test]
fn a_group_and_those_below_it_get_what_is_sent_to_it() {
    let team = Team::new();
    let carl = carl(&team);
    team.ben.json_one(&["group", "join", "dev/api"]);
    let sent = team.anna.json_one(&["send", "@Dev", "to the group"]);
    assert_eq!(states(&sent), [("Ben", "queued")]);
    assert_eq!(team.ben.json_one(&["inbox"])["text"], "to the group");
    assert_eq!(carl.json(&["inbox"]).len(), 0);
    let nobody = team.anna.run(&["send", "@nobody", "hello?"]);
    assert_eq!(nobody.code, 0, "{nobody:?}");
    assert!(nobody.stderr.contains("warning: it reaches nobody: nobody but you is in nobody"), "{nobody:?}");
}

#[test]
fn each_recipients_own_time_is_shown_and_nobodys_who_does_not_have_it() {
    let team = Team::new();
    let carl = carl(&team);
    let id = team.anna.json_one(&["send", "*", "to all"])["messageId"].as_str().unwrap().to_owned();
    let shown = || {
        let shown = team.anna.run(&["msg-status", &id]).stdout;
        ["Ben", "Carl"].map(|name| {
            let row = shown.lines().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().nth(3).map(str::to_owned)
        })
    };
    assert_eq!(shown(), [None, None]);
    team.ben.json(&["inbox"]);
    let first = shown();
    assert!(first[0].is_some() && first[1].is_none(), "{first:?}");
    carl.json(&["inbox"]);
    let both = shown();
    assert!(both[0] == first[0] && both[1] > both[0], "{both:?}");
}

/// (R17)
#[test]
fn people_are_told_that_it_is_not_encrypted_and_who_does_not_have_it_yet() {
    let team = Team::new();
    let said = team.anna.run(&["send", "*", "to all"]);
    let lines: Vec<_> = said.stdout.lines().collect();
    assert!(lines[0].starts_with("sent  ") && lines[0].ends_with("  to *"), "{said:?}");
    assert!(
        lines[1].starts_with("RECIPIENT") && lines[2].starts_with("Ben") && lines[2].contains("queued"),
        "{said:?}"
    );
    assert!(said.stderr.contains("Ben is offline; the broker keeps it"), "{said:?}");
    assert!(said.stderr.contains("Not encrypted: the broker can read"), "{said:?}");
    team.anna.json_one(&["send", "Ben", "to you"]);
    let shown = team.ben.run(&["inbox"]).stdout;
    let lines: Vec<_> = shown.lines().collect();
    let [open, to_all, sealed, to_you] = lines[..] else { panic!("{shown}") };
    assert!(open.starts_with("Anna") && open.ends_with("  not encrypted"), "{shown}");
    assert!(sealed.starts_with("Anna") && !sealed.contains("encrypted"), "{shown}");
    assert_eq!((to_all, to_you), ("  to all", "  to you"));
}

#[test]
fn what_is_neither_a_group_nor_everybody_is_refused_before_anybody_is_asked() {
    let team = Team::new();
    for who in ["#topic", "@", "@@dev", "@a b", "**"] {
        let said = team.anna.run(&["send", who, "x"]);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.stderr.starts_with(&format!("error: \"{who}\" is neither everybody")), "{said:?}");
    }
    let said = team.anna.run(&["verify", "@all"]);
    assert!(said.code == 3 && said.stderr.contains("one member or session is wanted"), "{said:?}");
    let said = team.anna.run(&["send", "*", &"x".repeat(49_065)]);
    assert!(said.code == 3 && said.stderr.starts_with("error: the text is too long"), "{said:?}");
    assert_eq!(team.ben.json(&["inbox"]).len(), 0);
}

#[test]
fn who_sends_too_much_is_told_that_nothing_was_sent() {
    let team = Team::at(Broker::start_with(&[("REQUEST_RATE_PER_MIN", "1"), ("REQUEST_BURST", "4")]));
    let refused =
        (0..20).map(|_| team.anna.run(&["send", "Ben", "hi"])).find(|said| said.code != 0).expect("a refusal");
    assert_eq!((refused.code, refused.stdout.as_str()), (4, ""), "{refused:?}");
    assert!(refused.stderr.starts_with("Nothing was sent; try again in a moment.\nerror: "), "{refused:?}");
}
