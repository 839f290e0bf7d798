//! The time before hello: a stranger may say only that, and soon.

use std::net::IpAddr;
use std::sync::Arc;

use claudemesh_keys::{NoRandomness, random_bytes, sha256};
use claudemesh_proto::hello::{HelloAck, MemberProfile, MeshPolicy, QUIET, TOPICS};
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::text::base64url;
use claudemesh_proto::{
    Addressed, BrokerFrame, ClientFrame, ConnectionId, ErrorCode, ErrorFrame, GroupSet, Peek, PresenceId,
};
use claudemesh_store::{Admission, SaidGroups, Welcome, Withdraw, arrival};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::calls::Live;
use crate::close::Close;
use crate::edge::guests::Guest;
use crate::edge::line::{Incoming, Line, Stuck};
use crate::fault::Fault;
use crate::hub::{Arrival, Doorbell, Entered, LeaseKey, NotSeated, Presence, Vacancy};
use crate::jobs::sweep;
use crate::session::handshake::{Greeting, Rejection, Verified, welcome};

/// A connection that was let in.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) live: Live,
    /// The client waits for hello_ack before it can take a push, and does not say so.
    pub(crate) needs_a_moment: bool,
    /// The connection that gave way to this one, and may still hold mail.
    pub(crate) predecessor: Option<Arc<Doorbell>>,
}

/// How the time before hello ended.
enum End {
    Greeted(Box<Greeted>),
    /// Say this, then close with that.
    Refused(Option<ErrorFrame>, Close),
    /// The client left.
    Left,
    Broken,
}

/// Waits for a good handshake and answers it. `None` when there was none; the line is closed then.
pub(crate) async fn greet(
    app: &Arc<App>,
    mut line: Line,
    (address, stranger): (Option<IpAddr>, Guest),
    stop: &CancellationToken,
) -> Option<(Line, Box<Greeted>)> {
    let mut stranger = Some(stranger);
    let end = tokio::select! {
        end = until_hello(app, &mut line, (address, &mut stranger)) => end,
        () = tokio::time::sleep(app.settings.config.hello_timeout) => End::Refused(None, Close::HELLO_TIMEOUT),
        () = stop.cancelled() => End::Refused(None, Close::SHUTTING_DOWN),
    };
    match end {
        End::Greeted(greeted) => return Some((line, greeted)),
        End::Refused(error, close) => {
            if let Some(error) = error {
                let _ = line.feed(Addressed { frame: BrokerFrame::Error(error), request_id: None }.to_json()).await;
            }
            line.close(close).await;
        }
        End::Left => line.finish().await,
        End::Broken => {}
    }
    None
}

async fn until_hello(
    app: &Arc<App>,
    line: &mut Line,
    (address, stranger): (Option<IpAddr>, &mut Option<Guest>),
) -> End {
    loop {
        let text = match line.next().await {
            Incoming::Text(text) => text,
            Incoming::NotText => "".into(),
            Incoming::Alive => continue,
            Incoming::Goodbye => return End::Left,
            Incoming::Unreadable(close) => return End::Refused(None, close),
            Incoming::Broken => return End::Broken,
        };
        let (fault, request_id) = match read(&text) {
            Ok((greeting, groups)) => match admit(app, *greeting, (groups, address)).await {
                Ok((greeted, ack)) => {
                    // No stranger any more, before anybody is told so.
                    *stranger = None;
                    if say(line, BrokerFrame::HelloAck(Box::new(ack)), None).await.is_err() {
                        return End::Broken;
                    }
                    app.metrics.connected();
                    return End::Greeted(greeted);
                }
                Err(NotAdmitted::Rejected(rejection)) => {
                    app.metrics.rejected(rejection.reason);
                    if rejection.is_a_failure() {
                        app.limits.hello_failed(address, app.clock.now());
                    }
                    let code = rejection.reason.code();
                    tracing::info!(code = code.as_str(), "a handshake was refused");
                    let error = ErrorFrame { code, message: rejection.message };
                    return End::Refused(Some(error), rejection.close);
                }
                Err(NotAdmitted::Failed(fault)) => (fault, None),
            },
            Err(unreadable) => unreadable,
        };
        if say(line, BrokerFrame::Error(fault.frame()), request_id).await.is_err() {
            return End::Broken;
        }
    }
}

