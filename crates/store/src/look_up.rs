//! What a batch has to know before it decides about messages and acknowledgements: one query, whatever is in it.

use claudemesh_proto::{MemberId, MeshId, MessageId};

use crate::sql::{Sql, columns};

/// An earlier message that one of the batch may be a retry of: place of the retry, id, fingerprint, target, nonce, ciphertext.
pub(crate) type Earlier = (usize, MessageId, Option<String>, String, String, String);

/// Whom a key names: place of the key, the member with it, the owner of the session with it, when that was proven and last seen,
/// queued rows and bytes, the sender if it is a member, the mesh's last number. The removed are as if they were not there.
pub(crate) type Named =
    (usize, Option<MemberId>, Option<MemberId>, Option<i64>, Option<i64>, i64, i64, Option<MemberId>, i64);

/// A delivery that may be ended: its row, mesh, recipient and size.
pub(crate) type Endable = (i64, MeshId, String, i64);

/// Four columns, each a JSON array: [`Earlier`] for (place, mesh, sender, client's id); [`Named`] for (place, mesh, key, sender);
/// [`Endable`] for (delivery, mesh, member that acknowledges) and for (mesh, number, recipient, message, member).
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
         coalesce(b.queued_rows, 0), coalesce(b.queued_bytes, 0), f.id, coalesce(h.message_seq, 0)",
        "$2",
        " left join member m on m.mesh_id = r.value ->> 1 and m.peer_pubkey = r.value ->> 2 \
          left join session s on s.mesh_id = r.value ->> 1 and s.session_pubkey = r.value ->> 2 \
          left join member o on o.id = s.member_id and o.mesh_id || '' = s.mesh_id and o.revoked_at is null \
          left join member f on f.id = r.value ->> 3 and f.mesh_id || '' = r.value ->> 1 and f.revoked_at is null \
          left join backlog b on b.mesh_id = r.value ->> 1 and b.recipient = coalesce(m.id, r.value ->> 2) \
          left join mesh_head h on h.mesh_id = r.value ->> 1"
    ),
    read(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        "$3",
        " left join delivery d on d.id = cast(r.value ->> 0 as bigint) \
          left join member k on k.id = d.member_id and k.mesh_id || '' = d.mesh_id \
         where coalesce(d.state, '') = 'queued' and coalesce(d.mesh_id, '') = r.value ->> 1 \
         and coalesce(d.member_id, '') = r.value ->> 2 and k.revoked_at is null"
    ),
    read(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        "$4",
        " left join delivery d on d.mesh_id = r.value ->> 0 and d.message_seq = cast(r.value ->> 1 as bigint) \
          and d.recipient = r.value ->> 2 \
          left join message m on m.mesh_id = d.mesh_id and m.seq = d.message_seq \
          left join member k on k.id = d.member_id and k.mesh_id || '' = d.mesh_id \
         where coalesce(d.state, '') = 'queued' and coalesce(m.id, '') = r.value ->> 3 \
         and coalesce(d.member_id, '') = r.value ->> 4 and k.revoked_at is null"
    ),
);
