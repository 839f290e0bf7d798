//! What a message costs as there is more of everything: rows that wait, and members.

use crate::figure::Figure;
use crate::number::float;
use crate::process::Meter;
use crate::rows::sends::{Flight, Load, Until};
use crate::stage::Stage;

/// With so many in flight the figures are the database's work, not its syncs.
const FLIGHT: Flight = Flight { senders: 16, window: 16, target: None };
/// A queue takes 10,000 rows, and what is measured has to fit besides.
const ROWS_OF_EACH: u64 = 4000;
/// Queues that take what is measured.
const RECIPIENTS: usize = 50;
/// How much more a message may cost at the far end.
const MOST: f64 = 1.5;

/// Messages for members who are away, on top of so many that wait.
pub(crate) async fn queued(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut first = None;
    let (_home, broker) = stage.broker().await?;
    let most = stage.sizes.growth.iter().max().copied().unwrap_or(0);
    let recipients = usize::try_from(most / ROWS_OF_EACH)? + RECIPIENTS;
    let mut load = Load::new(&broker, FLIGHT, recipients).await?;
    load.keep_up(Until::Time(stage.sizes.warm_up)).await?;
    let mut waiting = 0;
    for &count in stage.sizes.growth {
        let more = count.saturating_sub(waiting);
        load.keep_up(Until::Count(more.div_ceil(16))).await?;
        let meter = Meter::start(&broker).await?;
        let accepted = load.keep_up(Until::Time(stage.sizes.load)).await?;
        let spent = meter.stop().await?;
        waiting = count + accepted;
        let cost = spent.broker.as_secs_f64() * 1e6 / float(accepted.max(1));
        figures.push(Figure::cost(format!("CPU of a send, {count} waiting"), cost, "µs").spent(&spent, accepted));
        figures.extend(grown(&format!("{count} waiting"), &mut first, cost));
    }
    Ok(figures)
}

/// Messages in meshes of more and more members.
pub(crate) async fn members(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut first = None;
    for &count in stage.sizes.members {
        let (_home, broker) = stage.broker().await?;
        let mut load = Load::new(&broker, FLIGHT, count).await?;
        load.keep_up(Until::Count(10)).await?;
        let meter = Meter::start(&broker).await?;
        // Ten queues hold 100,000 rows.
        let accepted = load.keep_up(Until::Count(stage.sizes.to_each)).await?;
        let spent = meter.stop().await?;
        let cost = spent.broker.as_secs_f64() * 1e6 / float(accepted.max(1));
        figures.push(Figure::cost(format!("CPU of a send, {count} members"), cost, "µs").spent(&spent, accepted));
        figures.extend(grown(&format!("{count} members"), &mut first, cost));
    }
    Ok(figures)
}

/// How many times as much as the first one it costs; nothing for the first one.
fn grown(what: &str, first: &mut Option<f64>, cost: f64) -> Option<Figure> {
    let Some(least) = *first else {
        *first = Some(cost);
        return None;
    };
    Some(Figure::cost(format!("with {what}, beside the fewest"), cost / least, "x").target(MOST))
}
