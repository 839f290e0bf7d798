//! The whole life of messages, per second.

use crate::figure::Figure;
use crate::number::float;
use crate::process::Meter;
use crate::rows::peers::Peers;
use crate::rows::sends::Until;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let mut peers = Peers::gather(&broker, stage.sizes.peers).await?;
    peers.talk(WINDOW, Until::Time(stage.sizes.warm_up)).await?;
    let meter = Meter::start(&broker).await?;
    let count = peers.talk(WINDOW, Until::Time(stage.sizes.load)).await?;
    let spent = meter.stop().await?;
    let rate = float(count) / spent.wall.as_secs_f64();
    let name = format!("whole life, {} peers", stage.sizes.peers);
    let figure = Figure::speed(name, rate, "1/s").target_on(&stage.database, 8000.0);
    Ok(vec![figure.floor(stage.floors.syncs_per_second).spent(&spent, count)])
}

/// Messages of one peer that wait for their ack: 400 in flight among 100.
const WINDOW: usize = 4;
