//! Answers to what clients ask, a file per capability. The match below lists every request that there is.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod ban;
pub(crate) mod grant;
pub(crate) mod group;
pub(crate) mod invite;
pub(crate) mod kick;
pub(crate) mod member;
pub(crate) mod mesh;
pub(crate) mod message;
pub(crate) mod notification;
pub(crate) mod outgoing;
pub(crate) mod peer_pubkey;
pub(crate) mod post;
pub(crate) mod presence;
pub(crate) mod topic;
pub(crate) mod topic_key;
mod weight;

use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{BrokerFrame, ClientFrame, DisplayName, ErrorCode, MemberId, MeshId, PublicKey};

use crate::app::App;
use crate::fault::Fault;
use crate::hub::Seat;

/// A connection that was admitted: who asks.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) seat: Seat,
    pub(crate) mesh_id: MeshId,
    pub(crate) member_id: MemberId,
    pub(crate) member_pubkey: PublicKey,
    /// The key that its messages are sealed with: the session's, else the member's.
    pub(crate) sender_pubkey: PublicKey,
    pub(crate) display_name: DisplayName,
    /// Which handshake opened it.
    pub(crate) peer_role: PeerRole,
    /// It can open messages of encrypted topics, and is told of mentions.
    pub(crate) knows_topics: bool,
}

/// Answers everything but `send` and `client_ack`, which a connection does not wait for. Some requests have no answer.
pub(crate) async fn answer(
    app: &App,
    live: &Live,
    frame: ClientFrame,
    request_id: Option<&str>,
) -> Result<Option<BrokerFrame>, Fault> {
    let answered = match frame {
        ClientFrame::SetStatus(request) => return presence::set_status(app, live, &request).map(|()| None),
        ClientFrame::SetSummary(request) => return presence::set_summary(app, live, &request).await.map(|()| None),
        ClientFrame::SetStats(request) => {
            presence::set_stats(app, live, request);
            return Ok(None);
        }
        ClientFrame::SetVisible(request) => presence::set_visible(app, live, &request, request_id).await,
        ClientFrame::SetProfile(request) => presence::set_profile(app, live, request, request_id).await,
        ClientFrame::ListPeers(_) => Ok(presence::list(app, live)),
        ClientFrame::MemberList(_) => member::list(app, live).await,
        ClientFrame::MemberUpdate(request) => member::update(app, live, request).await,
        ClientFrame::JoinGroup(request) => return group::join(app, live, request).await.map(|()| None),
        ClientFrame::LeaveGroup(request) => return group::leave(app, live, request).await.map(|()| None),
        ClientFrame::TopicCreate(request) => topic::create(app, live, request).await,
        ClientFrame::TopicList(_) => topic::list(app, live).await,
        ClientFrame::TopicJoin(request) => return topic::join(app, live, &request).await.map(|()| None),
        ClientFrame::TopicLeave(request) => return topic::leave(app, live, &request).await.map(|()| None),
        ClientFrame::TopicAddMember(request) => topic::add_member(app, live, request).await,
        ClientFrame::TopicMembers(request) => topic::members(app, live, request).await,
        ClientFrame::TopicHistory(request) => topic::history(app, live, request).await,
        ClientFrame::TopicMarkRead(request) => return topic::mark_read(app, live, &request).await.map(|()| None),
        ClientFrame::GrantSet(request) => grant::set(app, live, request).await,
        ClientFrame::GrantList(_) => grant::list(app, live).await,
        ClientFrame::MessageStatus(request) => message::status(app, live, request).await,
        ClientFrame::Kick(request) => kick::kick(app, live, request).await,
        ClientFrame::Disconnect(request) => kick::disconnect(app, live, request).await,
        ClientFrame::Ban(request) => ban::ban(app, live, request).await,
        ClientFrame::Unban(request) => ban::unban(app, live, request).await,
        ClientFrame::AuditQuery(request) => audit::query(app, live, request).await,
        ClientFrame::AuditVerify(_) => audit::verify(app, live).await,
        ClientFrame::ListBans(_) => ban::list(app, live).await,
        ClientFrame::InviteCreate(request) => invite::create(app, live, request).await,
        ClientFrame::InviteList(_) => invite::list(app, live).await,
        ClientFrame::InviteRevoke(request) => invite::revoke(app, live, request).await,
        ClientFrame::ApiKeyCreate(request) => api_key::create(app, live, request).await,
        ClientFrame::ApiKeyList(_) => api_key::list(app, live).await,
        ClientFrame::ApiKeyRevoke(request) => api_key::revoke(app, live, request).await,
        ClientFrame::Hello(_) | ClientFrame::SessionHello(_) => {
            Err(Fault::invalid("this connection has said hello already"))
        }
        ClientFrame::Send(_) | ClientFrame::ClientAck(_) => Err(Fault::new(ErrorCode::NotSupported, "not a request")),
    };
    answered.map(Some)
}
