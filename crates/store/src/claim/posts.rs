//! Claiming messages of topics: by the cursor, and in one order with everything else that is for the member.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use claudemesh_proto::{MemberId, Priority, Timestamp};
use serde::Deserialize;

use super::{Chosen, Claim, Free, Holder, Reclaim};
use crate::batch::Batch;
use crate::delivery::{DeliveryId, Found, Span, StoredMessage};
use crate::interner::Interner;
use crate::node::HEARTBEAT_TIMEOUT;
use crate::recipient::Recipient;
use crate::sql::{Sql, folded, json, sql};

/// A message of a topic behind its member's cursor.
#[derive(Debug, Deserialize)]
struct Behind {
    message_seq: i64,
    /// Which of those who ask.
    place: usize,
    cursor: i64,
    seq: i64,
    delivered: i64,
    /// The last number in the topic.
    head_seq: i64,
    size_bytes: i64,
    priority: Priority,
    /// Whether the connection that asks may be handed it at all.
    is_for_it: i64,
    /// Whether that connection holds the cursor already.
    is_held: i64,
}

/// What is behind the cursors of (place, mesh, member, number in the mesh, connection, whether it knows topics, whether topics share):
/// [`Behind`]. Those who ask see 256 messages: of each topic, or of all that have something, the same share of each and one at least.
/// The sizes are in the heads of rows, and what follows needs no body either: it is the last column.
const FREE: Sql = sql!(
    sqlite: "with asked as materialized (select cast(r.value ->> 0 as bigint) as place, r.value ->> 1 as mesh_id, \
           r.value ->> 2 as member_id, cast(r.value ->> 3 as bigint) as after_seq, r.value ->> 4 as connection, \
           cast(r.value ->> 5 as bigint) as knows_topics, 1 + 255 / nullif(case when cast(r.value ->> 6 as bigint) = 0 then 1 else ( \
             select count(*) from topic_member c cross join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
             where c.mesh_id = r.value ->> 1 and c.member_id = r.value ->> 2 and t.archived_at is null \
             and t.head_seq > c.delivered_seq and t.head_message_seq > cast(r.value ->> 3 as bigint)) end, 0) as room \
           from jsonb_each($1) r), \
         behind as materialized (select a.*, c.id as cursor, c.topic_id, c.delivered_seq, t.head_seq, \
           case when coalesce(c.claim_connection, '') = a.connection then 1 else 0 end as is_held, \
           (select x.seq from topic_message x where x.mesh_id = c.mesh_id and x.topic_id = c.topic_id \
            and x.seq > c.delivered_seq and x.message_seq > a.after_seq order by x.seq limit 1) as first_seq \
           from asked a cross join topic_member c on c.mesh_id = a.mesh_id and c.member_id = a.member_id \
           cross join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
           where t.head_seq > c.delivered_seq and t.head_message_seq > a.after_seq and t.archived_at is null \
           and (c.claim_until is null or c.claim_until <= $2 or c.claim_connection = a.connection or not exists ( \
             select 1 from node n where n.incarnation = c.claim_incarnation and n.heartbeat_at > $3)) \
           and not exists (select 1 from member o where o.mesh_id || '' = a.mesh_id and o.id = a.member_id \
             and o.revoked_at is not null)) \
         select json_group_array(json_array(q.message_seq, b.place, b.cursor, q.seq, b.delivered_seq, b.head_seq, \
         octet_length(q.nonce) + octet_length(q.ciphertext) + coalesce(octet_length(q.ext), 0), q.priority, \
         case when q.sender_member_id <> b.member_id and q.created_at > $4 and (q.body_version = 1 or b.knows_topics = 1) \
          then 1 else 0 end, b.is_held)) \
         from behind b cross join topic_message q on q.mesh_id = b.mesh_id and q.topic_id = b.topic_id \
          and q.seq >= b.first_seq and q.seq < b.first_seq + b.room",
    postgres: "with asked as materialized (select cast(r.value ->> 0 as bigint) as place, r.value ->> 1 as mesh_id, \
           r.value ->> 2 as member_id, cast(r.value ->> 3 as bigint) as after_seq, r.value ->> 4 as connection, \
           cast(r.value ->> 5 as bigint) as knows_topics, 1 + 255 / nullif(case when cast(r.value ->> 6 as bigint) = 0 then 1 else ( \
             select count(*) from topic_member c left join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
             where c.mesh_id = r.value ->> 1 and c.member_id = r.value ->> 2 and t.archived_at is null \
             and coalesce(t.head_seq, 0) > c.delivered_seq \
             and coalesce(t.head_message_seq, 0) > cast(r.value ->> 3 as bigint)) end, 0) as room \
           from jsonb_array_elements($1::text::jsonb) r(value)) \
         select json_agg(json_build_array(q.message_seq, a.place, c.id, q.seq, c.delivered_seq, t.head_seq, \
         octet_length(q.nonce) + octet_length(q.ciphertext) + coalesce(octet_length(q.ext), 0), q.priority, \
         case when q.sender_member_id <> c.member_id and q.created_at > $4 \
          and (q.body_version = 1 or a.knows_topics = 1) then 1 else 0 end, \
         case when coalesce(c.claim_connection, '') = a.connection then 1 else 0 end))::text \
         from asked a left join topic_member c on c.mesh_id = a.mesh_id and c.member_id = a.member_id \
         left join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
         left join lateral ( \
           select x.* from topic_message x where x.mesh_id = c.mesh_id and x.topic_id = c.topic_id \
           and x.seq > c.delivered_seq and x.message_seq > a.after_seq order by x.seq limit a.room) q on true \
         where coalesce(q.seq, 0) > 0 and coalesce(t.head_seq, 0) > coalesce(c.delivered_seq, 0) \
         and coalesce(t.head_message_seq, 0) > a.after_seq and t.archived_at is null \
         and (c.claim_until is null or c.claim_until <= $2 or c.claim_connection = a.connection or not exists ( \
           select 1 from node n where n.incarnation = c.claim_incarnation and n.heartbeat_at > $3)) \
         and not exists (select 1 from member o where o.mesh_id || '' = a.mesh_id and o.id = a.member_id \
           and o.revoked_at is not null)",
);

