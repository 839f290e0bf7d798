//! The topic that every mesh is made with and everybody is in: what it holds when a run is over, and that nothing is left to come.

use std::collections::HashSet;

use claudemesh_client::{Body, Connection, Dial, MAIL, Membership, Post, here, open_post};
use claudemesh_keys::sha256_hex;
use claudemesh_proto::hello::QUIET;
use claudemesh_proto::{MessageId, Priority, PublicKey, TopicId};
use claudemesh_testkit::DEADLINE;
use claudemesh_testkit::history::{History, Listed};
use tokio::time::timeout;

/// Its id.
pub(crate) async fn topic(member: &Membership) -> TopicId {
    let connection = quiet(member).await;
    let topics = connection.topics().await.unwrap();
    connection.close().await;
    topics.into_iter().find(|topic| topic.name.as_str() == GENERAL).expect("every mesh has one").id
}

/// All of it, by pages.
pub(crate) async fn history(member: &Membership) -> History {
    let connection = quiet(member).await;
    let mut posts: Vec<Listed> = Vec::new();
    loop {
        let before = posts.last().map(|post| post.message.clone());
        let page = connection.topic_history(GENERAL, PAGE, before.as_ref()).await.unwrap();
        if page.is_empty() {
            break;
        }
        posts.extend(page.into_iter().map(|post| {
            let Body::Plaintext(text) = open_post(None, &post) else { panic!("not what was posted: {post:?}") };
            Listed { seq: post.seq, message: post.id, sender: post.sender_pubkey, digest: sha256_hex(text) }
        }));
    }
    connection.close().await;
    posts.reverse();
    History { mesh: member.mesh_id.clone(), posts }
}

/// Shows that what was acknowledged does not come again. Everybody takes what there still is, and again: a post that is written now
/// is then the first thing that comes.
pub(crate) async fn nothing_is_left(dials: &[(Membership, Dial)]) {
    let topic = topic(&dials[0].0).await;
    let mut acknowledged: HashSet<(PublicKey, MessageId)> = HashSet::new();
    let mut last_posts: HashSet<MessageId> = HashSet::new();
    for is_first_round in [true, false] {
        for (member, dial) in dials {
            let reader = member.identity.public();
            let (author, _) = dials.iter().find(|(other, _)| other.identity.public() != reader).expect("somebody else");
            let last = post(author, &topic).await;
            last_posts.insert(last.clone());
            let fresh = Dial { place: here(MAIL).unwrap(), ..dial.clone() };
            let (connection, mut pushes) = fresh.open().await.unwrap();
            loop {
                let push = timeout(DEADLINE, pushes.next()).await.expect("the last post in time").expect("a push");
                let is_new = acknowledged.insert((reader, push.message_id.clone()));
                assert!(is_new, "{} came to {reader} again", push.message_id);
                assert!(is_first_round || last_posts.contains(&push.message_id), "{} was left", push.message_id);
                connection.ack(&push).await.unwrap();
                if push.message_id == last {
                    break;
                }
            }
            connection.close().await;
        }
    }
}

/// Posts a last word.
async fn post(author: &Membership, topic: &TopicId) -> MessageId {
    let connection = quiet(author).await;
    let post = Post { topic, key: None, priority: Priority::Next, reply_to: None, text: "the end" };
    let ack = connection.send(post.compose().unwrap()).await.unwrap();
    connection.close().await;
    assert!(ack.queued, "{ack:?}");
    ack.message_id.parse().unwrap()
}

/// A connection that takes no mail.
async fn quiet(member: &Membership) -> Connection {
    Dial::member(member, QUIET).unwrap().open().await.unwrap().0
}

const GENERAL: &str = "general";
/// The most that a broker gives at once.
const PAGE: i64 = 200;
