//! Frames: one JSON object per WebSocket message, told apart by `type`.
//!
//! Reading goes in two steps. [`Peek`] looks only at what is needed to answer anything at all (`type`, `_reqId`, `id`), so
//! that even a frame with a wrong field gets its error to the right request. Then the type's own struct is read.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api_key::{ApiKeyCreate, ApiKeyCreated, ApiKeyListResponse, ApiKeyRevoke, ApiKeyRevokeResponse};
use crate::audit::{AuditQuery, AuditResult, AuditVerifyResult};
use crate::ban::{BanAck, BanTarget, ListBansResult, SendAway, SentAway, UnbanAck};
use crate::error::ErrorCode;
use crate::grant::{GrantSet, Grants};
use crate::group::{JoinGroup, LeaveGroup};
use crate::hello::{Hello, HelloAck, Place, SessionHello};
use crate::invite::{InviteCreate, InviteCreated, InviteListResponse, InviteRevoke, InviteRevokeResponse};
use crate::limits::{MAX_CLIENT_ID_BYTES, MAX_JSON_DEPTH};
use crate::member::{MemberListResponse, MemberUpdate, MemberUpdated};
use crate::message::{Ack, ClientAck, MessageStatus, MessageStatusResult, Push, Send};
use crate::presence::{PeersList, SetProfile, SetStats, SetStatus, SetSummary, SetVisible};
use crate::topic::{
    OfTopic, TopicAddMember, TopicCreate, TopicCreated, TopicHistory, TopicHistoryResponse, TopicJoin,
    TopicListResponse, TopicMemberAdded, TopicMembersResponse,
};

/// A request without fields of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

