//! From one peer to the other and back, one message at a time: how long does one take, from `send` to the push?

use std::time::Duration;

use anyhow::{Context as _, ensure};
use claudemesh_client::{Connection, Pushes};
use tokio::time::Instant;

use crate::figure::Figure;
use crate::latency::Latencies;
use crate::load::{Outbox, number_of};
use crate::mesh::Mesh;
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mesh = Mesh::create(&broker, 2).await?;
    let mut players = Vec::new();
    for (index, member) in mesh.members.iter().enumerate() {
        let (connection, pushes) = mesh.connect(index).await?;
        players.push(Player { connection, pushes, outbox: Outbox::new(index)?, key: member.key.clone() });
    }
    let [one, two] = players.as_mut_slice() else { anyhow::bail!("two can play") };
    play(one, two, stage.sizes.pings / 10).await?;
    let meter = Meter::start(&broker).await?;
    let times = play(one, two, stage.sizes.pings).await?;
    let spent = meter.stop().await?;
    let count = u64::try_from(times.len())?;
    let times = Latencies::new(times);
    let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
    let sync = stage.floors.sync_p50_us / 1e3;
    Ok(vec![
        Figure::cost("end to end p50", millis(50), "ms")
            .target_on(&stage.database, 1.0)
            .floor(sync)
            .spent(&spent, count),
        Figure::cost("end to end p99", millis(99), "ms").target_on(&stage.database, 8.0).floor(sync),
        Figure::cost("TCP there and back p50, without a broker", stage.floors.tcp_p50_us / 1e3, "ms"),
        Figure::cost("end to end p50 beside the sync floor", millis(50) / sync, "x sync")
            .target_on(&stage.database, 4.0),
    ])
}

struct Player {
    connection: Connection,
    pushes: Pushes,
    outbox: Outbox,
    key: String,
}

async fn play(one: &mut Player, two: &mut Player, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    let (mut server, mut other) = (one, two);
    for _ in 0..count {
        let number = server.outbox.next;
        let message = server.outbox.to(&other.key);
        let started = Instant::now();
        let sent = server.connection.submit(message).await?;
        let push = other.pushes.next().await.context("a connection ended")?;
        times.push(started.elapsed());
        ensure!(number_of(&push) == Some(number), "another message came");
        other.connection.ack(&push).await?;
        ensure!(sent.ack().await?.queued, "a message was not accepted");
        (server, other) = (other, server);
    }
    Ok(times)
}
