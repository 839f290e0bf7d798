//! Handing over what is kept: claiming, and claiming again.
//!
//! A claim names a connection, the start of the broker that it belongs to, and the time until which it holds. When that time is over,
//! or that broker's heart stands still, the row is free without anybody having to free it.

mod posts;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::{ConnectionId, MeshId, Timestamp};

use crate::batch::Batch;
use crate::delivery::{Claimed, DeliveryId, Found, Span};
use crate::node::HEARTBEAT_TIMEOUT;
use crate::recipient::Recipient;
use crate::request::Outcome;
use crate::sql::{Sql, folded, json, sql, together};

/// A connection asks for what is next.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Claim {
    /// The mesh.
    pub mesh_id: MeshId,
    /// Whose mail. What is for different recipients comes in one order.
    pub recipients: Vec<Recipient>,
    /// The connection that will hold it.
    pub connection: ConnectionId,
    /// Only messages after this number.
    pub after_seq: i64,
    /// Only what is urgent.
    pub urgent_only: bool,
    /// At most so many rows (and never more than 256).
    pub max_rows: usize,
    /// At most so many bytes, but always one row.
    pub max_bytes: i64,
    /// For how long.
    pub lease: Duration,
    /// An earlier claim of this connection got no answer: what it may have taken is handed out as if it were free.
    pub is_retry: bool,
    /// Whether the connection can open messages of encrypted topics; others are not handed those.
    pub knows_topics: bool,
    /// With nothing to hand out, the answer comes when there is something, or when the claim is withdrawn.
    pub waits: bool,
}

/// A connection no longer wants what it waits for: its claim is answered, if with nothing.
#[derive(Debug, Clone)]
pub struct Withdraw {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The connection that asked.
    pub connection: ConnectionId,
}

/// A connection asks for rows of its own again, because they were not acknowledged in time.
#[derive(Debug, Clone)]
pub struct Reclaim {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The connection that held them and will again.
    pub connection: ConnectionId,
    /// The rows, each with its next lease.
    pub rows: Vec<(DeliveryId, Duration)>,
}

/// What the claims of one batch may read together; it goes through memory, and through one value of the database, at once.
const MAX_HANDED_BYTES: i64 = 32 << 20;

/// One row chosen for a claim: request, delivery, number in the mesh, size, recipient, lease end.
struct Chosen {
    request: usize,
    delivery: DeliveryId,
    span: Option<Span>,
    seq: i64,
    size_bytes: i64,
    recipient: Recipient,
    until: Timestamp,
}

/// The connection that a request is of.
#[derive(Debug, Clone, Copy)]
struct Holder<'a> {
    mesh_id: &'a MeshId,
    connection: &'a ConnectionId,
}

/// Claims for a batch of connections: what each is handed, in order, and then what each is handed again.
pub(crate) async fn claim(batch: &mut Batch, claims: &[&Claim], reclaims: &[&Reclaim]) -> sqlx::Result<Vec<Outcome>> {
    // Rows claimed again go first: a lease may have ended in the moment that its holder asks to prolong it.
    let mut chosen = again(batch, reclaims, claims.len()).await?;
    let asked: Vec<(usize, &Recipient)> = claims
        .iter()
        .enumerate()
        .flat_map(|(index, claim)| claim.recipients.iter().map(move |recipient| (index, recipient)))
        .collect();
    let (free, unfinished) = free(batch, claims, &asked).await?;
    let mut may_get_more = choose(batch.now, claims, (&asked, &free), &mut chosen);
    may_get_more.extend(unfinished);
    let of_claims = claims.iter().map(|claim| Holder { mesh_id: &claim.mesh_id, connection: &claim.connection });
    let of_reclaims = reclaims.iter().map(|again| Holder { mesh_id: &again.mesh_id, connection: &again.connection });
    let holders: Vec<Holder<'_>> = of_claims.chain(of_reclaims).collect();
    let mut handed: Vec<Vec<Claimed>> = holders.iter().map(|_| Vec::new()).collect();
    for (request, claimed) in take(batch, chosen, &holders).await? {
        if let Some(rows) = handed.get_mut(request) {
            rows.push(claimed);
        }
    }
    let outcomes = handed.into_iter().enumerate().map(|(request, mut rows)| {
        let waits = claims.get(request).is_some_and(|claim| claim.waits) && !may_get_more.contains(&request);
        if waits && rows.is_empty() {
            return Outcome::Nothing;
        }
        rows.sort_by_key(|claimed| claimed.seq);
        Outcome::Claimed(rows)
    });
    Ok(outcomes.collect())
}

