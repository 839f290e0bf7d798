//! What a batch has to know before it decides about messages and acknowledgements: one query, whatever is in it.

use claudemesh_proto::{DisplayName, MemberId, MeshId, MessageId};
use serde::Deserialize;

use crate::sql::{Sql, columns};

/// What [`LOOK_UP`] found; every row is a JSON array with the fields in their order.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    pub(crate) earlier: Vec<Earlier>,
    pub(crate) named: Vec<Named>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) endable: Vec<Endable>,
    pub(crate) heads: Vec<HeadRow>,
    /// Claims after whose cursor something may be free.
    pub(crate) older: Vec<usize>,
}

/// An earlier message that one of the batch may be a retry of.
#[derive(Debug, Deserialize)]
pub(crate) struct Earlier {
    /// Which of the retries.
    pub(crate) place: usize,
    pub(crate) id: MessageId,
    pub(crate) fingerprint: Option<String>,
    pub(crate) target_spec: String,
    pub(crate) nonce: String,
    pub(crate) ciphertext: String,
}

/// Whom a key names. The removed are as if they were not there.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    /// Which of the addresses.
    pub(crate) place: usize,
    pub(crate) member: Option<MemberId>,
    /// The owner of the session with that key, when it was proven, and when it was last seen.
    pub(crate) owner: Option<MemberId>,
    pub(crate) proven_at: Option<i64>,
    pub(crate) last_seen_at: Option<i64>,
    pub(crate) queued_rows: i64,
    pub(crate) queued_bytes: i64,
    /// The sender's own name, if it is a member.
    pub(crate) sender_name: Option<DisplayName>,
    /// What the recipient lets the sender do, when it said so.
    pub(crate) capabilities: Option<String>,
}

/// A member whom a broadcast or a group's message is for.
#[derive(Debug, Deserialize)]
pub(crate) struct Listener {
    /// Which of the audiences.
    pub(crate) place: usize,
    pub(crate) member: MemberId,
    pub(crate) queued_rows: i64,
    pub(crate) queued_bytes: i64,
}

/// A delivery that may be ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Endable {
    pub(crate) delivery: i64,
    pub(crate) mesh_id: MeshId,
    pub(crate) recipient: String,
    pub(crate) size_bytes: i64,
}

/// The counters of a mesh.
#[derive(Debug, Deserialize)]
pub(crate) struct HeadRow {
    pub(crate) mesh_id: MeshId,
    pub(crate) message_seq: i64,
    pub(crate) queued_rows: i64,
    pub(crate) queued_bytes: i64,
    pub(crate) topic_bytes: i64,
    pub(crate) audit_seq: i64,
    pub(crate) audit_hash: String,
    pub(crate) audit_hash2: String,
}

/// Who of a mesh hears a broadcast: everybody but the sender, the removed, the hidden, and who does not want to hear the sender.
macro_rules! listens {
    () => {
        " left join peer_state p on p.mesh_id = m.mesh_id and p.member_id = m.id \
          left join member_grant g on g.mesh_id = m.mesh_id and g.member_id = m.id and g.sender_pubkey = r.value ->> 3 \
          left join member_grant k on k.mesh_id = m.mesh_id and k.member_id = m.id and k.sender_pubkey = r.value ->> 4 \
          left join backlog b on b.mesh_id = m.mesh_id and b.recipient = m.id \
         where coalesce(m.id, r.value ->> 2) <> r.value ->> 2 and m.revoked_at is null and coalesce(p.visible, 1) = 1 \
         and coalesce(g.capabilities, k.capabilities, '\"broadcast\"') like '%\"broadcast\"%'"
    };
}

