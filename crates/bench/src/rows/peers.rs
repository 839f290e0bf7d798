//! Peers in a circle: each writes to the next, takes what comes from the one before and acknowledges it.
//!
//! A peer checks that it gets every message, once, in the order in which it was sent. Only what was acknowledged counts, and
//! only once the broker says that nothing waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use claudemesh_client::{Connection, Pushes};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::broker::Broker;
use crate::http::metric;
use crate::load::{Outbox, number_of, send_all};
use crate::mesh::Mesh;
use crate::rows::sends::Until;

/// A mesh in which everybody is here.
pub(crate) struct Peers<'a> {
    broker: &'a Broker,
    writers: Vec<Writer>,
    readers: JoinSet<anyhow::Result<()>>,
    acknowledged: Arc<AtomicU64>,
    sent: u64,
}

struct Writer {
    connection: Arc<Connection>,
    outbox: Outbox,
    to: String,
}

impl<'a> Peers<'a> {
    pub(crate) async fn gather(broker: &'a Broker, count: usize) -> anyhow::Result<Self> {
        let mesh = Mesh::create(broker, count).await?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (mut writers, mut readers) = (Vec::new(), JoinSet::new());
        let next = mesh.members.iter().cycle().skip(1);
        for (index, to) in (0..count).zip(next) {
            let (connection, pushes) = mesh.connect(index).await?;
            let connection = Arc::new(connection);
            readers.spawn(read(Arc::clone(&connection), pushes, Arc::clone(&acknowledged)));
            writers.push(Writer { connection, outbox: Outbox::new(index)?, to: to.key.clone() });
        }
        Ok(Self { broker, writers, readers, acknowledged, sent: 0 })
    }

    /// Everybody writes, with `window` messages unacknowledged, and all is delivered and settled; counts the messages.
    pub(crate) async fn talk(&mut self, window: usize, until: Until) -> anyhow::Result<u64> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for mut writer in self.writers.drain(..) {
            tasks.spawn(async move {
                let (outbox, to) = (&mut writer.outbox, &writer.to);
                let first = outbox.next;
                let accepted = send_all(&writer.connection, window, || {
                    let is_over = match until {
                        Until::Time(time) => started.elapsed() >= time,
                        Until::Count(count) => outbox.next - first >= count,
                    };
                    (!is_over).then(|| outbox.to(to))
                });
                let accepted = accepted.await?;
                anyhow::Ok((writer, accepted))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let (writer, accepted) = done.context("a writer panicked")??;
            self.writers.push(writer);
            total += accepted;
        }
        self.sent += total;
        self.settled().await?;
        Ok(total)
    }

    async fn settled(&mut self) -> anyhow::Result<()> {
        settled(self.broker, &mut self.readers, &self.acknowledged, self.sent).await
    }
}

/// Waits until so many deliveries are acknowledged, and the broker has nothing left to deliver.
pub(super) async fn settled(
    broker: &Broker,
    readers: &mut JoinSet<anyhow::Result<()>>,
    acknowledged: &AtomicU64,
    sent: u64,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while acknowledged.load(Ordering::Relaxed) < sent {
        if let Some(end) = readers.try_join_next() {
            end.context("a reader panicked")??;
            bail!("a reader ended");
        }
        let so_far = acknowledged.load(Ordering::Relaxed);
        ensure!(started.elapsed() < PATIENCE, "{so_far} of {sent} messages were delivered");
        sleep(POLL).await;
    }
    while metric(broker.address, "broker_queue_depth").await? > 0 {
        ensure!(started.elapsed() < PATIENCE, "the broker does not settle what was acknowledged");
        sleep(POLL).await;
    }
    // Messages of topics are in no queue: their last acknowledgements may still be on the way.
    loop {
        let heard = metric(broker.address, "broker_messages_acknowledged_total").await?;
        ensure!(heard <= sent, "{heard} acknowledgements for {sent} messages");
        if heard == sent {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{heard} acknowledgements for {sent} messages");
        sleep(POLL).await;
    }
}

/// Takes and acknowledges what one sender sent, and checks that nothing is missing, twice there or out of order.
pub(super) async fn read(
    connection: Arc<Connection>,
    mut pushes: Pushes,
    acknowledged: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut expected = 0;
    loop {
        let taken = pushes.next_many(256).await;
        ensure!(!taken.is_empty(), "a connection ended: {:?}", pushes.ended());
        for push in taken {
            let number = number_of(&push);
            ensure!(number == Some(expected), "message {number:?} came where {expected} was next");
            expected += 1;
            connection.ack(&push).await?;
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How long the last messages may take.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(2);