/// A row that may be claimed: number in the mesh, place of its request and recipient in what was asked, delivery, size.
type Free = (i64, usize, DeliveryId, i64, Option<Span>);

/// Whether the recipient lets the sender reach it now: a grant may have been taken back since the message was accepted. What is held
/// back stays queued until the grant is given again, or until it expires. Most members have no grants at all, and it ends there.
macro_rules! wanted {
    () => {
        "(not exists (select 1 from member_grant a where a.mesh_id = p.mesh_id and a.member_id = p.member_id) or exists ( \
           select 1 from message q join member f on f.id = q.sender_member_id and f.mesh_id || '' = q.mesh_id \
           left join member_grant g on g.mesh_id = p.mesh_id and g.member_id = p.member_id and g.sender_pubkey = f.peer_pubkey \
           left join member_grant k on k.mesh_id = p.mesh_id and k.member_id = p.member_id and k.sender_pubkey = q.sender_pubkey \
           where q.mesh_id = p.mesh_id and q.seq = p.message_seq \
           and coalesce(g.capabilities, k.capabilities, '\"dm\"broadcast\"') \
           like case when q.target_spec like '@%' or q.target_spec = '*' then '%\"broadcast\"%' else '%\"dm\"%' end))"
    };
}

/// The next free rows for each claim, in order, and the claims for which there is more to look at. Nothing is handed to a member who was
/// removed.
async fn free(
    batch: &mut Batch,
    claims: &[&Claim],
    asked: &[(usize, &Recipient)],
) -> sqlx::Result<(Vec<Free>, HashSet<usize>)> {
    /// Number, place, delivery, size.
    type Row = (i64, usize, i64, i64);
    // The innermost query is the same; SQLite has no lateral join, PostgreSQL no `in` over a correlated limit that it likes.
    const FREE: Sql = sql!(
        sqlite: concat!("select json_group_array(json_array(d.message_seq, cast(r.value ->> 0 as bigint), d.id, d.size_bytes)) \
                 from jsonb_each($1) r cross join delivery d on d.id in ( \
                   select p.id from delivery p where p.mesh_id = r.value ->> 1 and p.recipient = r.value ->> 2 \
                   and p.message_seq > cast(r.value ->> 3 as bigint) and p.state = 'queued' \
                   and (cast(r.value ->> 4 as bigint) = 0 or p.priority = 'now') and ",
                 wanted!(),
                 " and (p.claim_until is null or p.claim_until <= $2 or p.claim_connection = r.value ->> 5 or not exists ( \
                     select 1 from node n where n.incarnation = p.claim_incarnation and n.heartbeat_at > $3)) \
                   order by p.message_seq limit 256) \
                 where not exists (select 1 from member o where o.mesh_id || '' = r.value ->> 1 and o.revoked_at is not null \
                   and o.id = coalesce((select s.member_id from session s where s.mesh_id = r.value ->> 1 \
                     and s.session_pubkey = r.value ->> 2), r.value ->> 2))"),
        postgres: concat!("select json_agg(json_build_array(d.message_seq, cast(r.value ->> 0 as bigint), d.id, d.size_bytes))::text \
                   from jsonb_array_elements($1::text::jsonb) r(value) cross join lateral ( \
                     select p.id, p.message_seq, p.size_bytes from delivery p \
                     where p.mesh_id = r.value ->> 1 and p.recipient = r.value ->> 2 \
                     and p.message_seq > cast(r.value ->> 3 as bigint) and p.state = 'queued' \
                     and (cast(r.value ->> 4 as bigint) = 0 or p.priority = 'now') and ",
                   wanted!(),
                   " and (p.claim_until is null or p.claim_until <= $2 or p.claim_connection = r.value ->> 5 or not exists ( \
                       select 1 from node n where n.incarnation = p.claim_incarnation and n.heartbeat_at > $3)) \
                     order by p.message_seq limit 256) d \
                   where not exists (select 1 from member o where o.mesh_id || '' = r.value ->> 1 and o.revoked_at is not null \
                     and o.id = coalesce((select s.member_id from session s where s.mesh_id = r.value ->> 1 \
                       and s.session_pubkey = r.value ->> 2), r.value ->> 2))"),
    );
    if claims.is_empty() {
        return Ok((Vec::new(), HashSet::new()));
    }
    let rows: Vec<_> = asked
        .iter()
        .enumerate()
        .filter_map(|(place, (index, recipient))| {
            let claim = claims.get(*index)?;
            let holder = claim.is_retry.then_some(&claim.connection);
            Some((place, &claim.mesh_id, recipient.to_string(), claim.after_seq, i64::from(claim.urgent_only), holder))
        })
        .collect();
    let now = batch.now;
    let alive = now.minus(HEARTBEAT_TIMEOUT).as_millis();
    let rows = json(&rows)?;
    let values = [(&rows).into(), now.as_millis().into(), alive.into()];
    let rows: Vec<Row> = batch.connection().folded(FREE, &values).await?;
    let row = |(seq, place, delivery, size)| (seq, place, DeliveryId::Row(delivery), size, None);
    let mut free: Vec<Free> = rows.into_iter().map(row).collect();
    let unfinished = posts::free(batch, claims, asked, &mut free).await?;
    free.sort_unstable_by_key(|&(seq, place, ..)| (asked.get(place).map(|(index, _)| *index), seq));
    Ok((free, unfinished))
}

