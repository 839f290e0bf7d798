//! Who is here, and what they say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::Group;
use claudemesh_proto::limits::{MAX_AVATAR_CHARS, MAX_BIO_CHARS, MAX_NAME_CHARS, MAX_SKILLS, MAX_SUMMARY_CHARS};
use claudemesh_proto::message::Ack;
use claudemesh_proto::presence::{
    Peer, PeersList, Profile, SetProfile, SetStats, SetStatus, SetSummary, SetVisible, Stats, StatusSource,
};
use claudemesh_proto::text::{many_lines, one_line};
use claudemesh_proto::{BrokerFrame, DisplayName, MemberId, MeshId, PublicKey, Status};
use claudemesh_store::StoreError;

use crate::app::App;
use crate::calls::{Live, weight};
use crate::fault::Fault;

/// Whoever used a key within this time counts as being here.
const USED_LATELY: Duration = Duration::from_mins(5);

/// Every presence of the caller's mesh that the caller may see, its own included.
pub(crate) fn list(app: &App, live: &Live) -> BrokerFrame {
    BrokerFrame::PeersList(PeersList { peers: weight::peers(app.hub.peers(&live.mesh_id, &live.member_id)) })
}

/// Whoever is here, as the REST interface shows it.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) pubkey: PublicKey,
    pub(crate) display_name: DisplayName,
    pub(crate) status: Status,
    pub(crate) summary: Option<String>,
    pub(crate) groups: Vec<Group>,
    /// Over the WebSocket; else by a key.
    pub(crate) is_connected: bool,
}

/// The newest presence that the viewer may see of each member, by the members' keys.
pub(crate) fn newest(app: &App, mesh: &MeshId, viewer: &MemberId) -> BTreeMap<PublicKey, Arc<Peer>> {
    let mut peers = app.hub.peers(mesh, viewer);
    peers.sort_by_key(|peer| peer.connected_at);
    peers.into_iter().map(|peer| (peer.member_pubkey, peer)).collect()
}

/// One of each member that is here, over the WebSocket or by a key that was used within five minutes.
pub(crate) async fn here(app: &App, mesh: &MeshId, viewer: &MemberId) -> Result<Vec<Here>, StoreError> {
    let by_key = app.store.members_by_key(mesh, USED_LATELY, viewer).await?;
    let members = app.store.members(mesh).await?;
    let connected = weight::peers(newest(app, mesh, viewer).into_values().collect());
    let mut connected: BTreeMap<PublicKey, Peer> =
        connected.into_iter().map(|peer| (peer.member_pubkey, peer)).collect();
    let here = members.into_iter().filter_map(|member| {
        let (pubkey, display_name) = (member.pubkey, member.display_name);
        match connected.remove(&pubkey) {
            Some(Peer { status, summary, groups, .. }) => {
                Some(Here { pubkey, display_name, status, summary, groups, is_connected: true })
            }
            None => by_key.contains(&member.id).then(|| Here {
                pubkey,
                display_name,
                status: Status::Idle,
                summary: None,
                groups: Vec::new(),
                is_connected: false,
            }),
        }
    });
    Ok(here.collect())
}

/// How busy the caller is: somebody's word, unless it says that it was inferred from a transcript.
pub(crate) fn set_status(app: &App, live: &Live, request: &SetStatus) -> Result<(), Fault> {
    let status: Status = request.status.parse().map_err(|bad| Fault::invalid(format!("status {bad}")))?;
    let source = match request.source.as_deref() {
        None | Some("manual") => StatusSource::Manual,
        Some("jsonl") => StatusSource::Jsonl,
        Some(_) => return Err(Fault::invalid("source must be manual or jsonl")),
    };
    app.hub.set_status(&live.mesh_id, live.seat.presence_id(), (status, source));
    Ok(())
}

/// What the caller works on. Nothing answers this, so what is too long is cut instead of refused.
pub(crate) async fn set_summary(app: &App, live: &Live, request: &SetSummary) -> Result<(), Fault> {
    let summary = cut(&one_line(&request.summary), MAX_SUMMARY_CHARS);
    app.hub.change(&live.mesh_id, live.seat.presence_id(), |presence| {
        Arc::make_mut(&mut presence.peer).summary.clone_from(&summary);
    });
    Ok(app.store.set_summary(&live.mesh_id, &live.member_id, &summary.unwrap_or_default()).await?)
}