/// A handshake, or the error to answer with; the connection stays.
fn read(text: &str) -> Result<(Box<Greeting>, SaidGroups), (Fault, Option<String>)> {
    let peek = Peek::at(text).map_err(|_| (Fault::new(ErrorCode::Malformed, "invalid JSON"), None))?;
    let request_id = peek.request_id;
    let frame = peek.kind.as_deref().and_then(|kind| match kind {
        "hello" | "session_hello" => ClientFrame::read(kind, text),
        _ => None,
    });
    let greeting = match frame {
        Some(Ok(ClientFrame::Hello(hello))) => Greeting::Member(hello),
        Some(Ok(ClientFrame::SessionHello(hello))) => Greeting::Session(hello),
        Some(Err(bad_field)) => return Err((Fault::invalid(bad_field.to_string()), request_id)),
        _ => return Err((Fault::new(ErrorCode::NoHello, "must send hello first"), request_id)),
    };
    match greeting.said_groups() {
        Ok(groups) => Ok((Box::new(greeting), groups)),
        Err(bad_field) => Err((Fault::invalid(bad_field.to_string()), request_id)),
    }
}

/// Why a handshake does not open the connection.
enum NotAdmitted {
    /// For what it says: the connection is closed.
    Rejected(Rejection),
    /// The broker cannot answer just now: the client may say hello again.
    Failed(Fault),
}