macro_rules! frames {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($body:ty) = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        #[serde(tag = "type")]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant($body),)*
        }

        impl $name {
            /// Every `type` word, in the order of the table above.
            pub const TYPES: &[&str] = &[$($word),*];

            /// The `type` word of this frame.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word,)*
                }
            }

            /// Reads the body of a frame whose type is `kind`; `None` when the type is not known.
            ///
            /// # Errors
            /// [`BadField`] names the first field of a wrong type or shape.
            pub fn read(kind: &str, text: &str) -> Option<Result<Self, BadField>> {
                match kind {
                    $($word => Some(read_body::<$body>(text).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }
    };
}

frames! {
    /// What a client may say.
    ClientFrame {
        /// Opens a member's connection.
        Hello(Box<Hello>) = "hello",
        /// Opens a session's connection.
        SessionHello(Box<SessionHello>) = "session_hello",
        /// Sends a message.
        Send(Box<Send>) = "send",
        /// Says that a push is safely kept.
        ClientAck(ClientAck) = "client_ack",
        /// Asks what became of a message.
        MessageStatus(MessageStatus) = "message_status",
        /// Asks who is here.
        ListPeers(Empty) = "list_peers",
        /// Says how busy the client is.
        SetStatus(SetStatus) = "set_status",
        /// Says what the client works on.
        SetSummary(SetSummary) = "set_summary",
        /// Shows or hides the client.
        SetVisible(SetVisible) = "set_visible",
        /// Says who the client is.
        SetProfile(SetProfile) = "set_profile",
        /// Says what the client has done.
        SetStats(SetStats) = "set_stats",
        /// Joins a group.
        JoinGroup(JoinGroup) = "join_group",
        /// Leaves a group.
        LeaveGroup(LeaveGroup) = "leave_group",
        /// Makes a topic.
        TopicCreate(TopicCreate) = "topic_create",
        /// Asks for the topics.
        TopicList(Empty) = "topic_list",
        /// Joins a topic.
        TopicJoin(TopicJoin) = "topic_join",
        /// Leaves a topic.
        TopicLeave(OfTopic) = "topic_leave",
        /// Adds a member to a topic.
        TopicAddMember(TopicAddMember) = "topic_add_member",
        /// Asks who is in a topic.
        TopicMembers(OfTopic) = "topic_members",
        /// Asks for messages of a topic.
        TopicHistory(TopicHistory) = "topic_history",
        /// Says that a topic was read.
        TopicMarkRead(OfTopic) = "topic_mark_read",
        /// Sets what others may do to the caller.
        GrantSet(GrantSet) = "grant_set",
        /// Asks for what others may do to the caller.
        GrantList(Empty) = "grant_list",
        /// Asks who belongs to the mesh.
        MemberList(Empty) = "member_list",
        /// Changes what is known of a member.
        MemberUpdate(MemberUpdate) = "member_update",
        /// Closes connections of sessions, for a minute.
        Kick(SendAway) = "kick",
        /// Closes connections.
        Disconnect(SendAway) = "disconnect",
        /// Removes a member.
        Ban(BanTarget) = "ban",
        /// Takes a member back.
        Unban(BanTarget) = "unban",
        /// Asks who is banned.
        ListBans(Empty) = "list_bans",
        /// Asks for entries of the audit log.
        AuditQuery(AuditQuery) = "audit_query",
        /// Asks whether the audit log is whole.
        AuditVerify(Empty) = "audit_verify",
        /// Registers an invite.
        InviteCreate(InviteCreate) = "invite_create",
        /// Asks for the invites.
        InviteList(Empty) = "invite_list",
        /// Takes an invite back.
        InviteRevoke(InviteRevoke) = "invite_revoke",
        /// Makes a key to the REST interface.
        ApiKeyCreate(ApiKeyCreate) = "apikey_create",
        /// Asks for the keys.
        ApiKeyList(Empty) = "apikey_list",
        /// Ends a key.
        ApiKeyRevoke(ApiKeyRevoke) = "apikey_revoke",
    }
}

frames! {
    /// What the broker may say.
    BrokerFrame {
        /// The connection is open.
        HelloAck(Box<HelloAck>) = "hello_ack",
        /// A refusal.
        Error(ErrorFrame) = "error",
        /// Answers `send`.
        Ack(Ack) = "ack",
        /// Hands over a message.
        Push(Box<Push>) = "push",
        /// Answers `message_status`.
        MessageStatusResult(MessageStatusResult) = "message_status_result",
        /// Answers `list_peers`.
        PeersList(PeersList) = "peers_list",
        /// Answers `topic_create`.
        TopicCreated(TopicCreated) = "topic_created",
        /// Answers `topic_list`.
        TopicListResponse(TopicListResponse) = "topic_list_response",
        /// Answers `topic_add_member`.
        TopicMemberAdded(TopicMemberAdded) = "topic_member_added",
        /// Answers `topic_members`.
        TopicMembersResponse(TopicMembersResponse) = "topic_members_response",
        /// Answers `topic_history`.
        TopicHistoryResponse(TopicHistoryResponse) = "topic_history_response",
        /// Answers `grant_set`.
        GrantSetResponse(Grants) = "grant_set_response",
        /// Answers `grant_list`.
        GrantListResponse(Grants) = "grant_list_response",
        /// Answers `member_update`.
        MemberUpdated(MemberUpdated) = "member_updated",
        /// Answers `kick`.
        KickAck(SentAway) = "kick_ack",
        /// Answers `disconnect`.
        DisconnectAck(SentAway) = "disconnect_ack",
        /// Answers `ban`.
        BanAck(BanAck) = "ban_ack",
        /// Answers `unban`.
        UnbanAck(UnbanAck) = "unban_ack",
        /// Answers `list_bans`.
        ListBansResult(ListBansResult) = "list_bans_result",
        /// Answers `audit_query`.
        AuditResult(AuditResult) = "audit_result",
        /// Answers `audit_verify`.
        AuditVerifyResult(AuditVerifyResult) = "audit_verify_result",
        /// Answers `member_list`.
        MemberListResponse(MemberListResponse) = "member_list_response",
        /// Answers `invite_create`.
        InviteCreated(InviteCreated) = "invite_created",
        /// Answers `invite_list`.
        InviteListResponse(InviteListResponse) = "invite_list_response",
        /// Answers `invite_revoke`.
        InviteRevokeResponse(InviteRevokeResponse) = "invite_revoke_response",
        /// Answers `apikey_create`.
        ApiKeyCreated(Box<ApiKeyCreated>) = "apikey_created",
        /// Answers `apikey_list`.
        ApiKeyListResponse(ApiKeyListResponse) = "apikey_list_response",
        /// Answers `apikey_revoke`.
        ApiKeyRevokeResponse(ApiKeyRevokeResponse) = "apikey_revoke_response",
    }
}

/// A frame with the request it belongs to: `_reqId` beside the frame's own fields.
#[derive(Debug, Clone, Serialize)]
pub struct Addressed<F> {
    /// The frame.
    #[serde(flatten)]
    pub frame: F,
    /// The request's `_reqId`.
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl<F: Serialize> Addressed<F> {
    /// The JSON text. Frames have text keys and finite numbers only, which always serialise.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A refusal that belongs to no `send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// The word that clients switch on.
    pub code: ErrorCode,
    /// The sentence that people read.
    pub message: String,
}

/// A field is missing, of a wrong type or of a wrong shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct BadField {
    /// Path of the field, such as `parentAttestation.signature`; `.` for the frame as a whole.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// What is looked at first in every frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peek {
    /// The `type`, when it is text.
    pub kind: Option<String>,
    /// The `_reqId`, when it is text of at most 128 bytes.
    pub request_id: Option<String>,
    /// The `id`, when it is text of at most 128 bytes.
    pub id: Option<String>,
}

/// The frame is not a JSON object, or nested deeper than 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON")]
pub struct BadJson;

impl Peek {
    /// Looks into a frame.
    ///
    /// # Errors
    /// [`BadJson`] when it is not a JSON object or nested too deeply.
    pub fn at(text: &str) -> Result<Self, BadJson> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow, default, rename = "type")]
            kind: Option<&'a RawValue>,
            #[serde(borrow, default, rename = "_reqId")]
            request_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
        }
        if depth(text) > MAX_JSON_DEPTH || !text.trim_start().starts_with('{') {
            return Err(BadJson);
        }
        let head: Head<'_> = serde_json::from_str(text).map_err(|_| BadJson)?;
        let short = |raw: Option<&RawValue>| text_of(raw).filter(|text| text.len() <= MAX_CLIENT_ID_BYTES);
        Ok(Self { kind: text_of(head.kind), request_id: short(head.request_id), id: short(head.id) })
    }
}

