//! The size of the broker's program.

use std::future::ready;

use crate::figure::Figure;
use crate::number::float;
use crate::stage::Stage;

pub(crate) fn run(stage: &Stage) -> impl Future<Output = anyhow::Result<Vec<Figure>>> {
    let size = std::fs::metadata(&stage.program).map(|file| float(file.len()) / 1e6);
    ready(size.map(|size| vec![Figure::cost("size of the program", size, "MB").target(25.0)]).map_err(Into::into))
}
