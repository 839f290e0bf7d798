//! This start of a broker among others: claims name it, and hold only while its heart beats.

use std::time::Duration;

use crate::db::{Db, Tx};
use crate::sql::{Sql, sql};

/// How often a node on PostgreSQL says that it lives; five in a row may be missed.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// A silent broker's claims are void after this long.
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Voids the claims of this node's earlier starts and begins a new one; its number.
///
/// A SQLite file belongs to one process, so there every earlier start is over, and nobody has to listen to this one's heart.
pub(crate) async fn begin(db: &Db, name: &str) -> sqlx::Result<i64> {
    const OVER: Sql = sql!(
        sqlite: "update node set heartbeat_at = 0 where heartbeat_at <> 0 and name <> $1 or name = $1",
        postgres: "update node set heartbeat_at = 0 where heartbeat_at <> 0 and name = $1",
    );
    // A claim that names no row is void like one whose row says 0. What is 0 now was left by the start before the last: a broker with
    // the same name that lives all the same has said so since.
    const FORGET: Sql = sql!("delete from node where heartbeat_at = 0");
    const BEGIN: Sql = sql!(
        sqlite: "insert into node (name, started_at, heartbeat_at) \
                 values ($1, unixepoch() * 1000, 9223372036854775807) returning incarnation",
        postgres: "insert into node (name, started_at, heartbeat_at) \
                   select $1, t.now, t.now from (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now) t \
                   returning incarnation",
    );
    let mut tx: Tx = db.write().await?;
    tx.connection().execute(FORGET, &[]).await?;
    tx.connection().execute(OVER, &[name.into()]).await?;
    let row = tx.connection().row(BEGIN, &[name.into()]).await?.ok_or(sqlx::Error::RowNotFound)?;
    let incarnation = row.int(0)?;
    tx.commit().await?;
    Ok(incarnation)
}

/// Says every two seconds that this node lives.
pub(crate) async fn beat_for_ever(db: &Db, incarnation: i64) {
    const BEAT: Sql = sql!(
        "update node set heartbeat_at = (extract(epoch from clock_timestamp()) * 1000)::bigint where incarnation = $1"
    );
    loop {
        tokio::time::sleep(HEARTBEAT_EVERY).await;
        let beat = async {
            let mut tx = db.write().await?;
            tx.connection().execute(BEAT, &[incarnation.into()]).await?;
            tx.commit().await
        };
        if let Err(error) = beat.await {
            tracing::warn!(error = %error, "this node cannot say that it lives; after 10 s others may take its mail");
        }
    }
}
