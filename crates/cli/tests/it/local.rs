//! What needs no broker: refusals before anything is sent, and files.

use std::fs;
use std::net::TcpListener;

use claudemesh_keys::Identity;
use claudemesh_proto::invite::InvitePayload;
use serde_json::json;

use crate::user::User;

/// A user with one mesh, whose broker is at a port where nobody listens.
fn member() -> User {
    let user = User::new();
    let identity = Identity::from_seed([1; 32]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = json!({"version": 1, "meshes": [{
        "meshId": "m1", "memberId": "x1", "slug": "team", "name": "Team", "brokerUrl": format!("ws://127.0.0.1:{port}/ws"),
        "pubkey": identity.public(), "secretKey": *identity.secret_hex(), "joinedAt": "2026-01-02T03:04:05.678Z"
    }]});
    private_dir(user.home());
    private_file(&user.home().join("config.json"), &config.to_string());
    user
}

fn private_dir(path: &std::path::Path) {
    fs::create_dir_all(path).unwrap();
    set_mode(path, 0o700);
}

fn private_file(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
    set_mode(path, 0o600);
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn link(change: impl FnOnce(&mut InvitePayload)) -> String {
    let owner = Identity::from_seed([9; 32]);
    let mut payload = InvitePayload {
        v: 1,
        mesh_id: "mesh1".into(),
        mesh_slug: "other".into(),
        broker_url: "ws://127.0.0.1:1/ws".into(),
        expires_at: 4_000_000_000,
        mesh_root_key: "AAAA".into(),
        role: "member".into(),
        owner_pubkey: owner.public().to_string(),
        signature: String::new(),
    };
    change(&mut payload);
    payload.signature = owner.sign(payload.signed_text().as_bytes()).to_string();
    format!("https://broker.example/join/{}", payload.to_token())
}

#[test]
fn bad_arguments_end_with_exit_code_three_and_name_the_argument() {
    let user = User::new();
    for (line, named) in [
        (vec!["nonsense"], "nonsense"),
        (vec!["create", "Not A Slug", "--broker", "http://h"], "SLUG"),
        (vec!["create", "team"], "--broker"),
        (vec!["create", "team", "--broker", "ftp://h"], "must begin with https://"),
        (vec!["create", "team", "--broker", "http://h/path"], "must end after the host"),
        (vec!["send", "bob"], "TEXT"),
        (vec!["send", "bob", "hi", "--priority", "soon"], "': must be now, next or low"),
        (vec!["msg-status", "nope"], "an id has at least 8 letters and digits"),
        (vec!["invite", "--expires", "5"], "write 5h or 5d"),
        (vec!["--mesh", "team", "join", "x"], "--mesh chooses among"),
        (vec!["invite", "--expires", "later"], "--expires"),
        (vec!["kick", "--stale", "soon"], "must be a time such as 30min, 12h or 7d"),
        (vec!["invite", "--role", "king"], "must be admin or member"),
    ] {
        let said = user.run(&line);
        assert_eq!(said.code, 3, "{line:?}: {said:?}");
        assert!(said.stderr.contains(named), "{line:?}: {said:?}");
        assert_eq!(said.stdout, "", "{line:?}");
    }
    assert!(!user.home().exists(), "a refused command leaves nothing behind");
}

#[test]
fn without_a_mesh_every_verb_says_how_to_get_one() {
    let user = User::new();
    for line in [
        vec!["peers"],
        vec!["set-status", "idle"],
        vec!["summary", "tests"],
        vec!["visible", "on"],
        vec!["members"],
        vec!["send", "bob", "hi"],
        vec!["inbox"],
        vec!["msg-status", "abcdefgh"],
        vec!["verify", "bob"],
        vec!["invite"],
        vec!["invite", "list"],
    ] {
        let said = user.run(&line);
        let wanted =
            "error: which mesh? there is none yet\ntry: claudemesh create SLUG --broker URL, or claudemesh join LINK\n";
        assert_eq!((said.code, said.stderr.as_str()), (3, wanted), "{line:?}");
    }
    let said = user.run(&["list"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, ""));
    assert_eq!(user.json_one(&["list"]), json!({"meshes": []}));
    assert_eq!(user.run(&["leave", "team"]).code, 5);
}

#[test]
fn bad_links_are_refused_before_anything_is_sent() {
    let user = User::new();
    let good = link(|_| ());
    let damaged = &good[..good.len() - 40];
    let mut forged = good.clone();
    let position = forged.len() - 30;
    forged.replace_range(position..=position, if &forged[position..=position] == "A" { "B" } else { "A" });
    for (link, why) in [
        ("garbage", "this is not an invite link"),
        ("https://broker.example/i/ABCD1234", "is a short code"),
        ("ABCD1234", "is a short code"),
        (damaged, "is damaged"),
        (&forged, "the invite is"),
        (&link(|payload| payload.expires_at = 1_000_000_000), "expired at 2001-09-09T01:46:40.000Z"),
        (&link(|payload| payload.broker_url = "file:///etc".into()), "broker_url is not what it must be"),
        (&link(|payload| payload.v = 2), "is of version 2"),
    ] {
        let said = user.run(&["join", link]);
        assert_eq!(said.code, 3, "{link}: {said:?}");
        assert!(said.stderr.contains(why), "{link}: {said:?}");
        assert!(said.stderr.matches("the invite").count() <= 1, "it is said once: {said:?}");
    }
    assert!(!user.home().exists());
}

#[test]
fn a_broker_that_is_not_there_is_a_network_failure_and_keys_stay_for_the_next_attempt() {
    let user = member();
    let said = user.run(&["peers"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.starts_with("error: cannot reach the broker at ws://127.0.0.1:"), "{said:?}");
    assert_eq!(user.run(&["join", &link(|_| ())]).code, 4);
    let joining = || {
        let files = fs::read_dir(user.home().join("joining")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    let before = joining();
    assert_eq!(user.run(&["join", &link(|_| ())]).code, 4);
    assert_eq!((joining(), before.len()), (before, 1), "the invite may have been used up for this key");
    assert_eq!(user.run(&["create", "mine", "--broker", "127.0.0.1:1"]).code, 4);
    assert!(user.home().join("creating/mine.json").exists());
}

#[test]
fn a_send_that_reaches_no_broker_says_that_nothing_was_sent() {
    let said = member().run(&["send", "bob", "hi"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.starts_with("Nothing was sent or kept.\nerror: cannot reach the broker at "), "{said:?}");
    assert!(said.stderr.contains("\ntry: start it: claudemesh-broker; "), "{said:?}");
}

#[test]
fn an_invite_that_leads_elsewhere_is_said_so() {
    let user = member();
    let said = user.run(&["join", &link(|_| ())]);
    let warning =
        "warning: the link shows broker.example, but the invite leads to the broker ws://127.0.0.1:1/ws\nerror: ";
    assert!(said.stderr.starts_with(warning), "{said:?}");
    let said = user.run(&["join", &link(|payload| payload.mesh_id = "m1".into())]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.stderr.contains("says otherwise about it: broker ws://127.0.0.1:1/ws, owner's key "), "{said:?}");
    assert!(said.stderr.contains("; here: broker ws://127.0.0.1:"), "{said:?}");
}

#[test]
fn invite_without_the_owners_key_names_the_missing_file() {
    let user = member();
    let said = user.run(&["invite"]);
    let path = user.home().join("owner").join("m1.json");
    assert_eq!(said.code, 5);
    assert_eq!(
        said.stderr,
        format!(
            "error: the owner's key of mesh \"team\" is not here: {} is missing\n\
             try: invite from the machine on which the mesh was created, or copy that file here (chmod 600)\n",
            path.display()
        )
    );
}

#[test]
fn what_is_here_is_shown_without_a_broker_and_the_failure_still_told() {
    let user = member();
    let said = user.run(&["inbox"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, ""));
    let said = user.run(&["inbox", "--local"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", "No new messages.\n"));
}

#[test]
fn files_that_others_may_read_are_refused_with_the_command_that_helps() {
    let user = member();
    let config = user.home().join("config.json");
    for (path, open, closed) in [(config.as_path(), 0o640, 0o600), (user.home(), 0o750, 0o700)] {
        set_mode(path, open);
        let said = user.run(&["list"]);
        assert_eq!((said.code, said.stdout.as_str()), (7, ""), "{said:?}");
        assert!(said.stderr.contains(&format!("run: chmod {closed:03o} {}\n", path.display())), "{said:?}");
        set_mode(path, closed);
        assert_eq!(user.run(&["list"]).code, 0);
    }
}

#[test]
fn list_prints_a_table_or_json_and_never_the_secret_key() {
    let user = member();
    let secret = Identity::from_seed([1; 32]).secret_hex();
    let port = user.json_one(&["list"])["meshes"][0]["brokerUrl"].as_str().unwrap().to_owned();
    let said = user.run(&["list"]);
    insta::assert_snapshot!(said.without(&[(&port, "ws://127.0.0.1:PORT/ws")]));
    for said in [said, user.run(&["list", "--json"])] {
        assert!(!said.stdout.contains(&secret[..64]), "{said:?}");
    }
}

#[test]
fn leaving_forgets_the_mesh_and_keeps_the_owners_key() {
    let user = member();
    let owner = user.home().join("owner/m1.json");
    private_dir(&user.home().join("owner"));
    private_file(&owner, "{}");
    let said = user.run(&["leave", "team"]);
    assert!(said.code == 7 && said.stderr.contains("nobody can make invites any more"), "{said:?}");
    let said = user.run(&["leave", "team", "--force"]);
    assert!(said.code == 0 && said.stderr.contains("Its owner's key is lost with it"), "{said:?}");
    assert!(said.stderr.contains("The slug team stays taken on that broker"), "{said:?}");
    assert_eq!(user.json_one(&["list"]), json!({"meshes": []}));
    assert!(owner.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let user = member();
    let mut child = user.command(&["list", "--json"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
