//! Closing connections of others: `disconnect`, after which their clients may come back at once, and `kick`, after which a session
//! has to stay away for a minute.

use std::time::Duration;

use claudemesh_proto::ban::{SendAway, SentAway, Sought};
use claudemesh_proto::{BrokerFrame, ErrorCode};

use crate::app::App;
use crate::calls::{Live, ban};
use crate::close::Close;
use crate::fault::Fault;
use crate::hub::{Away, NotSentAway, Whom};

/// For how long a session that was kicked is refused. Its client would be back within a second otherwise.
const BLOCK: Duration = Duration::from_mins(1);

/// Sends sessions away for a minute. Connections of daemons and commands are left alone: their clients do not heed a kick.
pub(crate) async fn kick(app: &App, live: &Live, request: SendAway) -> Result<BrokerFrame, Fault> {
    send_away(app, live, request, ("kicked", Some(BLOCK))).await.map(BrokerFrame::KickAck)
}

/// Closes connections.
pub(crate) async fn disconnect(app: &App, live: &Live, request: SendAway) -> Result<BrokerFrame, Fault> {
    send_away(app, live, request, ("disconnected", None)).await.map(BrokerFrame::DisconnectAck)
}

async fn send_away(
    app: &App,
    live: &Live,
    request: SendAway,
    (done, block): (&str, Option<Duration>),
) -> Result<SentAway, Fault> {
    let owner = ban::authorise(app, live, done).await?.owner;
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
    let names: Vec<String> = sent_away.names.iter().map(ToString::to_string).collect();
    let skipped: Vec<String> = sent_away.skipped.iter().map(ToString::to_string).collect();
    Ok(SentAway {
        kicked: names.clone(),
        affected: names,
        skipped_control_plane: Some(skipped).filter(|it| !it.is_empty()),
    })
}
