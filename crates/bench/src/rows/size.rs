//! What a broker that nobody uses takes: of the disk, and of memory.

use tokio::time::sleep;

use crate::figure::Figure;
use crate::number::float;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let size = float(std::fs::metadata(&stage.program)?.len()) / 1e6;
    let (_home, broker) = stage.broker().await?;
    sleep(stage.sizes.settle).await;
    let resident = float(broker.process().memory_kib("Rss")?) / 1024.0;
    Ok(vec![
        Figure::cost("size of the program", size, "MB").target(25.0),
        Figure::cost("resident idle", resident, "MiB").target(30.0),
    ])
}