/// What a claim sees behind the cursors of its member.
#[derive(Debug, Default)]
struct View {
    due: Vec<Free>,
    /// A cursor went on, and there is more behind it.
    goes_on: bool,
    /// Of some topic nothing was read after this number in the mesh; what is later in others must not overtake it.
    horizon: Option<i64>,
}

/// Adds the next messages of topics for each claim; the claims for which there is more to look at. What is not for whoever asks (its
/// own, what it cannot open, what is too old) is passed over for good where nothing before it is outstanding.
///
/// Topics share what a claim looks at, so that its cost does not grow with them, and what comes after the horizon is for the next claim.
/// A claim that would get nothing so, because it holds something and what follows that is not for it, looks at all of each.
pub(super) async fn free(
    batch: &mut Batch,
    claims: &[&Claim],
    asked: &[(usize, &Recipient)],
    free: &mut Vec<Free>,
) -> sqlx::Result<HashSet<usize>> {
    let mut views = look(batch, claims, asked, None).await?;
    let request_of = |row: &Free| asked.get(row.1).map(|(request, _)| *request);
    let mut firsts: HashMap<usize, i64> = HashMap::new();
    for row in views.values().flat_map(|view| &view.due).chain(free.iter()) {
        if let Some(request) = request_of(row) {
            firsts.entry(request).and_modify(|first| *first = row.0.min(*first)).or_insert(row.0);
        }
    }
    let is_stuck = |(request, view): (&usize, &View)| {
        let sees_nothing = |horizon| firsts.get(request).is_none_or(|first| *first > horizon);
        (!view.goes_on && view.horizon.is_some_and(sees_nothing)).then_some(*request)
    };
    let stuck: HashSet<usize> = views.iter().filter_map(is_stuck).collect();
    if !stuck.is_empty() {
        views.extend(look(batch, claims, asked, Some(&stuck)).await?);
    }
    for view in views.values_mut() {
        free.append(&mut view.due);
    }
    let horizon = |row: &Free| views.get(&request_of(row)?)?.horizon;
    free.retain(|row| horizon(row).is_none_or(|horizon| row.0 <= horizon));
    Ok(views.into_iter().filter(|(_, view)| view.goes_on).map(|(request, _)| request).collect())
}

