//! A burst: everybody has much to say at once. All of it arrives; how soon, and how much memory does it take?

use crate::figure::Figure;
use crate::number::float;
use crate::process::Meter;
use crate::rows::peers::Peers;
use crate::rows::sends::Until;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mut peers = Peers::gather(&broker, stage.sizes.peers).await?;
    let meter = Meter::start(&broker).await?;
    let count = peers.talk(WINDOW, Until::Count(stage.sizes.burst)).await?;
    let spent = meter.stop().await?;
    let name = format!("{} peers x {} messages, all delivered", stage.sizes.peers, stage.sizes.burst);
    let seconds = Figure::cost(name, spent.wall.as_secs_f64(), "s").target_on(&stage.database, 30.0);
    let mebibytes = |kib: u64| float(kib) / 1024.0;
    let after = mebibytes(broker.process().memory_kib("Rss")?);
    let peak = mebibytes(broker.process().peak_kib()?);
    Ok(vec![
        seconds.spent(&spent, count),
        Figure::cost("resident after the burst", after, "MiB").target(150.0),
        Figure::cost("resident at most", peak, "MiB"),
    ])
}

/// Messages of one peer that wait for their ack.
const WINDOW: usize = 16;