fn text_of(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Deepest nesting of objects and arrays; brackets inside strings do not count.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn read_body<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BadField> {
    serde_json::from_str(text).map_err(|_| name_the_field::<T>(text))
}

/// Reads again, slowly, to learn which field was wrong. The path does not reach into flattened structs, of which there is
/// one, [`Place`]: it is read by itself when the path names nothing.
fn name_the_field<'a, T: Deserialize<'a>>(text: &'a str) -> BadField {
    let named = first_error::<T>(text).filter(|error| error.field != ".");
    let named = named.or_else(|| first_error::<Place>(text)).or_else(|| first_error::<T>(text));
    let found = named.unwrap_or_else(|| BadField { field: ".".into(), why: "has something after its end".into() });
    name_what_is_missing(found)
}

/// serde counts a missing field as a mistake of what should hold it.
fn name_what_is_missing(found: BadField) -> BadField {
    let missing = found.why.strip_prefix("missing field `").and_then(|name| name.strip_suffix('`'));
    let Some(missing) = missing else { return found };
    let field = if found.field == "." { missing.to_owned() } else { format!("{}.{missing}", found.field) };
    BadField { field, why: "is missing".into() }
}

fn first_error<'a, T: Deserialize<'a>>(text: &'a str) -> Option<BadField> {
    let mut json = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, T>(&mut json).err()?;
    let field = error.path().to_string();
    let why = error.into_inner().to_string();
    // serde_json ends its sentence with a position in the frame, which helps nobody here.
    let why = why.split_once(" at line ").map_or(why.as_str(), |(why, _)| why);
    Some(BadField { field, why: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peek_survives_wrong_types_in_everything() {
        let peek = Peek::at(r#"{"type":5,"_reqId":{"a":1},"id":[2]}"#).unwrap();
        assert_eq!(peek, Peek::default());
        let peek = Peek::at(r#" {"x":[1],"type":"s\u0065nd","_reqId":"r1","id":"c-1"}"#).unwrap();
        assert_eq!(
            (peek.kind.as_deref(), peek.request_id.as_deref(), peek.id.as_deref()),
            (Some("send"), Some("r1"), Some("c-1"))
        );
    }

    #[test]
    fn what_is_not_an_object_is_bad_json() {
        for text in ["", "[]", "5", "\"x\"", "null", "{", "{\"type\":\"send\"", "{}x", "{\"a\":tru}"] {
            assert_eq!(Peek::at(text), Err(BadJson), "{text}");
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_bad_json_and_brackets_in_text_are_not() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(Peek::at(&nested(32)).is_ok());
        assert_eq!(Peek::at(&nested(33)), Err(BadJson));
        assert!(Peek::at(&format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(100))).is_ok());
    }

    #[test]
    fn a_wrong_field_is_named() {
        let error = |kind, text| ClientFrame::read(kind, text).unwrap().unwrap_err();
        assert_eq!(error("send", r#"{"targetSpec":5}"#).field, "targetSpec");
        assert_eq!(error("hello", r#"{"timestamp":"soon"}"#).field, "timestamp");
        assert_eq!(error("hello", r#"{"timestamp":1,"pid":"x"}"#).field, "pid");
        assert_eq!(error("hello", r#"{"timestamp":1,"groups":[{"name":7}]}"#).field, "groups[0].name");
        let missing = |text| error("hello", text).to_string();
        assert_eq!(missing("{}"), "timestamp is missing");
        assert_eq!(missing(r#"{"timestamp":null}"#), "timestamp invalid type: null, expected i64");
        assert_eq!(missing(r#"{"timestamp":1,"groups":[{}]}"#), "groups[0].name is missing");
        let nested = error("session_hello", r#"{"timestamp":1,"parentAttestation":{"signature":1}}"#);
        assert_eq!(nested.field, "parentAttestation.signature");
        assert_eq!(nested.why, "invalid type: integer `1`, expected a string");
    }

    #[test]
    fn an_unknown_type_is_none() {
        assert!(ClientFrame::read("teleport", "{}").is_none());
    }

    #[test]
    fn every_frame_is_tagged_with_its_word() {
        for kind in ClientFrame::TYPES {
            let text = format!(r#"{{"type":"{kind}","timestamp":1,"visible":true}}"#);
            let frame = ClientFrame::read(kind, &text).unwrap().unwrap();
            assert_eq!(frame.kind(), *kind);
            assert_eq!(serde_json::to_value(&frame).unwrap()["type"], *kind);
        }
    }

    #[test]
    fn ext_is_carried_byte_for_byte() {
        let text = r#"{"targetSpec":"x","ext":{ "b" : 1.0,"a":[ ]}}"#;
        let Some(Ok(ClientFrame::Send(send))) = ClientFrame::read("send", text) else { panic!("not a send") };
        assert_eq!(send.ext.as_ref().unwrap().get(), r#"{ "b" : 1.0,"a":[ ]}"#);
        let frame = Addressed { frame: ClientFrame::Send(send), request_id: Some("r".into()) };
        assert!(frame.to_json().contains(r#""ext":{ "b" : 1.0,"a":[ ]}"#), "{}", frame.to_json());
    }
}