/// Picks free rows within each connection's window; the claims for which there may be more than they get.
fn choose(
    now: Timestamp,
    claims: &[&Claim],
    (asked, free): (&[(usize, &Recipient)], &[Free]),
    chosen: &mut Vec<Chosen>,
) -> HashSet<usize> {
    // Two connections may ask for one recipient in one batch while the mail passes from one to the other.
    let mut gone: HashSet<DeliveryId> = chosen.iter().map(|row| row.delivery).collect();
    let (mut cut_short, mut may_get_more) = (HashSet::new(), HashSet::new());
    let mut left = MAX_HANDED_BYTES;
    let (mut current, mut rows, mut bytes) = (usize::MAX, 0, 0);
    for &(seq, place, delivery, size_bytes, span) in free {
        let Some(&(request, recipient)) = asked.get(place) else { continue };
        let Some(claim) = claims.get(request) else { continue };
        if request != current {
            (current, rows, bytes) = (request, 0, 0);
        }
        // Later rows must not overtake one that did not fit.
        let is_full = rows >= claim.max_rows || rows > 0 && bytes + size_bytes > claim.max_bytes;
        if is_full || left <= 0 || cut_short.contains(&request) {
            cut_short.insert(request);
            may_get_more.insert(request);
        } else if gone.insert(delivery) {
            rows += 1;
            bytes += size_bytes;
            left -= size_bytes;
            let until = now.plus(claim.lease);
            chosen.push(Chosen { request, delivery, span, seq, size_bytes, recipient: recipient.clone(), until });
        } else {
            // Behind what the other one takes there may be rows that were not read.
            may_get_more.insert(request);
        }
    }
    may_get_more
}

