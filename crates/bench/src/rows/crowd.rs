//! A mesh full of connections: how soon are all let in, and what do they cost while nobody says anything?

use claudemesh_client::{Connection, Pushes};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::figure::Figure;
use crate::mesh::Mesh;
use crate::number::{float, float_len};
use crate::process::{Meter, Spent};
use crate::rows::handshakes::open;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage, count: usize) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mesh = Mesh::create(&broker, count.min(MEMBERS)).await?;
    sleep(stage.sizes.settle).await;
    let before = broker.process().memory_kib("Pss")?;
    let (opening, connections) = gather(&broker, &mesh, count).await?;
    sleep(stage.sizes.settle).await;
    let after = broker.process().memory_kib("Pss")?;
    let meter = Meter::start(&broker).await?;
    sleep(stage.sizes.settle).await;
    let idling = meter.stop().await?;
    drop(connections);
    let each = float(after.saturating_sub(before)) / float_len(count);
    let cpu = 100.0 * idling.broker.as_secs_f64() / idling.wall.as_secs_f64();
    let name = |what: &str| format!("{what}, {count} connections");
    let opened = Figure::cost(name("let in"), opening.wall.as_secs_f64(), "s");
    Ok(vec![
        opened.target(10.0).spent(&opening, u64::try_from(count)?),
        Figure::cost(name("memory of each idle one"), each, "KiB").target(16.0),
        Figure::cost(name("idle CPU"), cpu, "% of a core").target(2.0),
    ])
}

async fn gather(broker: &Broker, mesh: &Mesh, count: usize) -> anyhow::Result<(Spent, Vec<(Connection, Pushes)>)> {
    let meter = Meter::start(broker).await?;
    let connections = open(mesh, count).await?;
    Ok((meter.stop().await?, connections))
}

/// Beyond that a member has several connections.
const MEMBERS: usize = 1000;
