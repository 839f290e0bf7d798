//! Whether what a topic holds at the end of a run is what was posted, once each, numbered from 1 without gaps and in the order of
//! acceptance.

use std::collections::{BTreeMap, HashMap, HashSet};

use claudemesh_proto::{MeshId, MessageId, PublicKey};

use crate::checker::{Key, Sending, Trouble};
use crate::ledger::Target;
use crate::order::Order;
use crate::verdict::Breach;

/// The whole history of `general` in a mesh, oldest first.
#[derive(Debug)]
pub struct History {
    /// The mesh.
    pub mesh: MeshId,
    /// What it holds.
    pub posts: Vec<Listed>,
}

/// A post in a history.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its number.
    pub seq: i64,
    /// Its id.
    pub message: MessageId,
    /// The key it was sent with.
    pub sender: PublicKey,
    /// Of its text, which is in no other message.
    pub digest: String,
}

/// Compares a history with what was posted. A post that is in it twice is one with two message ids, and said to be so later.
pub(crate) fn judge(history: &History, sendings: &mut BTreeMap<Key, Sending>, trouble: Trouble) -> Vec<Breach> {
    let reader = format!("the history of {}", history.mesh);
    let mut breaches = Vec::new();
    let is_posted = |sending: &Sending| sending.mesh == history.mesh && sending.target == Target::General;
    let mut posted: HashMap<(PublicKey, String), &mut Sending> = HashMap::new();
    for ((sender, _), sending) in sendings.iter_mut().filter(|(_, sending)| is_posted(sending)) {
        posted.insert((*sender, sending.digest.clone()), sending);
    }
    let mut orders: HashMap<PublicKey, Order> = HashMap::new();
    let mut listed: HashSet<&MessageId> = HashSet::new();
    for (number, Listed { seq, message, sender, digest }) in (1..).zip(&history.posts) {
        let is_new = listed.insert(message);
        if *seq != number || !is_new {
            breaches.push(Breach::Misnumbered { reader: reader.clone(), message: message.clone(), seq: *seq });
        }
        let Some(sending) = posted.get_mut(&(*sender, digest.clone())) else {
            breaches.push(Breach::Forged { client: reader.clone(), message: message.clone(), id: None });
            continue;
        };
        sending.messages.insert(message.clone());
        if let Some(after) = orders.entry(*sender).or_default().take(message, &sending.placed(trouble)) {
            breaches.push(Breach::Reordered { client: reader.clone(), connection: 0, message: message.clone(), after });
        }
    }
    for ((_, id), sending) in sendings.iter().filter(|(_, sending)| is_posted(sending)) {
        for message in sending.messages.iter().filter(|message| !listed.contains(message)) {
            let (client, id) = (sending.client.clone(), id.clone());
            breaches.push(Breach::Unlisted { client, id, message: message.clone() });
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use claudemesh_proto::Priority;

    use super::*;
    use crate::checker::{Account, check};
    use crate::ledger::{Entry, Owner};

    const ANNA: PublicKey = PublicKey::from_bytes([1; 32]);

    fn mesh() -> MeshId {
        MeshId::from_random([1; 32])
    }

    fn listed(seq: i64, number: u64, id: &str) -> Listed {
        Listed { seq, message: MessageId::new(number, [7; 24]), sender: ANNA, digest: format!("body of {id}") }
    }

    /// Anna posted a and b, in this order on one connection, and c, of which she heard nothing; the breaches in this history.
    fn breaches(posts: Vec<Listed>) -> Vec<Breach> {
        let sent = |id: &str| {
            let (id, digest) = (id.to_owned(), format!("body of {id}"));
            Entry::Sent { id, target: Target::General, priority: Priority::Next, digest, connection: 1 }
        };
        let acked =
            |id: &str, number| Entry::Acked { id: id.into(), message: MessageId::new(number, [7; 24]), connection: 1 };
        let owner = Owner { mesh: mesh(), member: ANNA, key: ANNA };
        let entries = vec![Entry::Opened(owner), sent("a"), sent("b"), sent("c"), acked("a", 1), acked("b", 2)];
        let account = Account { name: "anna".into(), entries };
        let history = History { mesh: mesh(), posts };
        check(&[account], &[history], Trouble::Broker).err().unwrap_or_default()
    }

    #[test]
    fn what_was_acked_is_there_once_in_its_order_and_by_its_number() {
        let (a, b) = (listed(1, 1, "a"), listed(2, 2, "b"));
        assert!(breaches(vec![a.clone(), b.clone()]).is_empty());
        assert!(breaches(vec![a.clone(), b.clone(), listed(3, 3, "c")]).is_empty());
        let found = breaches(vec![a.clone()]);
        assert!(matches!(found[..], [Breach::Unlisted { .. }]), "{found:?}");
        let found = breaches(vec![a.clone(), listed(3, 2, "b")]);
        assert!(matches!(found[..], [Breach::Misnumbered { seq: 3, .. }]), "{found:?}");
        let found = breaches(vec![a.clone(), b.clone(), listed(3, 2, "b")]);
        assert!(matches!(found[..], [Breach::Misnumbered { seq: 3, .. }]), "{found:?}");
        let found = breaches(vec![a.clone(), b.clone(), listed(3, 3, "b")]);
        assert!(matches!(found[..], [Breach::Doubled { .. }]), "{found:?}");
        let found = breaches(vec![a, b, listed(3, 3, "d")]);
        assert!(matches!(found[..], [Breach::Forged { .. }]), "{found:?}");
        let found = breaches(vec![listed(1, 2, "b"), listed(2, 1, "a")]);
        assert!(matches!(found[..], [Breach::Reordered { .. }]), "{found:?}");
    }
}
