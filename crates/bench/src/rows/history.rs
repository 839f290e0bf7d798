//! Pages of a long topic's history, each before a message anywhere in it.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use claudemesh_client::Connection;
use claudemesh_proto::{MessageId, TopicId};
use tokio::time::Instant;

use crate::figure::Figure;
use crate::latency::Latencies;
use crate::load::Outbox;
use crate::mesh::{Mesh, general};
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mesh = Mesh::create(&broker, 1).await?;
    let (connection, _pushes) = mesh.connect(0).await?;
    let topic = general(&connection).await?;
    let mut history = History { outbox: Outbox::new(0)?, written: 0, marks: Vec::new() };
    let mut figures = Vec::new();
    for &length in stage.sizes.history {
        history.grow(&connection, &topic, length).await?;
        let meter = Meter::start(&broker).await?;
        let mut times = Vec::with_capacity(stage.sizes.pages);
        // A stride without a common divisor with any round number visits marks all over the history.
        let before = history.marks.iter().cycle().step_by(STRIDE);
        for before in before.take(stage.sizes.pages) {
            let started = Instant::now();
            let page = connection.topic_history(topic.as_str(), PAGE, Some(before)).await?;
            times.push(started.elapsed());
            ensure!(page.len() == usize::try_from(PAGE)?, "a page has {} messages", page.len());
        }
        let spent = meter.stop().await?;
        let count = u64::try_from(times.len())?;
        let times = Latencies::new(times);
        let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
        let name = |which| format!("page of {PAGE} of {length} messages, {which}");
        figures.push(Figure::cost(name("p50"), millis(50), "ms").spent(&spent, count));
        figures.push(Figure::cost(name("p99"), millis(99), "ms").target_on(&stage.database, 5.0));
    }
    Ok(figures)
}

/// A topic's messages as they are written.
struct History {
    outbox: Outbox,
    written: u64,
    /// Messages here and there, none of them among the oldest.
    marks: Vec<MessageId>,
}

impl History {
    async fn grow(&mut self, connection: &Connection, topic: &TopicId, length: u64) -> anyhow::Result<()> {
        let (target, mut waiting, mut submitted) = (format!("#{topic}"), VecDeque::new(), self.written);
        while self.written < length {
            while waiting.len() < WINDOW && submitted < length {
                waiting.push_back(connection.submit(self.outbox.to(&target)).await?);
                submitted += 1;
            }
            let oldest = waiting.pop_front().context("nothing is under way")?;
            let ack = oldest.ack().await?;
            ensure!(ack.queued, "a message was not accepted: {}", ack.error.unwrap_or_default());
            self.written += 1;
            if self.written.is_multiple_of(MARK_EVERY) {
                self.marks.push(ack.message_id.parse()?);
            }
        }
        Ok(())
    }
}

/// Messages of a page.
const PAGE: i64 = 50;

/// One message in so many is a mark; more than a page holds, so that a full page lies before each.
const MARK_EVERY: u64 = 97;

const STRIDE: usize = 7919;

/// Messages that wait for their ack.
const WINDOW: usize = 256;
