//! Closing connections of others: `disconnect`, after which their clients may come back at once, and `kick`, after which a session
//! has to stay away for a minute.

use std::time::Duration;

use claudemesh_proto::ban::{SendAway, SentAway, Sought};
use claudemesh_proto::{BrokerFrame, ErrorCode};
use claudemesh_store::{Authority, Event};
use serde_json::json;

use crate::app::App;
use crate::calls::{Live, ban};
use crate::close::Close;
use crate::fault::Fault;
use crate::hub::{Away, NotSentAway, Whom};

/// For how long a session that was kicked is refused. Its client would be back within a second otherwise.
const BLOCK: Duration = Duration::from_mins(1);

/// Of so many members the log says that they were sent away, and how many connections there were in all.
const MEMBERS_LOGGED: usize = 16;

/// Sends sessions away for a minute. Connections of daemons and commands are left alone: their clients do not heed a kick.
pub(crate) async fn kick(app: &App, live: &Live, request: SendAway) -> Result<BrokerFrame, Fault> {
    send_away(app, live, request, Some(BLOCK)).await.map(BrokerFrame::KickAck)
}

/// Closes connections.
pub(crate) async fn disconnect(app: &App, live: &Live, request: SendAway) -> Result<BrokerFrame, Fault> {
    send_away(app, live, request, None).await.map(BrokerFrame::DisconnectAck)
}

async fn send_away(app: &App, live: &Live, request: SendAway, block: Option<Duration>) -> Result<SentAway, Fault> {
    let (done, event) = match block {
        Some(_) => ("kicked", "member_kicked"),
        None => ("disconnected", "member_disconnected"),
    };
    // "can kicked" is what existing clients know.
    let Authority { owner, display_name, .. } = ban::authorise(app, live, done).await?;
    let now = app.clock.now();
    let (close, stale) = match block {
        Some(_) => (Close::KICKED, Close::KICKED_STALE),
        None => (Close::DISCONNECTED, Close::DISCONNECTED_STALE),
    };
    let target = request.target.as_deref().and_then(Sought::new);
    let (whom, close) = match (request.all, request.stale, target) {
        (Some(true), ..) => (Whom::All, close),
        (_, Some(stale_for), _) => {
            let silence =
                u64::try_from(stale_for).map_err(|_| Fault::invalid("stale must be 0 or more milliseconds"))?;
            (Whom::Silent(now.minus(Duration::from_millis(silence))), stale)
        }
        (_, _, Some(target)) => {
            let called = app.store.members_called(&live.mesh_id, &target).await?;
            (Whom::Meant(target, called), close)
        }
        _ => return Ok(SentAway::default()),
    };
    let spared = (live.member_id != owner).then_some(&owner);
    let away = Away { whom, by: live.seat.presence_id(), spared, close, block };
    let sent_away = app.hub.send_away(&live.mesh_id, &away).map_err(|refused| match (refused, &away.whom) {
        (NotSentAway::Ambiguous, Whom::Meant(target, _)) => ban::ambiguous(target),
        _ => Fault::new(ErrorCode::Forbidden, format!("the owner cannot be {done}")),
    })?;
    let count = sent_away.names.len();
    tracing::info!(mesh.id = %live.mesh_id, member.id = %live.member_id, close.reason = close.reason, count, "connections were sent away");
    if count > 0 {
        let actor = Some((live.member_id.clone(), display_name.unwrap_or_else(|| live.display_name.clone())));
        let members: Vec<_> = sent_away.members.iter().take(MEMBERS_LOGGED).collect();
        let payload = json!({"memberIds": members, "count": count});
        log(app, Event { mesh_id: live.mesh_id.clone(), event, actor, payload }).await;
    }
    let names: Vec<String> = sent_away.names.iter().map(ToString::to_string).collect();
    let skipped: Vec<String> = sent_away.skipped.iter().map(ToString::to_string).collect();
    Ok(SentAway {
        kicked: names.clone(),
        affected: names,
        skipped_control_plane: Some(skipped).filter(|it| !it.is_empty()),
    })
}

/// What was done cannot be taken back: where it cannot be logged now, it waits with the ends of those presences.
async fn log(app: &App, event: Event) {
    if app.store.record(event.clone()).await.await.is_err() {
        app.hub.log_later(event);
    }
}
