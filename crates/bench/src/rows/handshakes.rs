//! Handshakes: TCP, upgrade, a signed hello that is verified and admitted, `hello_ack`. The connections stay open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use claudemesh_client::{Connection, Pushes};
use tokio::task::JoinSet;

use crate::figure::Figure;
use crate::mesh::Mesh;
use crate::number::float_len;
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let count = stage.sizes.handshakes;
    let (_home, broker) = stage.broker().await?;
    // Many, so that nobody signs twice in a millisecond, which would be a replay.
    let mesh = Mesh::create(&broker, stage.sizes.peers).await?;
    let warm = open(&mesh, count / 10).await?;
    let meter = Meter::start(&broker).await?;
    let connections = open(&mesh, count).await?;
    let spent = meter.stop().await?;
    drop((warm, connections));
    let rate = float_len(count) / spent.wall.as_secs_f64();
    let of_core = float_len(count) / spent.broker.as_secs_f64();
    let figure = Figure::speed("handshakes", rate, "1/s").spent(&spent, u64::try_from(count)?);
    Ok(vec![figure, Figure::speed("handshakes per core of the broker", of_core, "1/s").target(4000.0)])
}

/// Opens connections of the members in turn.
pub(crate) async fn open(mesh: &Mesh, count: usize) -> anyhow::Result<Vec<(Connection, Pushes)>> {
    let mesh = mesh.clone();
    let started = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (mesh, started) = (mesh.clone(), Arc::clone(&started));
        tasks.spawn(async move {
            let mut opened = Vec::new();
            loop {
                let index = started.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(opened);
                }
                opened.push(mesh.connect(index).await?);
            }
        });
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        connections.extend(done.context("a task panicked")??);
    }
    Ok(connections)
}

/// Handshakes under way.
const AT_ONCE: usize = 64;