/// Nine columns, each a JSON array: [`Earlier`] for (place, mesh, sender, client's id); [`Named`] for (place, mesh, key, sender,
/// sender's member key, sender's session key); [`Listener`] for (place, mesh, sender, its member key, its session key), and the
/// same with the first and last name of a range of groups; [`Endable`] for (delivery, mesh, member that acknowledges) and for
/// (mesh, number, recipient, message, member); [`HeadRow`] for (mesh); the place for (place, mesh, recipient, number, now,
/// incarnation) where something queued after that number is free, or some topic has something after it; [`Earlier`] once more, among
/// the messages of topics.
///
/// The joins are left joins whose results are filtered by expressions: PostgreSQL could otherwise begin with all that is queued, or
/// with all messages of a mesh, and look for each of them among the few rows that are asked for. And of two indexes of which it
/// could use a part, the mesh, it may take the wrong one: `mesh_id || ''` leaves it the one that begins with the other column.
pub(crate) const LOOK_UP: Sql = columns!(
    read(
        "cast(r.value ->> 0 as bigint), m.id, m.request_fingerprint, m.target_spec, m.nonce, m.ciphertext",
        "$1",
        " left join message m on m.client_message_id = r.value ->> 3 and m.sender_member_id = r.value ->> 2 \
          and m.mesh_id || '' = r.value ->> 1 where coalesce(m.id, '') <> ''"
    ),
    read(
        "cast(r.value ->> 0 as bigint), case when m.revoked_at is null then m.id end, o.id, s.proven_at, s.last_seen_at, \
         coalesce(b.queued_rows, 0), coalesce(b.queued_bytes, 0), f.display_name, coalesce(g.capabilities, k.capabilities)",
        "$2",
        " left join member m on m.mesh_id = r.value ->> 1 and m.peer_pubkey = r.value ->> 2 \
          left join session s on s.mesh_id = r.value ->> 1 and s.session_pubkey = r.value ->> 2 \
          left join member o on o.id = s.member_id and o.mesh_id || '' = s.mesh_id and o.revoked_at is null \
          left join member f on f.id = r.value ->> 3 and f.mesh_id || '' = r.value ->> 1 and f.revoked_at is null \
          left join member_grant g on g.mesh_id = r.value ->> 1 and g.member_id = coalesce(m.id, o.id) \
           and g.sender_pubkey = r.value ->> 4 \
          left join member_grant k on k.mesh_id = r.value ->> 1 and k.member_id = coalesce(m.id, o.id) \
           and k.sender_pubkey = r.value ->> 5 \
          left join backlog b on b.mesh_id = r.value ->> 1 and b.recipient = coalesce(m.id, r.value ->> 2)"
    ),
    read(
        "cast(r.value ->> 0 as bigint), m.id, coalesce(b.queued_rows, 0), coalesce(b.queued_bytes, 0)",
        "$3",
        concat!(" left join member m on m.mesh_id = r.value ->> 1", listens!())
    ),
    read(
        "cast(r.value ->> 0 as bigint), m.id, coalesce(b.queued_rows, 0), coalesce(b.queued_bytes, 0)",
        "$4",
        concat!(
            " left join member_group e on e.mesh_id = r.value ->> 1 and e.name between r.value ->> 5 and r.value ->> 6 \
              left join member m on m.id = e.member_id and m.mesh_id || '' = e.mesh_id",
            listens!()
        )
    ),
    read(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        "$5",
        " left join delivery d on d.id = cast(r.value ->> 0 as bigint) \
          left join member k on k.id = d.member_id and k.mesh_id || '' = d.mesh_id \
         where coalesce(d.state, '') = 'queued' and coalesce(d.mesh_id, '') = r.value ->> 1 \
         and coalesce(d.member_id, '') = r.value ->> 2 and k.revoked_at is null"
    ),
    read(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        "$6",
        " left join delivery d on d.mesh_id = r.value ->> 0 and d.message_seq = cast(r.value ->> 1 as bigint) \
          and d.recipient = r.value ->> 2 \
          left join message m on m.mesh_id = d.mesh_id and m.seq = d.message_seq \
          left join member k on k.id = d.member_id and k.mesh_id || '' = d.mesh_id \
         where coalesce(d.state, '') = 'queued' and coalesce(m.id, '') = r.value ->> 3 \
         and coalesce(d.member_id, '') = r.value ->> 4 and k.revoked_at is null"
    ),
    read(
        "h.mesh_id, h.message_seq, h.queued_rows, h.queued_bytes, h.topic_bytes, h.audit_seq, h.audit_hash, h.audit_hash2",
        "$7",
        " left join mesh_head h on h.mesh_id = r.value ->> 0 where coalesce(h.mesh_id, '') <> ''"
    ),
    read(
        "cast(r.value ->> 0 as bigint)",
        "$8",
        " where exists (select 1 from delivery p where p.mesh_id = r.value ->> 1 and p.recipient = r.value ->> 2 \
          and p.message_seq > cast(r.value ->> 3 as bigint) and p.state = 'queued' \
          and (p.claim_until is null or p.claim_until <= cast(r.value ->> 4 as bigint) \
           or p.claim_incarnation <> cast(r.value ->> 5 as bigint))) \
         or exists (select 1 from topic_member c join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
          where c.mesh_id = r.value ->> 1 and c.member_id = r.value ->> 2 \
          and t.head_message_seq > cast(r.value ->> 3 as bigint) and t.head_seq > c.delivered_seq)"
    ),
    read(
        "cast(r.value ->> 0 as bigint), m.id, m.request_fingerprint, '#' || m.topic_id, m.nonce, m.ciphertext",
        "$1",
        " left join topic_message m on m.client_message_id = r.value ->> 3 and m.sender_member_id = r.value ->> 2 \
          and m.mesh_id || '' = r.value ->> 1 where coalesce(m.id, '') <> ''"
    ),
);
