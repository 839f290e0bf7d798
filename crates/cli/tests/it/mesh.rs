//! Two people, one broker: everything from the README and what goes wrong around it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use claudemesh_keys::fingerprint;
use claudemesh_proto::invite::InvitePayload;
use serde_json::Value;

use crate::broker::Broker;
use crate::team::Team;
use crate::user::User;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// `inbox --wait`, ended when dropped.
struct Waiting {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Waiting {
    fn start(user: &User) -> Self {
        let mut child = user.command(&["inbox", "--wait", "--json"]).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_message_for_somebody_who_is_away_arrives_once_and_is_marked_delivered() {
    let team = Team::new();
    let sent = team.anna.json_one(&["send", "Ben", "the", "canary", "sings"]);
    assert_eq!((text(&sent["state"]), text(&sent["to"]["name"])), ("queued", "Ben"));
    let got = team.ben.json(&["inbox"]);
    assert_eq!(got.len(), 1);
    assert_eq!((text(&got[0]["text"]), text(&got[0]["from"])), ("the canary sings", "Anna"));
    assert_eq!(got[0]["messageId"], sent["messageId"]);
    assert_eq!(team.ben.json(&["inbox"]).len(), 0, "shown once");
    assert_eq!(team.ben.json(&["inbox", "--all"]).len(), 1, "kept");
    let status = team.anna.json_one(&["msg-status", &text(&sent["messageId"])[..8]]);
    assert_eq!((&status["delivered"], text(&status["recipients"][0]["state"])), (&Value::Bool(true), "delivered"));
    let bytes = team.broker.bytes_on_disk();
    assert!(!bytes.windows(6).any(|window| window == b"canary"), "the broker's files hold no plain text");
}

#[test]
fn somebody_who_waits_has_the_message_before_send_returns_also_after_a_crash_of_the_broker() {
    let Team { anna, ben, broker } = Team::new();
    let mut waiting = Waiting::start(&ben);
    anna.json_one(&["send", "Ben", "one"]);
    assert_eq!(text(&waiting.next()["text"]), "one");
    let sent = anna.json_one(&["send", "Ben", "two"]);
    assert_eq!((text(&sent["state"]), text(&waiting.next()["text"])), ("delivered", "two"));
    let _broker = broker.crash_and_restart();
    anna.json_one(&["send", "Ben", "three"]);
    assert_eq!(text(&waiting.next()["text"]), "three");
    let mut notices = BufReader::new(waiting.child.stderr.take().unwrap()).lines();
    assert!(notices.any(|line| line.unwrap() == "Connected again."));
}

#[test]
fn text_comes_from_standard_input_and_arrives_as_it_was() {
    let team = Team::new();
    let said = team.anna.run_with_input(&["send", "Ben", "-", "--priority", "now"], "first\nsecond – ü\n".as_bytes());
    assert_eq!(said.code, 0, "{said:?}");
    let got = team.ben.json(&["inbox"]);
    assert_eq!((text(&got[0]["text"]), text(&got[0]["priority"])), ("first\nsecond – ü", "now"));
    for (input, why) in
        [(vec![b'x'; 70_000], "more than the 49064 bytes"), (vec![0xff], "not UTF-8"), (vec![], "nothing to send")]
    {
        let said = team.anna.run_with_input(&["send", "Ben", "-"], &input);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.stderr.contains(why), "{said:?}");
    }
    let said = team.anna.run(&["send", "Ben", &"x".repeat(49_065)]);
    assert_eq!(said.code, 3);
    assert!(said.stderr.starts_with("error: the text is too long: it has 49065 bytes, and a message "), "{said:?}");
    let longest = format!("{}\n", "x".repeat(49_064)).into_bytes();
    assert_eq!(team.anna.run_with_input(&["send", "Ben", "-"], &longest).code, 0);
    assert_eq!(text(&team.ben.json_one(&["inbox"])["text"]).len(), 49_064);
}

#[test]
fn names_that_mean_nobody_or_two_send_nothing() {
    let team = Team::new();
    let nobody = team.anna.run(&["send", "Carl", "hi"]);
    assert_eq!((nobody.code, nobody.stderr.as_str()), (5, "error: nobody is called \"Carl\"; there are: Anna, Ben\n"));
    let other = User::new();
    let invite = team.anna.json_one(&["invite"]);
    other.json_one(&["join", text(&invite["url"]), "--name", "Ben"]);
    let two = team.anna.run(&["send", "ben", "hi"]);
    assert_eq!(two.code, 3);
    assert!(two.stderr.contains("\"ben\" may mean 2 recipients, so nothing was done:"), "{two:?}");
    assert!(two.stderr.ends_with("\ntry: name one by its key; the first 8 characters or more are enough\n"), "{two:?}");
    assert_eq!(team.ben.json(&["inbox"]).len() + other.json(&["inbox"]).len(), 0);
    let key = text(&team.ben.json_one(&["list"])["meshes"][0]["pubkey"]).to_owned();
    assert_eq!(team.anna.json_one(&["send", &key[..16], "hi"])["to"]["pubkey"], Value::from(key));
    assert_eq!(team.ben.json(&["inbox"]).len(), 1);
}

#[test]
fn a_newcomer_whose_name_differs_in_letter_case_takes_no_name_over_and_is_told() {
    let team = Team::new();
    let other = User::new();
    let invite = team.anna.json_one(&["invite"]);
    let joined = other.run(&["join", text(&invite["url"]), "--name", "BEN"]);
    let keys = [&team.ben, &other].map(|user| text(&user.json_one(&["list"])["meshes"][0]["pubkey"]).to_owned());
    let notice = format!("There is another Ben in this mesh: people must name you by key ({}).\n", &keys[1][..12]);
    assert!(joined.stderr.contains(&notice), "{joined:?}");
    for line in [["send", "Ben", "hi"].as_slice(), &["send", "BEN", "hi"], &["grant", "ben", "dm"], &["ban", "Ben"]] {
        let said = team.anna.run(line);
        assert_eq!(said.code, 3, "{line:?}: {said:?}");
        assert!(said.stderr.contains("may mean 2 recipients, so nothing was done:"), "{line:?}: {said:?}");
        assert!(keys.iter().all(|key| said.stderr.contains(key)), "{line:?}: {said:?}");
    }
    let renamed = team.ben.run(&["member", "update", "--name", "anna"]);
    let notice = format!("There is another Anna in this mesh: people must name you by key ({}).\n", &keys[0][..12]);
    assert_eq!((renamed.code, renamed.stderr), (0, notice));
    let renamed = team.anna.run(&["member", "update", &keys[0], "--name", "Dora"]);
    assert_eq!((renamed.code, renamed.stderr.as_str()), (0, ""));
}

#[test]
fn both_sides_see_the_same_safety_number() {
    let team = Team::new();
    let (a, b) = (team.anna.json_one(&["verify", "Ben"]), team.ben.json_one(&["verify", "Anna"]));
    assert_eq!(a["safetyNumber"], b["safetyNumber"]);
    assert_eq!((&a["memberPubkey"], &a["ownPubkey"]), (&b["ownPubkey"], &b["memberPubkey"]));
    assert_eq!(team.anna.run(&["verify", "Anna"]).code, 3);
}

#[test]
fn invites_run_out_and_are_taken_back() {
    let team = Team::new();
    let invite = team.anna.json_one(&["invite", "--uses", "2", "--expires", "1h"]);
    let late = User::new();
    late.json_one(&["join", text(&invite["url"]), "--name", "Carl"]);
    assert_eq!(late.json_one(&["join", text(&invite["url"])])["status"], "already");
    team.anna.json_one(&["invite", "revoke", text(&invite["id"])]);
    let refused = User::new().run(&["join", text(&invite["url"]), "--name", "Dora"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("error: this invite was taken back\ntry: ask for a new invite"), "{refused:?}");
    let list = team.anna.json_one(&["invite", "list"]);
    let row = list["invites"].as_array().unwrap().iter().find(|row| row["id"] == invite["id"]).unwrap();
    assert_eq!((&row["usedCount"], row["revokedAt"].is_string()), (&Value::from(1), true));
    assert_eq!(team.anna.run(&["invite", "revoke", "nothing"]).code, 5);
    assert_eq!(team.ben.run(&["invite"]).code, 5, "no owner's key");
}

/// Where a link seems to lead, and where its token leads.
fn leads_to(invite: &Value) -> (String, String) {
    let (shown, token) = text(&invite["url"]).split_once("/join/").unwrap();
    (shown.to_owned(), InvitePayload::from_token(token).unwrap().broker_url)
}

#[test]
fn a_link_shows_the_host_that_its_token_leads_to() {
    let told = ["invite", "--broker", "https://elsewhere.example"];
    let elsewhere = ("https://elsewhere.example".to_owned(), "wss://elsewhere.example/ws".to_owned());
    let team = Team::new();
    let own = (team.broker.url().to_owned(), format!("{}/ws", team.broker.url().replace("http", "ws")));
    assert_eq!(leads_to(&team.anna.json_one(&["invite"])), own);
    assert_eq!(leads_to(&team.anna.json_one(&told)), elsewhere);

    let public = [("BROKER_PUBLIC_URL", "https://mesh.example"), ("BROKER_MESH_CREATION", "loopback")];
    let broker = Broker::start_with(&public);
    let anna = User::new();
    anna.json_one(&["create", "team", "--broker", broker.url(), "--name", "Anna"]);
    let invite = anna.json_one(&["invite", "--uses", "3"]);
    assert_eq!(leads_to(&invite), ("https://mesh.example".to_owned(), "wss://mesh.example/ws".to_owned()));
    assert_eq!(leads_to(&anna.json_one(&told)), elsewhere);
    let list = anna.json_one(&["invite", "list"]);
    let open: Vec<_> = list["invites"].as_array().unwrap().iter().filter(|row| row["revokedAt"].is_null()).collect();
    assert_eq!(open.len(), 2, "what was made to learn the address is taken back: {list}");
    assert!(open.iter().any(|row| row["id"] == invite["id"] && row["maxUses"] == 3), "{list}");
}

#[test]
fn a_slug_is_taken_once() {
    let team = Team::new();
    let again = team.anna.run(&["create", "team", "--broker", team.broker.url()]);
    assert_eq!(again.code, 6, "known here: {again:?}");
    let other = User::new().run(&["create", "team", "--broker", team.broker.url()]);
    assert_eq!(other.code, 6, "known to the broker: {other:?}");
    assert!(other.stderr.contains("already has a mesh called team; did you mean to join it?\ntry: "), "{other:?}");
}

#[test]
fn who_joins_is_told_the_name_and_who_else_has_it() {
    let team = Team::new();
    let invite = team.anna.json_one(&["invite", "--uses", "2"]);
    let other = User::new();
    let joined = other.run(&["join", text(&invite["url"]), "--name", "Ben"]);
    assert_eq!(joined.stdout, "Joined mesh team as Ben.\n");
    let key = text(&other.json_one(&["list"])["meshes"][0]["pubkey"])[..12].to_owned();
    let notice = format!("There is another Ben in this mesh: people must name you by key ({key}).\n");
    assert!(joined.stderr.contains(&notice), "{joined:?}");
    let verify = other.run(&["verify", "Anna"]);
    assert!(verify.stderr.contains(&format!("claudemesh verify {key}\n")), "a name of two helps nobody: {verify:?}");
    let again = other.run(&["join", text(&invite["url"]), "--name", "fred"]);
    assert_eq!(again.stdout, "Already a member of mesh team as Ben; --name changes nothing.\n");
    let carl = User::new();
    let third = carl.run(&["join", text(&invite["url"]), "--name", "Carl"]);
    assert!(!third.stderr.contains("another"), "{third:?}");
    assert!(carl.run(&["verify", "Anna"]).stderr.contains("claudemesh verify Carl\n"));
    let late = User::new().run(&["join", text(&invite["url"]), "--name", "Dora"]);
    assert_eq!(late.stderr.lines().last(), Some("try: ask for a new invite"));
    assert!(late.stderr.contains("error: this invite is used up\n"), "{late:?}");
}

#[test]
fn a_missing_setup_token_is_told_from_a_wrong_one() {
    let broker = Broker::start_with(&[("BROKER_MESH_CREATION", "token")]);
    let create = ["create", "team", "--broker", broker.url(), "--name", "Anna"];
    let none = User::new().run(&create);
    assert_eq!(none.code, 7, "{none:?}");
    assert!(none.stderr.contains("and none was given\ntry: put it into CLAUDEMESH_SETUP_TOKEN"), "{none:?}");
    let wrong = User::new().run(&[&create[..], &["--token", "nonsense"]].concat());
    assert_eq!(wrong.code, 7, "{wrong:?}");
    assert!(wrong.stderr.contains("does not accept the setup token that was given\ntry: "), "{wrong:?}");
}

#[test]
fn tls_at_a_plain_port_is_said_so() {
    let team = Team::new();
    let plain = team.broker.url().replace("http://", "https://");
    let told = |said: &crate::user::Said| {
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.stderr.ends_with(": the broker does not speak TLS here; use http://\n"), "{said:?}");
    };
    told(&User::new().run(&["create", "team", "--broker", &plain, "--name", "Anna"]));
    let config = team.ben.home().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("ws://", "wss://")).unwrap();
    told(&team.ben.run(&["peers"]));
}

#[test]
fn a_message_to_oneself_and_the_beginning_of_a_key_are_refused_with_the_reason() {
    let team = Team::new();
    let said = team.anna.run(&["send", "Anna", "hi"]);
    let wanted = "error: that is you, and you have no other session here that could get it\n";
    assert_eq!((said.code, said.stderr.as_str()), (5, wanted));
    let said = team.anna.run(&["send", "abcd", "hi"]);
    let wanted = "error: nobody is called \"abcd\", and a key needs at least 8 characters\n";
    assert_eq!((said.code, said.stderr.as_str()), (5, wanted));
}

#[test]
fn what_was_received_is_read_again_after_leaving_and_joining() {
    let team = Team::new();
    team.anna.json_one(&["send", "Ben", "hello"]);
    team.ben.json_one(&["inbox"]);
    let left = team.ben.run(&["leave", "--mesh", "team"]);
    assert!(left.stderr.contains("The member stays in the mesh's list."), "{left:?}");
    assert_eq!(team.anna.json_one(&["members"])["members"].as_array().unwrap().len(), 2);
    let invite = team.anna.json_one(&["invite"]);
    team.ben.json_one(&["join", text(&invite["url"]), "--name", "Ben"]);
    assert_eq!(text(&team.ben.json_one(&["inbox", "--all", "--local"])["text"]), "hello");
}

#[test]
fn members_and_peers_are_listed() {
    let team = Team::new();
    let members = team.ben.json_one(&["members"]);
    let names: Vec<_> =
        members["members"].as_array().unwrap().iter().map(|member| text(&member["displayName"])).collect();
    assert_eq!(names, ["Anna", "Ben"]);
    assert_eq!((text(&members["members"][0]["role"]), text(&members["members"][1]["role"])), ("admin", "member"));
    let _waiting = Waiting::start(&team.anna);
    let peers = team.ben.json_one(&["peers"]);
    assert!(peers["peers"].as_array().unwrap().iter().all(|peer| peer["channel"] == "claudemesh-cli"), "{peers}");
}

#[test]
fn what_is_said_of_oneself_is_seen_by_others() {
    let team = Team::new();
    let mut waiting = Waiting::start(&team.anna);
    team.ben.json_one(&["send", "Anna", "are you there?"]);
    waiting.next();
    let seen = || team.ben.json_one(&["peers"])["peers"].as_array().unwrap().clone();
    for status in ["working", "dnd", "idle"] {
        assert_eq!(team.anna.json_one(&["set-status", status]), serde_json::json!({"status": status}));
        assert_eq!(text(&seen()[0]["status"]), status);
    }
    assert_eq!(team.anna.json_one(&["summary", "the", "build"]), serde_json::json!({"summary": "the build"}));
    assert_eq!(text(&seen()[0]["summary"]), "the build");
    let table = team.ben.run(&["peers"]).stdout;
    assert!(table.contains("WORKING ON") && table.contains("idle") && table.contains("the build"), "{table}");
    team.anna.json_one(&["summary", ""]);
    assert!(seen()[0]["summary"].is_null());
    assert_eq!(team.anna.json_one(&["visible", "off"]), serde_json::json!({"visible": false}));
    assert!(seen().is_empty());
    assert!(team.anna.run(&["peers"]).stdout.contains("(hidden)"));
    team.anna.json_one(&["visible", "on"]);
    assert_eq!(seen().len(), 1);
    for line in [["set-status", "away"], ["visible", "maybe"], ["set-status", "--source=hook"]] {
        assert_eq!(team.anna.run(&line).code, 3, "{line:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_message_whose_answer_cannot_be_printed_is_said_to_be_sent() {
    let team = Team::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = team.anna.command(&["send", "Ben", "hi"]).stdout(full.try_clone().unwrap()).output().unwrap();
    let stderr = String::from_utf8(said.stderr).unwrap();
    let [sent, failed] = stderr.lines().collect::<Vec<_>>()[..] else { panic!("{stderr}") };
    assert_eq!(said.status.code(), Some(10));
    assert!(failed.starts_with("error: cannot write to standard output: "), "{stderr}");
    assert_eq!(team.ben.command(&["inbox"]).stdout(full).output().unwrap().status.code(), Some(10));
    let id = team.ben.json_one(&["inbox"])["messageId"].clone();
    assert_eq!(sent, format!("The message is sent: {}.", text(&id)), "and what could not be shown is shown later");
}

#[test]
fn a_command_that_fails_leaves_nobody_behind() {
    let team = Team::new();
    for (line, code) in [
        (["send", "Carl", "hi"].as_slice(), 5),
        (&["send", "Anna", "hi"], 5),
        (&["msg-status", "nope"], 3),
        (&["invite", "revoke", "nope"], 5),
        (&["verify", "Carl"], 5),
    ] {
        let said = team.anna.run(line);
        assert_eq!(said.code, code, "{said:?}");
        assert_eq!(team.ben.json_one(&["peers"]), serde_json::json!({"peers": []}), "after {line:?}");
    }
}

#[test]
fn what_people_see() {
    let broker = Broker::start();
    let (anna, ben) = (User::new(), User::new());
    let mut seen = vec![anna.run(&["create", "team", "--broker", broker.url(), "--name", "Anna"])];
    let mesh = text(&anna.json_one(&["list"])["meshes"][0]["meshId"]).to_owned();
    let invite = anna.run(&["invite"]);
    let url = invite.stdout.trim().to_owned();
    seen.push(ben.run(&["join", &url, "--name", "Ben"]));
    seen.push(ben.run(&["join", &url]));
    let sent = anna.run(&["send", "Ben", "hello"]);
    let id = sent.stdout.split_whitespace().nth(1).unwrap().to_owned();
    seen.push(sent);
    let got = ben.run(&["inbox"]);
    let at = got.stdout.split_whitespace().nth(2).unwrap().to_owned();
    let key = text(&anna.json_one(&["list"])["meshes"][0]["pubkey"])[..12].to_owned();
    seen.push(got);
    seen.push(ben.run(&["inbox"]));
    let home = anna.home().to_string_lossy().into_owned();
    let owner = fingerprint(&text(&ben.json_one(&["join", "team"])["ownerPubkey"]).parse().unwrap());
    let broker_url = text(&ben.json_one(&["list"])["meshes"][0]["brokerUrl"]).to_owned();
    let changing = [(home.as_str(), "HOME"), (&mesh, "MESH-ID"), (&id, "MESSAGE-ID"), (&at, "TIME"), (&key, "KEY")];
    let changing = [&changing[..], &[(&owner, "FINGERPRINT"), (&broker_url, "BROKER")]].concat();
    let seen: Vec<_> = seen.iter().map(|said| said.without(&changing)).collect();
    insta::assert_snapshot!(seen.join("\n"));
    assert_eq!(invite.code, 0);
    assert!(invite.stderr.contains("Lets its holder into team as member, once, until "), "{invite:?}");
}

#[test]
fn everything_on_disk_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let team = Team::new();
    team.anna.json_one(&["send", "Ben", "hi"]);
    team.ben.json(&["inbox"]);
    team.ben.json_one(&["set-status", "dnd"]);
    for user in [&team.anna, &team.ben] {
        let mut dirs = vec![user.home().to_owned()];
        while let Some(dir) = dirs.pop() {
            assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
                }
            }
        }
    }
}