/// Finds which rows a connection still holds unacknowledged. A member who was removed holds none. What a sender wrote that may no
/// longer reach the member is not handed over again: it is freed, and held back like what nobody has claimed.
async fn again(batch: &mut Batch, reclaims: &[&Reclaim], offset: usize) -> sqlx::Result<Vec<Chosen>> {
    const HELD: Sql = folded!(
        concat!(
            "cast(r.value ->> 0 as bigint), p.id, p.message_seq, p.size_bytes, p.recipient, cast(r.value ->> 2 as bigint), \
             case when ",
            wanted!(),
            " then 1 else 0 end"
        ),
        " left join delivery p on p.id = cast(r.value ->> 1 as bigint) \
          left join member o on o.id = p.member_id and o.mesh_id || '' = p.mesh_id \
         where coalesce(p.state, '') = 'queued' and coalesce(p.claim_connection, '') = r.value ->> 3 and o.revoked_at is null"
    );
    const FREE: Sql = sql!(
        "update delivery set claim_incarnation = null, claim_connection = null, claim_until = null from ",
        rows " where delivery.id = cast(r.value ->> 0 as bigint) and delivery.claim_connection = r.value ->> 1"
    );
    type Found = (usize, i64, i64, i64, String, i64, u8);
    let now = batch.now;
    let rows: Vec<_> = reclaims
        .iter()
        .enumerate()
        .flat_map(|(index, again)| {
            again
                .rows
                .iter()
                .filter_map(|(id, lease)| Some((id.row()?, lease)))
                .map(move |(id, lease)| (index + offset, id, now.plus(*lease).as_millis(), &again.connection))
        })
        .collect();
    if rows.is_empty() {
        return posts::again(batch, reclaims, offset).await;
    }
    let found: Vec<Found> = batch.connection().folded(HELD, &[(&json(&rows)?).into()]).await?;
    let (found, unwanted): (Vec<_>, Vec<_>) = found.into_iter().partition(|row| row.6 == 1);
    if !unwanted.is_empty() {
        let mut freed = Vec::new();
        for (request, delivery, _, _, recipient, ..) in unwanted {
            let Some(holder) = request.checked_sub(offset).and_then(|place| reclaims.get(place)) else { continue };
            freed.push((delivery, &holder.connection));
            // The grant may be given again at this moment, and whoever was rung for that not have seen the row.
            if let Ok(recipient) = recipient.parse() {
                batch.ring_again(&holder.mesh_id, &recipient);
            }
        }
        batch.connection().later(FREE, &[(&json(&freed)?).into()]).await?;
    }
    let mut named = HashSet::new();
    let chosen = found.into_iter().filter_map(|(request, delivery, seq, size_bytes, recipient, until, _)| {
        if !named.insert(delivery) {
            return None;
        }
        let (recipient, until) = (recipient.parse().ok()?, Timestamp::from_millis(until));
        Some(Chosen { request, delivery: DeliveryId::Row(delivery), span: None, seq, size_bytes, recipient, until })
    });
    let mut chosen: Vec<Chosen> = chosen.collect();
    chosen.extend(posts::again(batch, reclaims, offset).await?);
    Ok(chosen)
}

/// Marks the chosen rows as claimed, and reads their messages.
async fn take(batch: &mut Batch, chosen: Vec<Chosen>, holders: &[Holder<'_>]) -> sqlx::Result<Vec<(usize, Claimed)>> {
    const TAKE: Sql = together!(
        claimed: write(
            "update delivery set claim_incarnation = cast($2 as bigint), claim_connection = r.value ->> 2, \
             claim_until = cast(r.value ->> 3 as bigint) from ",
            "$1",
            " where delivery.id = cast(r.value ->> 1 as bigint)"
        );
        read(
            "cast(r.value ->> 0 as bigint), m.id, m.sender_pubkey, s.peer_pubkey, m.sender_member_id, m.sender_name, \
             m.priority, m.nonce, m.ciphertext, m.ext, m.client_message_id, m.request_fingerprint, m.created_at, \
             null, null, null, null, null, null, null",
            "$1",
            " left join delivery d on d.id = cast(r.value ->> 1 as bigint) \
              left join message m on m.mesh_id = d.mesh_id and m.seq = d.message_seq \
              left join member s on s.id = m.sender_member_id and s.mesh_id || '' = m.mesh_id"
        )
    );
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let mut messages = posts::take(batch, &chosen, holders).await?;
    let rows: Vec<_> = chosen
        .iter()
        .enumerate()
        .filter_map(|(index, row)| {
            let connection = holders.get(row.request)?.connection;
            Some((index, row.delivery.row()?, connection, row.until.as_millis()))
        })
        .collect();
    if !rows.is_empty() {
        let incarnation = batch.settings.incarnation;
        let taken = batch.last_rows(TAKE, &[(&json(&rows)?).into(), incarnation.into()]).await?;
        let rows: sqlx::Result<Vec<Found>> = taken.first().map_or_else(|| Ok(Vec::new()), |row| row.folded(0));
        // It may be committed by now: whose fault it is must not be looked for by writing the halves of the batch again.
        let rows = rows.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        messages.extend(rows.into_iter().map(|row| (row.place, Arc::new(row.stored()))));
    }
    let mut chosen: Vec<Option<Chosen>> = chosen.into_iter().map(Some).collect();
    let claimed = messages.into_iter().filter_map(|(index, message)| {
        let Chosen { request, delivery, span, seq, size_bytes, recipient, until } = chosen.get_mut(index)?.take()?;
        let claimed = Claimed { delivery, seq, recipient, size_bytes, until, span, committed_at: None, message };
        Some((request, claimed))
    });
    Ok(claimed.collect())
}
