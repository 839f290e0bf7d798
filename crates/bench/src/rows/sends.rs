//! Durable sends: from `send` to its ack, which comes after the commit. The recipients are away, so nothing else happens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use claudemesh_client::{Connection, Pushes};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::figure::Figure;
use crate::load::{Outbox, send_all};
use crate::mesh::Mesh;
use crate::number::float;
use crate::process::Meter;
use crate::stage::Stage;

/// How many messages are under way: `window` on each sender's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) senders: usize,
    pub(crate) window: usize,
    pub(crate) target: Option<f64>,
}

pub(crate) async fn run(stage: &Stage, flight: Flight) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mut load = Load::new(&broker, flight, recipients(stage.sizes.load)).await?;
    load.keep_up(Until::Time(stage.sizes.warm_up)).await?;
    let meter = Meter::start(&broker).await?;
    let accepted = load.keep_up(Until::Time(stage.sizes.load)).await?;
    let spent = meter.stop().await?;
    let rate = float(accepted) / spent.wall.as_secs_f64();
    let name = format!("durable sends, {} in flight", flight.senders * flight.window);
    let figure = Figure::speed(name, rate, "1/s").spent(&spent, accepted).floor(stage.floors.syncs_per_second);
    Ok(vec![match flight.target {
        Some(target) => figure.target_on(&stage.database, target),
        None => figure,
    }])
}

/// Senders and the keys that they write to in turn.
pub(crate) struct Load {
    recipients: Arc<Vec<String>>,
    senders: Vec<Sender>,
    window: usize,
}

struct Sender {
    connection: Connection,
    /// Nobody writes to the senders, but a connection has both halves.
    _pushes: Pushes,
    outbox: Outbox,
}

/// When to stop sending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    /// Each sender has sent so many.
    Count(u64),
}

impl Load {
    pub(crate) async fn new(broker: &Broker, flight: Flight, recipients: usize) -> anyhow::Result<Self> {
        let mesh = Mesh::create(broker, flight.senders + recipients).await?;
        let keys = mesh.members.iter().skip(flight.senders).map(|member| member.key.clone()).collect();
        let mut senders = Vec::new();
        for index in 0..flight.senders {
            let (connection, pushes) = mesh.connect(index).await?;
            senders.push(Sender { connection, _pushes: pushes, outbox: Outbox::new(index)? });
        }
        Ok(Self { recipients: Arc::new(keys), senders, window: flight.window })
    }

    /// Sends with the window full until it is time; counts what was accepted.
    pub(crate) async fn keep_up(&mut self, until: Until) -> anyhow::Result<u64> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for (offset, mut sender) in self.senders.drain(..).enumerate() {
            let (recipients, window) = (Arc::clone(&self.recipients), self.window);
            tasks.spawn(async move {
                let (mut keys, outbox) = (recipients.iter().cycle().skip(offset), &mut sender.outbox);
                let first = outbox.next;
                let accepted = send_all(&sender.connection, window, || {
                    let is_over = match until {
                        Until::Time(time) => started.elapsed() >= time,
                        Until::Count(count) => outbox.next - first >= count,
                    };
                    if is_over { None } else { keys.next().map(|key| outbox.to(key)) }
                });
                let accepted = accepted.await?;
                anyhow::Ok((sender, accepted))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let (sender, accepted) = done.context("a sender panicked")??;
            self.senders.push(sender);
            total += accepted;
        }
        Ok(total)
    }
}

/// Enough that no queue reaches its 10,000 rows, at 150,000 messages a second.
fn recipients(load: Duration) -> usize {
    usize::try_from(load.as_secs()).unwrap_or(0) * 15 + 16
}
