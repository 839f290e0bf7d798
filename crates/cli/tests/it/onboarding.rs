//! How somebody comes into an encrypted topic, and out of the mesh again.

use serde_json::Value;

use crate::team::Team;
use crate::topic::{PATIENCE, Tail, join_as, post, refused, texts};

/// The whole onboarding (websocket 6.2.3): who joins waits, a holder of the key comes by, and the newcomer reads all there is.
#[test]
fn a_newcomer_gets_the_key_from_a_peer_and_reads_all_and_after_a_ban_nothing_new() {
    let team = Team::new();
    let carl = join_as(&team, "Carl");
    team.anna.json_one(&["topic", "create", "deploys"]);
    carl.json_one(&["topic", "join", "deploys"]);
    post(&team.anna, "deploys", "the first secret, @Carl");
    assert_eq!(texts(&carl.json(&["topic", "history", "deploys"])), ["the first secret, @Carl"]);

    team.ben.json_one(&["topic", "join", "deploys"]);
    refused(&team.ben.run(&["topic", "post", "deploys", "too early"]), 7, "nobody has shared the topic's key with you");
    let locked = team.ben.run(&["topic", "history", "deploys"]);
    assert!(locked.code == 7 && locked.stdout.contains("[cannot be opened"), "{locked:?}");
    let mut ben = Tail::start(&team.ben, "deploys");
    assert!(ben.says("Waiting for a peer to share the topic key, since 20").ends_with("Z."));
    let carl_reads = Tail::start(&carl, "deploys");
    carl_reads.says("The key of #deploys was shared with Ben.");
    ben.says("The topic's key is here.");
    assert_eq!(ben.text(), "the first secret, @Carl");
    let second = post(&team.anna, "deploys", "the second secret");
    assert_eq!((ben.text(), carl_reads.message()["mentions"].clone()), ("the second secret".into(), ["carl"].into()));
    assert_eq!(carl_reads.text(), "the second secret");

    let answer = team.ben.json_one(&["topic", "post", "deploys", "--reply", &second[..8], "the third secret"]);
    assert_eq!(answer["replyToId"], second);
    let seen = carl_reads.message();
    assert_eq!((&seen["replyToId"], &seen["from"]), (&Value::from(second), &Value::from("Ben")));
    let told = carl.run(&["topic", "history", "deploys"]).stdout;
    assert!(
        told.contains("mentions you")
            && told.contains(&format!("answers {}", &seen["replyToId"].as_str().unwrap()[..8]))
    );

    let kept = team.broker.bytes_on_disk();
    for secret in ["the first secret", "the second secret", "the third secret"] {
        let encoded = claudemesh_proto::text::base64(secret.as_bytes());
        for needle in [secret.as_bytes(), &encoded.as_bytes()[..16]] {
            assert!(!kept.windows(needle.len()).any(|window| window == needle), "{secret}");
        }
    }
    assert_eq!(ben.text(), "the third secret");

    let key = team.ben.json_one(&["list"])["meshes"][0]["pubkey"].as_str().unwrap().to_owned();
    team.anna.json_one(&["ban", &key]);
    post(&team.anna, "deploys", "not for Ben");
    assert_eq!(carl_reads.text(), "not for Ben");
    assert_eq!(ben.wait(), 2);
    assert!(ben.shown.recv_timeout(PATIENCE).is_err());
    refused(&team.ben.run(&["topic", "history", "deploys"]), 2, "");
    refused(&team.ben.run(&["topic", "tail", "deploys"]), 2, "");
    assert_eq!(carl_reads.interrupt(), 0);
}