/// Whether others see the caller. For broadcasts it counts what its member said last, so that is kept first.
pub(crate) async fn set_visible(
    app: &App,
    live: &Live,
    request: &SetVisible,
    request_id: Option<&str>,
) -> Result<BrokerFrame, Fault> {
    app.store.set_visible(&live.mesh_id, &live.member_id, request.visible).await?;
    app.hub.show(&live.mesh_id, live.seat.presence_id(), request.visible);
    Ok(done(request_id))
}

/// Who the caller is; what it does not say stays, and what it says to be empty goes.
pub(crate) async fn set_profile(
    app: &App,
    live: &Live,
    request: SetProfile,
    request_id: Option<&str>,
) -> Result<BrokerFrame, Fault> {
    if request == SetProfile::default() {
        return Ok(done(request_id));
    }
    let said = Profile {
        avatar: request.avatar.map(|avatar| cut(&one_line(&avatar), MAX_AVATAR_CHARS).unwrap_or_default()),
        title: request.title.map(|title| cut(&one_line(&title), MAX_NAME_CHARS).unwrap_or_default()),
        bio: request.bio.map(|bio| cut(many_lines(&bio).trim(), MAX_BIO_CHARS).unwrap_or_default()),
        capabilities: request
            .capabilities
            .map(|all| all.iter().filter_map(|one| cut(&one_line(one), MAX_NAME_CHARS)).take(MAX_SKILLS).collect()),
    };
    let mut own = None;
    app.hub.change(&live.mesh_id, live.seat.presence_id(), |presence| {
        let peer = Arc::make_mut(&mut presence.peer);
        peer.profile = merge(peer.profile.take().unwrap_or_default(), &said);
        if presence.id == *live.seat.presence_id() {
            own.clone_from(&presence.peer.profile);
        }
    });
    app.store.set_profile(&live.mesh_id, &live.member_id, &own.unwrap_or_default()).await?;
    Ok(done(request_id))
}

/// What the caller has done since it connected, as it counts itself.
pub(crate) fn set_stats(app: &App, live: &Live, SetStats { stats }: SetStats) {
    let stats = Stats { uptime: stats.uptime.map(|uptime| uptime.max(0.0)), ..stats };
    app.hub.change_own(&live.mesh_id, live.seat.presence_id(), |presence| {
        Arc::make_mut(&mut presence.peer).stats = Some(stats);
    });
}

/// The part of the text that fits; `None` when nothing is left.
fn cut(text: &str, chars: usize) -> Option<String> {
    let text: String = text.chars().take(chars).collect();
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

fn merge(before: Profile, said: &Profile) -> Option<Profile> {
    let text = |before: Option<String>, said: &Option<String>| match said {
        Some(said) => Some(said.clone()).filter(|said| !said.is_empty()),
        None => before,
    };
    let profile = Profile {
        avatar: text(before.avatar, &said.avatar),
        title: text(before.title, &said.title),
        bio: text(before.bio, &said.bio),
        capabilities: match &said.capabilities {
            Some(said) => Some(said.clone()).filter(|said| !said.is_empty()),
            None => before.capabilities,
        },
    };
    (profile != Profile::default()).then_some(profile)
}

/// The reference's ack of what changes nothing that could be queued.
fn done(request_id: Option<&str>) -> BrokerFrame {
    let id = request_id.unwrap_or_default().to_owned();
    BrokerFrame::Ack(Ack { id, message_id: String::new(), queued: false, error: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_keeps_what_is_not_said_and_loses_what_is_emptied() {
        let some = |text: &str| Some(text.to_owned());
        let before = Profile { avatar: some("🦀"), title: some("Reviewer"), bio: None, capabilities: Some(vec![]) };
        let said = Profile { title: some(""), bio: some("Reads."), ..Profile::default() };
        let after = Profile { avatar: some("🦀"), bio: some("Reads."), capabilities: Some(vec![]), title: None };
        assert_eq!(merge(before, &said), Some(after));
        let all_gone = Profile { avatar: some(""), ..Profile::default() };
        assert_eq!(merge(Profile { avatar: some("x"), ..Profile::default() }, &all_gone), None);
    }
}
