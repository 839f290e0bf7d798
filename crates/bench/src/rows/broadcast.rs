//! One writes to everybody, or into a topic that everybody is in: accepted, pushed to each, acknowledged, settled.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::figure::Figure;
use crate::load::{Outbox, send_all};
use crate::mesh::{Mesh, general};
use crate::number::float;
use crate::process::Meter;
use crate::rows::peers::{read, settled};
use crate::stage::Stage;

/// What is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Everybody,
    Topic,
}

pub(crate) async fn run(stage: &Stage, to: Audience) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let audience = stage.sizes.audience;
    let mesh = Mesh::create(&broker, audience + 1).await?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for index in 1..=audience {
        let (connection, pushes) = mesh.connect(index).await?;
        readers.spawn(read(Arc::new(connection), pushes, Arc::clone(&acknowledged)));
    }
    let (writer, _pushes) = mesh.connect(0).await?;
    let (target, what) = match to {
        Audience::Everybody => ("*".to_owned(), "broadcast"),
        Audience::Topic => (format!("#{}", general(&writer).await?), "topic fan-out"),
    };
    let mut outbox = Outbox::new(0)?;
    let mut expected = 0;
    let mut figures = Vec::new();
    for (load, is_counted) in [(stage.sizes.warm_up, false), (stage.sizes.load, true)] {
        let meter = Meter::start(&broker).await?;
        let started = Instant::now();
        let broadcasts = send_all(&writer, WINDOW, || (started.elapsed() < load).then(|| outbox.to(&target))).await?;
        let deliveries = broadcasts * u64::try_from(audience)?;
        expected += deliveries;
        settled(&broker, &mut readers, &acknowledged, expected).await?;
        let spent = meter.stop().await?;
        if is_counted {
            let rate = float(deliveries) / spent.wall.as_secs_f64();
            let name = format!("{what} to {audience} members, deliveries");
            let figure = Figure::speed(name, rate, "1/s").target_on(&stage.database, 50_000.0);
            figures.push(figure.floor(stage.floors.syncs_per_second).spent(&spent, deliveries));
        }
    }
    Ok(figures)
}

/// Broadcasts that wait for their ack.
const WINDOW: usize = 16;
