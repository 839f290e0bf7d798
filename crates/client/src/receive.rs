//! From a push to a message in the inbox. The order is the promise: opened, then committed, then acknowledged.

use std::time::Duration;

use claudemesh_proto::message::Push;
use tokio::time::timeout;

use crate::clock::now;
use crate::connection::{Connection, Ended, Pushes};
use crate::error::{Error, Result};
use crate::inbox::{Inbox, InboxMessage};
use crate::opener::Opener;

/// Messages that are opened, committed and acknowledged together: the most that a broker hands over before it wants acks.
pub const BATCH: usize = 256;

/// How much one [`fetch`] takes: others may go on writing meanwhile, and it must end.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// For how long.
    pub time: Duration,
    /// How many messages, give or take a [`BATCH`].
    pub messages: usize,
}

/// How a [`fetch`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// Nothing more came.
    All,
    /// The bound was reached before that.
    Part,
}

/// Keeps what the broker hands over until nothing more comes, within `bound`.
///
/// # Errors
/// Those of [`keep`], and [`Error::Ended`] when the connection ends first.
pub async fn fetch(
    inbox: &Inbox,
    opener: &mut Opener<'_>,
    connection: &Connection,
    pushes: &mut Pushes,
    bound: Bound,
) -> Result<(Fetched, Vec<Error>)> {
    // A window of messages and the next one are a way there and back apart.
    let quiet = QUIET_FOR + 3 * connection.round_trip();
    let mut without_key = Vec::new();
    let taking = async {
        let mut taken = 0;
        while taken < bound.messages {
            let Ok(batch) = timeout(quiet, pushes.next_many(BATCH)).await else { return Ok(Fetched::All) };
            if batch.is_empty() {
                return Err(Error::Ended(connection.ended().unwrap_or(Ended::ByUs)));
            }
            taken += batch.len();
            without_key.extend(keep(inbox, opener, connection, batch).await?);
        }
        Ok(Fetched::Part)
    };
    // Whatever this interrupts is not lost: what is not kept is not acknowledged either, and comes again.
    let fetched = timeout(bound.time, taking).await.unwrap_or(Ok(Fetched::Part))?;
    Ok((fetched, without_key))
}

/// Opens what was handed over, commits it to the inbox in one transaction, and acknowledges it. A redelivery is acknowledged again
/// and not kept twice. Returns why keys of topics could not be had: what needs them is kept unopened, and the topic's history has it.
///
/// # Errors
/// When the inbox fails nothing is acknowledged, and the broker hands the same over again. When only the acks are lost
/// ([`crate::Error::Ended`]), everything is kept.
pub async fn keep(
    inbox: &Inbox,
    opener: &mut Opener<'_>,
    connection: &Connection,
    pushes: Vec<Box<Push>>,
) -> Result<Vec<Error>> {
    let mut without_key = opener.learn(connection, &pushes).await;
    if let Some(lost) = without_key.iter().position(|error| matches!(error, Error::Ended(_))) {
        // What is kept unopened stays so. On the next connection it comes again, and the key can be asked for.
        return Err(without_key.swap_remove(lost));
    }
    let own_name = &connection.welcome().member_display_name;
    let messages = pushes.iter().map(|push| InboxMessage::of(push, own_name, opener.open(push), now())).collect();
    inbox.store(messages).await?;
    for push in &pushes {
        connection.ack(push).await?;
    }
    Ok(without_key)
}

/// How long nothing must come before the broker is taken to have handed over everything.
const QUIET_FOR: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use claudemesh_proto::MeshId;

    use super::*;
    use crate::hostile::{Hostile, WELCOME, push};
    use crate::samples::{home, membership};

    /// Hands over a message, and for each ack another, `last` in all.
    async fn fetch_from(last: usize, bound: Bound) -> (Result<Fetched>, usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let broker = Hostile::web_socket(move |_, asked| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let next = (number < last).then(|| push(number));
            let welcome = (asked["type"] == "hello").then(|| WELCOME.to_owned());
            Some(welcome.into_iter().chain(next).collect())
        })
        .await;
        let (_dir, home) = home();
        let inbox = Inbox::open(&home, &MeshId::from_random([1; 32])).await.unwrap();
        let mesh = membership("team", 1);
        let (connection, mut pushes) = broker.dial().open().await.unwrap();
        let fetched = fetch(&inbox, &mut Opener::new(&home, &mesh), &connection, &mut pushes, bound).await;
        (fetched.map(|(fetched, _)| fetched), inbox.unshown().await.unwrap().len())
    }

    #[tokio::test]
    async fn fetching_ends_when_nothing_more_comes() {
        let bound = Bound { time: Duration::from_mins(1), messages: 10_000 };
        let (fetched, kept) = fetch_from(3, bound).await;
        assert_eq!((fetched.unwrap(), kept), (Fetched::All, 3));
    }

    #[tokio::test]
    async fn fetching_ends_also_when_messages_never_do() {
        let (fetched, kept) = fetch_from(usize::MAX, Bound { time: Duration::from_mins(1), messages: 5 }).await;
        assert_eq!((fetched.unwrap(), kept), (Fetched::Part, 5));
        let (fetched, kept) =
            fetch_from(usize::MAX, Bound { time: Duration::from_millis(500), messages: usize::MAX }).await;
        assert_eq!(fetched.unwrap(), Fetched::Part);
        assert!(kept > 0);
    }
}