impl From<Rejection> for NotAdmitted {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Fault> for NotAdmitted {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Checks a handshake and seats the connection; what to answer it.
async fn admit(
    app: &Arc<App>,
    greeting: Greeting,
    (groups, address): (SaidGroups, Option<IpAddr>),
) -> Result<(Box<Greeted>, HelloAck), NotAdmitted> {
    let lease = LeaseKey::named_in(&greeting);
    let has_room = greeting.mesh_id().parse().map_or(true, |mesh| app.hub.has_room(&mesh));
    let Verified { admission, place, peer_role } = greeting.verify(app.clock.now(), has_room)?;
    // Whoever is refused for these has changed nothing.
    if !app.limits.may_enter(&admission.mesh_id, &admission.member_pubkey, app.clock.now()) {
        return Err(Rejection::too_often().into());
    }
    let is_admin = match app.hub.would_seat(&admission, lease.as_ref()).map_err(not_seated)? {
        Vacancy::ForAdmins if !may_administer(app, &admission).await? => return Err(Rejection::capacity().into()),
        places => places == Vacancy::ForAdmins,
    };
    let (presence_id, connection, hook_token) = fresh_ids().map_err(|_| Fault::unavailable())?;
    let is_arrival = !app.hub.goes_on(&admission.mesh_id, lease.as_ref());
    let admission = Admission { groups, is_arrival, ..admission };
    let admitted = app.store.admit(admission.clone()).await.await.map_err(Fault::from)?;
    let welcome = welcome(admitted, peer_role)?;
    let turned_away = |rejection| {
        // The log says already that it came.
        if is_arrival {
            app.hub.note_departure(&admission.mesh_id, &welcome.member_id, &welcome.display_name);
        }
        NotAdmitted::Rejected(rejection)
    };
    let needs_a_moment = place.capabilities.as_ref().is_none_or(|words| words.iter().all(|word| word == TOPICS));
    let about = Arrival { id: presence_id, now: app.clock.now(), address, hook_token: sha256(&hook_token) };
    let presence = Presence::new(about, &admission, &welcome, (place, peer_role));
    let (display_name, sender_pubkey) = (presence.peer.display_name.clone(), presence.peer.pubkey);
    let (is_quiet, knows_topics) = (presence.is_quiet, presence.knows_topics);
    let said_groups = admission.groups != SaidGroups::Nothing;
    let Entered { seat, is_new, reattached, predecessor, relieved } =
        app.hub.enter(presence, is_admin, connection).map_err(|refused| turned_away(not_seated(refused)))?;
    if is_new && !is_arrival {
        // The presence that it was to go on with has ended meanwhile.
        app.hub.log_later(arrival(&admission, &welcome));
        sweep::log_departures(app).await;
    }
    for connection in relieved {
        // What is sent once the client knows that it is here must not go to who had the turn before.
        drop(app.store.withdraw(Withdraw { mesh_id: admission.mesh_id.clone(), connection }).await);
    }
    let live = Live {
        seat,
        mesh_id: admission.mesh_id,
        member_id: welcome.member_id.clone(),
        member_pubkey: admission.member_pubkey,
        sender_pubkey,
        display_name,
        peer_role,
        knows_topics,
    };
    let ack = hello_ack(&live, *welcome, (reattached, said_groups), is_quiet);
    let ack = HelloAck { hook_token: Some(hook_token), ..ack };
    Ok((Box::new(Greeted { live, needs_a_moment, predecessor }), ack))
}

fn not_seated(refused: NotSeated) -> Rejection {
    match refused {
        NotSeated::Full => Rejection::capacity(),
        NotSeated::Blocked(left) => Rejection::kicked(left),
    }
}

/// Whether whoever says hello is an admin or the owner. It is asked only where the last places are, and of who is not let in an
/// address has few tries.
async fn may_administer(app: &App, admission: &Admission) -> Result<bool, Fault> {
    let members = app.store.members(&admission.mesh_id).await?;
    let Some(member) = members.into_iter().find(|member| member.pubkey == admission.member_pubkey) else {
        return Ok(false);
    };
    let authority = app.store.authority(&admission.mesh_id, &member.id).await?;
    Ok(authority.is_some_and(|authority| authority.may_administer))
}

fn fresh_ids() -> Result<(PresenceId, ConnectionId, String), NoRandomness> {
    let hook_token = base64url(&random_bytes::<32>()?);
    Ok((PresenceId::from_random(random_bytes()?), ConnectionId::from_random(random_bytes()?), hook_token))
}

fn hello_ack(live: &Live, welcome: Welcome, (reattached, said_groups): (bool, bool), is_quiet: bool) -> HelloAck {
    let is_session = live.peer_role == PeerRole::Session;
    let honoured = is_quiet.then_some(QUIET).into_iter().chain(live.knows_topics.then_some(TOPICS));
    let profile = MemberProfile {
        role_tag: welcome.role_tag,
        groups: welcome.default_groups.into_vec(),
        message_mode: welcome.message_mode,
    };
    let remembered = welcome.remembered.filter(|_| !is_session && !reattached);
    let last_seen_at = welcome.last_seen_at.filter(|_| remembered.is_some());
    let restored_groups = remembered.as_ref().map(|remembered| remembered.groups.clone());
    let restored_groups = restored_groups.filter(|groups| !said_groups && !groups.is_empty()).map(GroupSet::into_vec);
    HelloAck {
        presence_id: live.seat.presence_id().clone(),
        member_display_name: live.display_name.clone(),
        member_profile: (!(is_session && reattached)).then_some(profile),
        mesh_policy: Some(MeshPolicy { self_editable: welcome.self_editable }),
        restored: remembered.as_ref().map(|_| true),
        last_seen_at,
        restored_groups,
        restored_stats: remembered.as_ref().map(|remembered| remembered.stats),
        last_summary: remembered.and_then(|remembered| remembered.last_summary),
        hook_token: None,
        services: (!is_session).then(Vec::new),
        capabilities: honoured.map(str::to_owned).collect(),
    }
}

async fn say(line: &mut Line, frame: BrokerFrame, request_id: Option<String>) -> Result<(), Stuck> {
    line.feed(Addressed { frame, request_id }.to_json()).await?;
    line.flush().await
}
