//! Reading and verifying the audit log, for admins.

use claudemesh_proto::audit::{AuditQuery, AuditResult, AuditVerifyResult, Checkpoint};
use claudemesh_proto::{BrokerFrame, ErrorCode};
use claudemesh_store::{AuditHead, Broken, Mark, Verified};

use crate::app::App;
use crate::calls::{Live, ban, weight};
use crate::fault::{Fault, UNAVAILABLE};
use crate::jobs::checkpoints;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;
const READ: &str = "read the audit log";

/// Entries, newest first: fewer than were asked for where they are long.
pub(crate) async fn query(app: &App, live: &Live, request: AuditQuery) -> Result<BrokerFrame, Fault> {
    ban::authorise(app, live, READ).await.map_err(|fault| failed_as(ErrorCode::AuditQueryError, fault))?;
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Fault::invalid(format!("limit must be 1 to {MAX_LIMIT}")));
    }
    let page = (limit, request.offset.unwrap_or(0));
    let found = app.store.audit_entries(&live.mesh_id, page, request.event_type.as_deref()).await;
    let found = found.map_err(|error| failed_as(ErrorCode::AuditQueryError, error.into()))?;
    Ok(BrokerFrame::AuditResult(AuditResult { entries: weight::entries(found.entries), ..found }))
}

/// Hashes the whole log again and compares it with what is known of it. A long log takes seconds, during which
/// this connection is asked nothing else.
pub(crate) async fn verify(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    let failed = |fault| failed_as(ErrorCode::AuditVerifyError, fault);
    ban::authorise(app, live, READ).await.map_err(failed)?;
    let mesh = &live.mesh_id;
    let busy = || Fault::new(ErrorCode::AuditVerifyError, "the audit log is being verified already, try again");
    let _turn = app.notary.turn(mesh).ok_or_else(busy)?;
    // Before the log itself: what the file holds was in the log by then.
    let noted = app.notary.noted(mesh).await.map_err(|error| {
        tracing::error!(error = %error, "the file of audit checkpoints could not be read");
        failed(Fault::unavailable())
    })?;
    let is_ours = |checkpoint: &Checkpoint| app.notary.is_ours(mesh, checkpoint);
    let goes_on = || live.seat.doorbell().wants_close().is_none();
    let verified = app.store.verify_audit_log(mesh, &noted.marks, is_ours, goes_on).await;
    let verified = verified.map_err(|error| failed(error.into()))?.ok_or_else(|| failed(Fault::unavailable()))?;
    let newest = [verified.newest.clone(), noted.newest].into_iter().flatten().max_by_key(|one| one.seq);
    let forged =
        noted.forged.map(|at| Broken { at, why: "a checkpoint in the file is not signed by this broker".into() });
    let (checkpoint, broken) = match verified.broken.clone().or(forged) {
        None => (up_to_date(app, live, &verified, newest).await, None),
        Some(broken) => {
            tracing::warn!(mesh.id = %mesh, audit.seq = broken.at, "an audit log does not verify");
            (newest, Some(broken))
        }
    };
    let (broken_at, why) = broken.map(|Broken { at, why }| (at, why)).unzip();
    let entries = verified.entries;
    Ok(BrokerFrame::AuditVerifyResult(AuditVerifyResult {
        valid: broken_at.is_none(),
        entries,
        broken_at,
        why,
        checkpoint,
    }))
}

/// A checkpoint of the log as it was verified: the newest, or one made now.
async fn up_to_date(app: &App, live: &Live, verified: &Verified, newest: Option<Checkpoint>) -> Option<Checkpoint> {
    let Mark { seq, hash, hash2 } = verified.end.clone();
    if newest.as_ref().is_some_and(|newest| newest.seq >= seq) {
        return newest;
    }
    let head = AuditHead { mesh_id: live.mesh_id.clone(), seq, hash, hash2 };
    match checkpoints::make(app, head).await {
        Ok(checkpoint) => Some(checkpoint),
        Err(error) => {
            tracing::warn!(error = %format!("{error:#}"), "a checkpoint of an audit log could not be made");
            newest
        }
    }
}

/// What went wrong in the broker is told under the word that clients know for it.
fn failed_as(code: ErrorCode, fault: Fault) -> Fault {
    if fault.code == ErrorCode::Unavailable { Fault::new(code, UNAVAILABLE) } else { fault }
}
