//! Reports of hooks: one HTTP request each, on a connection of its own, as hooks make them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::figure::Figure;
use crate::http;
use crate::mesh::Mesh;
use crate::number::float;
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mesh = Mesh::create(&broker, stage.sizes.peers).await?;
    let mut open = Vec::new();
    for index in 0..stage.sizes.peers {
        open.push(mesh.connect_in(index, format!("/work/{index}")).await?);
    }
    let reported = Arc::new(AtomicU64::new(0));
    let meter = Meter::start(&broker).await?;
    let ends = Instant::now() + stage.sizes.load;
    let mut tasks = JoinSet::new();
    for number in 0..AT_ONCE {
        let (reported, address, peers) = (Arc::clone(&reported), broker.address, stage.sizes.peers);
        tasks.spawn(async move {
            let mut turn = number;
            while Instant::now() < ends {
                report(address, turn % peers, turn).await?;
                reported.fetch_add(1, Ordering::Relaxed);
                turn += AT_ONCE;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a task panicked")??;
    }
    let spent = meter.stop().await?;
    let count = reported.load(Ordering::Relaxed);
    let rate = float(count) / spent.wall.as_secs_f64();
    Ok(vec![Figure::speed("hook requests", rate, "1/s").spent(&spent, count)])
}

async fn report(address: SocketAddr, peer: usize, turn: usize) -> anyhow::Result<()> {
    let status = if turn.is_multiple_of(2) { "working" } else { "idle" };
    let body = json!({"cwd": format!("/work/{peer}"), "status": status});
    let answer: Reported = http::post(address, "/hook/set-status", &body).await?;
    ensure!(answer.ok && answer.presence_id.is_some(), "a report found nobody");
    Ok(())
}

#[derive(Deserialize)]
struct Reported {
    ok: bool,
    presence_id: Option<String>,
}

/// Requests under way.
const AT_ONCE: usize = 16;