/// What each claim sees, or each of those that look at all.
async fn look(
    batch: &mut Batch,
    claims: &[&Claim],
    asked: &[(usize, &Recipient)],
    at_all: Option<&HashSet<usize>>,
) -> sqlx::Result<HashMap<usize, View>> {
    let is_shared = |claim: &Claim| at_all.is_none() && !claim.urgent_only;
    let rows: Vec<_> = asked
        .iter()
        .enumerate()
        .filter(|(_, (index, _))| at_all.is_none_or(|those| those.contains(index)))
        .filter_map(|(place, (index, recipient))| {
            let claim = claims.get(*index)?;
            let Recipient::Member(member) = recipient else { return None };
            let (knows_topics, shares) = (i64::from(claim.knows_topics), i64::from(is_shared(claim)));
            Some((place, &claim.mesh_id, member, claim.after_seq, &claim.connection, knows_topics, shares))
        })
        .collect();
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let now = batch.now;
    let (alive, oldest) = (now.minus(HEARTBEAT_TIMEOUT), now.minus(batch.settings.message_ttl));
    let rows = json(&rows)?;
    let values = [(&rows).into(), now.as_millis().into(), alive.as_millis().into(), oldest.as_millis().into()];
    let mut behind: Vec<Behind> = batch.connection().folded(FREE, &values).await?;
    behind.sort_unstable_by_key(|post| (post.place, post.cursor, post.seq));
    let mut views: HashMap<usize, View> = HashMap::new();
    for posts in behind.chunk_by(|one, next| (one.place, one.cursor) == (next.place, next.cursor)) {
        let Some(last) = posts.last() else { continue };
        let Some(&(request, _)) = asked.get(last.place) else { continue };
        let Some(claim) = claims.get(request) else { continue };
        let (view, is_cut) = (views.entry(request).or_default(), last.seq < last.head_seq);
        view.goes_on |= pass_over(batch, posts) && is_cut;
        view.due.extend(due(posts, claim.urgent_only));
        if is_cut && is_shared(claim) {
            view.horizon = Some(view.horizon.map_or(last.message_seq, |horizon| horizon.min(last.message_seq)));
        }
    }
    Ok(views)
}

/// Those that the connection may be handed now, each with what lies before it.
fn due(posts: &[Behind], is_urgent_only: bool) -> Vec<Free> {
    let mut after = posts.first().map_or(0, |post| post.seq - 1);
    let mut due = Vec::new();
    for post in posts.iter().filter(|post| post.is_for_it == 1) {
        if !is_urgent_only || post.priority == Priority::Now {
            let delivery = DeliveryId::Post { cursor: post.cursor, seq: post.seq };
            let span = Span { delivered: post.delivered, after };
            due.push((post.message_seq, post.place, delivery, post.size_bytes, Some(span)));
        }
        after = post.seq;
    }
    due
}

/// Moves a cursor over what comes next and is not for its member, when nothing is outstanding; whether it did.
fn pass_over(batch: &mut Batch, posts: &[Behind]) -> bool {
    let is_next = |(place, post): &(i64, &Behind)| post.is_for_it == 0 && post.seq == post.delivered + 1 + place;
    let passed = (0..).zip(posts).take_while(is_next).last();
    let Some((_, Behind { cursor, seq, is_held: 0, .. })) = passed else { return false };
    batch.cursors.advance(*cursor, *seq);
    true
}

