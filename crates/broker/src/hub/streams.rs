//! Who reads topics as they are written: streams over HTTP. Nothing is kept for them; they are only told to look again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_proto::{ApiKeyId, MemberId, MeshId, TopicId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Streams of one member.
pub(crate) const MAX_STREAMS: usize = 100;

/// The streams of this node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Streams(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    topics: HashMap<(MeshId, TopicId), Feed>,
    readers: HashMap<u64, Reader>,
    last: u64,
}

#[derive(Debug)]
struct Feed {
    rung: watch::Sender<()>,
    recent: Arc<Recent>,
    readers: usize,
}

/// The newest messages of a topic, read once for all who read along; oldest first, without gaps.
pub(crate) type Recent = tokio::sync::Mutex<Vec<Arc<Line>>>;

/// A message as it is told, the same for everybody.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) seq: i64,
    pub(crate) text: String,
}

#[derive(Debug)]
struct Reader {
    mesh_id: MeshId,
    topic_id: TopicId,
    member_id: MemberId,
    key_id: ApiKeyId,
    over: CancellationToken,
}

/// One stream; it is over for the hub when this is dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    streams: Streams,
    number: u64,
    pub(crate) rung: watch::Receiver<()>,
    pub(crate) recent: Arc<Recent>,
    /// Cancelled when its member or its key may read no more.
    pub(crate) over: CancellationToken,
}

impl Streams {
    /// Opens a stream, unless its member has too many. What is written from now on rings it; `over` ends it.
    pub(crate) fn open(
        &self,
        (mesh_id, topic_id): (MeshId, TopicId),
        (member_id, key_id): (MemberId, ApiKeyId),
        over: CancellationToken,
    ) -> Option<Stream> {
        let mut open = self.lock();
        let is_its = |reader: &&Reader| reader.mesh_id == mesh_id && reader.member_id == member_id;
        if open.readers.values().filter(is_its).count() >= MAX_STREAMS {
            return None;
        }
        open.last += 1;
        let number = open.last;
        let feed = open.topics.entry((mesh_id.clone(), topic_id.clone())).or_insert_with(|| Feed {
            rung: watch::Sender::new(()),
            recent: Arc::default(),
            readers: 0,
        });
        feed.readers += 1;
        let (rung, recent) = (feed.rung.subscribe(), Arc::clone(&feed.recent));
        open.readers.insert(number, Reader { mesh_id, topic_id, member_id, key_id, over: over.clone() });
        drop(open);
        Some(Stream { streams: self.clone(), number, rung, recent, over })
    }

    /// Somebody wrote into a topic.
    pub(super) fn ring(&self, mesh_id: &MeshId, topic_id: &TopicId) {
        let open = self.lock();
        if open.topics.is_empty() {
            return;
        }
        if let Some(feed) = open.topics.get(&(mesh_id.clone(), topic_id.clone())) {
            feed.rung.send_replace(());
        }
    }

    /// Ends the streams of a member; those of one topic, or all.
    pub(crate) fn end_of_member(&self, mesh_id: &MeshId, member_id: &MemberId, topic_id: Option<&TopicId>) {
        self.end(|reader| {
            let is_its = reader.mesh_id == *mesh_id && reader.member_id == *member_id;
            is_its && topic_id.is_none_or(|topic| reader.topic_id == *topic)
        });
    }

    /// Ends the streams that a key opened.
    pub(crate) fn end_of_key(&self, mesh_id: &MeshId, key_id: &ApiKeyId) {
        self.end(|reader| reader.mesh_id == *mesh_id && reader.key_id == *key_id);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().readers.len()
    }

    fn end(&self, is_meant: impl Fn(&Reader) -> bool) {
        self.lock().readers.values().filter(|reader| is_meant(reader)).for_each(|reader| reader.over.cancel());
    }

    fn close(&self, number: u64) {
        let mut open = self.lock();
        let Some(reader) = open.readers.remove(&number) else { return };
        let topic = (reader.mesh_id, reader.topic_id);
        if let Some(feed) = open.topics.get_mut(&topic) {
            feed.readers -= 1;
            if feed.readers == 0 {
                open.topics.remove(&topic);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.close(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(streams: &Streams, topic: &str, member: &str, key: &str) -> Stream {
        let topic = ("mesh".parse().unwrap(), topic.parse().unwrap());
        streams.open(topic, (member.parse().unwrap(), key.parse().unwrap()), CancellationToken::new()).unwrap()
    }

    #[test]
    fn a_ring_is_for_those_who_read_that_topic() {
        let streams = Streams::default();
        let (mut one, mut other) = (open(&streams, "a", "ann", "k1"), open(&streams, "b", "ann", "k1"));
        streams.ring(&"mesh".parse().unwrap(), &"a".parse().unwrap());
        assert!(one.rung.has_changed().unwrap() && !other.rung.has_changed().unwrap());
        one.rung.mark_unchanged();
        streams.ring(&"other".parse().unwrap(), &"a".parse().unwrap());
        assert!(!one.rung.has_changed().unwrap());
        other.rung.mark_unchanged();
    }

    #[test]
    fn a_member_has_so_many_and_others_have_theirs() {
        let streams = Streams::default();
        let open_of = |mesh: &str, member: &str| {
            let who = (member.parse().unwrap(), "key".parse().unwrap());
            streams.open((mesh.parse().unwrap(), "a".parse().unwrap()), who, CancellationToken::new())
        };
        let all: Vec<_> = (0..MAX_STREAMS).map(|_| open_of("mesh", "ann").unwrap()).collect();
        assert!(open_of("mesh", "ann").is_none());
        assert!(open_of("mesh", "bob").is_some() && open_of("other", "ann").is_some());
        drop(all);
        assert!(open_of("mesh", "ann").is_some());
    }

    #[test]
    fn a_removed_member_and_a_revoked_key_read_no_more() {
        let streams = Streams::default();
        let mesh = "mesh".parse().unwrap();
        let (ann, bob) = (open(&streams, "a", "ann", "k1"), open(&streams, "a", "bob", "k2"));
        streams.end_of_member(&mesh, &"ann".parse().unwrap(), Some(&"b".parse().unwrap()));
        assert!(!ann.over.is_cancelled());
        streams.end_of_member(&mesh, &"ann".parse().unwrap(), None);
        assert!(ann.over.is_cancelled() && !bob.over.is_cancelled());
        streams.end_of_key(&mesh, &"k2".parse().unwrap());
        assert!(bob.over.is_cancelled());
        drop((ann, bob));
        assert!(streams.lock().topics.is_empty() && streams.count() == 0);
    }
}
