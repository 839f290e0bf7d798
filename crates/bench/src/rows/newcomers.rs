//! A member who holds the key of a topic seals a copy for each of many newcomers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use claudemesh_client::Passing;
use claudemesh_proto::TopicName;
use claudemesh_proto::api_key::Capability;
use tokio::time::Instant;

use crate::figure::Figure;
use crate::mesh::{GENERAL, Mesh};
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let newcomers = stage.sizes.audience;
    let mesh = Mesh::create(&broker, newcomers + 1).await?;
    let holder = mesh.members.first().context("the mesh is empty")?;
    let (connection, _pushes) = mesh.connect(0).await?;
    let topic: TopicName = GENERAL.parse()?;
    let capabilities = [Capability::Read, Capability::Send];
    let passing = Passing { purpose: "bench", capabilities: &capabilities, topic: Some(&topic), life: LIFE };
    let bearer = connection.passing_key(&mesh.url, passing).await?.bearer;
    let key = bearer.claim_topic_key(&holder.identity, &topic).await?.context("the topic has a key already")?;
    let meter = Meter::start(&broker).await?;
    let started = Instant::now();
    let sealed = bearer.share_topic_key(&holder.identity, &topic, &key).await?;
    let took = started.elapsed();
    let spent = meter.stop().await?;
    ensure!(sealed.len() == newcomers, "{} copies for {newcomers} newcomers", sealed.len());
    let figure = Figure::cost(format!("topic key sealed for {newcomers} newcomers"), took.as_secs_f64(), "s");
    Ok(vec![figure.target_on(&stage.database, 2.0).spent(&spent, u64::try_from(newcomers)?)])
}

/// Longer than this takes.
const LIFE: Duration = Duration::from_mins(5);