/// Finds which messages of topics a connection still holds unacknowledged.
pub(super) async fn again(batch: &mut Batch, reclaims: &[&Reclaim], offset: usize) -> sqlx::Result<Vec<Chosen>> {
    /// Request, cursor, number, number in the mesh, size, member, lease end.
    type Row = (usize, i64, i64, i64, i64, MemberId, i64);
    const HELD: Sql = folded!(
        "cast(r.value ->> 0 as bigint), c.id, q.seq, q.message_seq, \
         octet_length(q.nonce) + octet_length(q.ciphertext) + coalesce(octet_length(q.ext), 0), c.member_id, cast(r.value ->> 3 as bigint)",
        " left join topic_member c on c.id = cast(r.value ->> 1 as bigint) \
          left join topic_message q on q.mesh_id = c.mesh_id and q.topic_id = c.topic_id \
           and q.seq = cast(r.value ->> 2 as bigint) \
          left join member o on o.id = c.member_id and o.mesh_id || '' = c.mesh_id \
         where coalesce(c.claim_connection, '') = r.value ->> 4 and coalesce(q.seq, 0) > 0 and o.revoked_at is null"
    );
    let now = batch.now;
    let rows: Vec<_> = reclaims
        .iter()
        .enumerate()
        .flat_map(|(index, again)| {
            again.rows.iter().filter_map(move |(id, lease)| {
                let DeliveryId::Post { cursor, seq } = id else { return None };
                Some((index + offset, *cursor, *seq, now.plus(*lease).as_millis(), &again.connection))
            })
        })
        .collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<Row> = batch.connection().folded(HELD, &[(&json(&rows)?).into()]).await?;
    let chosen = found.into_iter().map(|(request, cursor, number, seq, size_bytes, member, until)| Chosen {
        request,
        delivery: DeliveryId::Post { cursor, seq: number },
        span: None,
        seq,
        size_bytes,
        recipient: Recipient::Member(member),
        until: Timestamp::from_millis(until),
    });
    Ok(chosen.collect())
}

/// Claims the cursors of the chosen messages of topics, and reads those messages: each once, however many get it. Which of the chosen
/// ones are which message.
pub(super) async fn take(
    batch: &mut Batch,
    chosen: &[Chosen],
    holders: &[Holder<'_>],
) -> sqlx::Result<Vec<(usize, Arc<StoredMessage>)>> {
    const READ: Sql = folded!(
        "cast(r.value ->> 0 as bigint), q.id, q.sender_pubkey, s.peer_pubkey, q.sender_member_id, q.sender_name, q.priority, \
         q.nonce, q.ciphertext, q.ext, q.client_message_id, q.request_fingerprint, q.created_at, q.topic_id, t.name, q.seq, \
         q.body_version, q.reply_to_id, q.mentions, q.plaintext",
        " left join topic_member c on c.id = cast(r.value ->> 1 as bigint) \
          left join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
          left join topic_message q on q.mesh_id = c.mesh_id and q.topic_id = c.topic_id \
           and q.seq = cast(r.value ->> 2 as bigint) \
          left join member s on s.id = q.sender_member_id and s.mesh_id || '' = q.mesh_id \
         where coalesce(q.id, '') <> ''"
    );
    // By its number in the mesh a message is the same for all.
    let (mut asked, mut rows, mut wanted) = (Interner::default(), Vec::new(), Vec::new());
    for (index, row) in chosen.iter().enumerate() {
        let (DeliveryId::Post { cursor, seq }, Some(holder)) = (row.delivery, holders.get(row.request)) else {
            continue;
        };
        batch.cursors.claim((cursor, seq), holder.connection, row.until);
        let message = asked.intern((holder.mesh_id, row.seq));
        if message == rows.len() {
            rows.push((message, cursor, seq));
        }
        wanted.push((index, message));
    }
    if rows.is_empty() {
        batch.write_cursors().await?;
        return Ok(Vec::new());
    }
    let found: Vec<Found> = batch.connection().folded(READ, &[(&json(&rows)?).into()]).await?;
    batch.write_cursors().await?;
    let messages: HashMap<usize, Arc<StoredMessage>> =
        found.into_iter().map(|row| (row.place, Arc::new(row.stored()))).collect();
    let message_of = |(index, message)| Some((index, Arc::clone(messages.get(&message)?)));
    Ok(wanted.into_iter().filter_map(message_of).collect())
}
