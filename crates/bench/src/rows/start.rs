//! Starting: from the start of the process to the first good answer of `/health/ready`.

use crate::broker::Broker;
use crate::figure::Figure;
use crate::http::metric;
use crate::rows::sends::{Flight, Load, Until};
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let mut empty = Vec::new();
    for _ in 0..stage.sizes.starts {
        let (_home, broker) = stage.broker().await?;
        empty.push(broker.start_time.as_secs_f64() * 1e3);
    }
    let best = empty.into_iter().fold(f64::INFINITY, f64::min);
    let mut figures = vec![Figure::cost("start, empty", best, "ms").target(100.0)];
    for &count in stage.sizes.queued {
        figures.push(after_kill(stage, count).await?);
    }
    Ok(figures)
}

/// Queues so many messages, kills the broker and starts it again: the write-ahead log is as the crash left it.
async fn after_kill(stage: &Stage, count: u64) -> anyhow::Result<Figure> {
    let (home, broker) = stage.broker().await?;
    let flight = Flight { senders: 16, window: 32, target: None };
    // A queue takes 10,000 rows.
    let mut load = Load::new(&broker, flight, usize::try_from(count / 5000)? + 1).await?;
    load.keep_up(Until::Count(count.div_ceil(16))).await?;
    drop(broker);
    let broker = Broker::start(&stage.program, &home).await?;
    let kept = metric(broker.address, "broker_queue_depth").await?;
    anyhow::ensure!(kept >= count, "{kept} of {count} messages survived the kill");
    let figure = Figure::cost(format!("start, {count} queued"), broker.start_time.as_secs_f64() * 1e3, "ms");
    Ok(figure.target(1000.0))
}
