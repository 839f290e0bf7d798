//! Writing everything that a batch decided, in one statement.

use crate::backlog::add_to_backlog;
use crate::batch::Batch;
use crate::crash::crash_point;
use crate::message::Accepted;
use crate::sql::{Sql, json, together};

/// Inserts deliveries, with their numbers where the batch gives them.
macro_rules! insert_deliveries {
    (numbered) => {
        concat!(
            "insert into delivery (",
            insert_deliveries!(columns),
            ", id) select ",
            insert_deliveries!(values),
            ", cast(r.value ->> 9 as bigint) from "
        )
    };
    (unnumbered) => {
        concat!("insert into delivery (", insert_deliveries!(columns), ") select ", insert_deliveries!(values), " from ")
    };
    (columns) => {
        "mesh_id, message_seq, recipient, member_id, priority, size_bytes, state, ended_at, claim_connection, claim_until, \
         claim_incarnation"
    };
    (values) => {
        "r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
         cast(r.value ->> 5 as bigint), r.value ->> 6, case when r.value ->> 6 <> 'queued' then cast($1 as bigint) end, \
         r.value ->> 7, cast(r.value ->> 8 as bigint), case when r.value ->> 7 is not null then cast($9 as bigint) end"
    };
}

/// Everything that a batch decided.
macro_rules! write_batch {
    ($numbering:ident) => {
        together!(
            ended: write(
                "update delivery set state = 'delivered', ended_at = cast($1 as bigint), claim_incarnation = null, \
                 claim_connection = null, claim_until = null from ",
                "$2",
                " where delivery.id = cast(r.value ->> 0 as bigint)"
            );
            freed: write(
                "update delivery set claim_incarnation = null, claim_connection = null, claim_until = null from ",
                "$3",
                " where delivery.id = cast(r.value ->> 0 as bigint) \
                 and coalesce(delivery.claim_connection, '') = r.value ->> 1"
            );
            accepted: write(
                "insert into message (mesh_id, seq, id, sender_member_id, sender_pubkey, sender_name, target_spec, priority, \
                 nonce, ciphertext, ext, client_message_id, request_fingerprint, created_at) \
                 select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
                 r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, \
                 r.value ->> 12, cast($1 as bigint) from ",
                "$4",
                ""
            );
            queued: write(
                insert_deliveries!($numbering),
                "$5",
                ""
            );
            heads: write(
                "insert into mesh_head (mesh_id, message_seq, queued_rows, queued_bytes, audit_seq, audit_hash, audit_hash2, \
                 topic_bytes) select r.value ->> 0, cast(r.value ->> 1 as bigint), cast(r.value ->> 2 as bigint), \
                 cast(r.value ->> 3 as bigint), cast(r.value ->> 4 as bigint), r.value ->> 5, r.value ->> 6, \
                 cast(r.value ->> 7 as bigint) from ",
                "$6",
                " where true on conflict (mesh_id) do update set \
                 message_seq = case when excluded.audit_hash = '' then mesh_head.message_seq else excluded.message_seq end, \
                 queued_rows = mesh_head.queued_rows + excluded.queued_rows, \
                 queued_bytes = mesh_head.queued_bytes + excluded.queued_bytes, \
                 topic_bytes = case when excluded.audit_hash = '' then mesh_head.topic_bytes else excluded.topic_bytes end, \
                 audit_seq = case when excluded.audit_hash = '' then mesh_head.audit_seq else excluded.audit_seq end, \
                 audit_hash = case when excluded.audit_hash = '' then mesh_head.audit_hash else excluded.audit_hash end, \
                 audit_hash2 = case when excluded.audit_hash = '' then mesh_head.audit_hash2 else excluded.audit_hash2 end"
            );
            logged: write(
                "insert into audit_log (mesh_id, seq, event_type, actor_member_id, actor_display_name, payload, prev_hash, \
                 hash, hash2, created_at) select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, \
                 r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, cast($1 as bigint) from ",
                "$8",
                ""
            );
            write(add_to_backlog!(), "$7", add_to_backlog!(tail))
        )
    };
}

impl Batch {
    /// Writes what was decided, in one statement.
    pub(crate) async fn write(&mut self, accepted: &[Accepted<'_>]) -> sqlx::Result<()> {
        const WRITE: Sql = Sql { sqlite: write_batch!(numbered).sqlite, postgres: write_batch!(unnumbered).postgres };
        let logged = self.heads.chain(std::mem::take(&mut self.events), self.now);
        let ended: Vec<(i64,)> = self.ended.iter().map(|id| (*id,)).collect();
        // PostgreSQL changes a row once in a statement: what has ended need not be free.
        let freed: Vec<_> = self.freed.iter().filter(|(id, _)| !self.ended.contains(id)).collect();
        if accepted.is_empty() && ended.is_empty() && freed.is_empty() && logged.is_empty() {
            return Ok(());
        }
        let messages: Vec<_> = accepted.iter().filter_map(Accepted::message_row).collect();
        let deliveries: Vec<_> = accepted.iter().flat_map(Accepted::delivery_rows).collect();
        let heads = self.heads.rows(&self.backlog);
        let (ended, freed, messages) = (json(&ended)?, json(&freed)?, json(&messages)?);
        let (deliveries, heads, backlog) = (json(&deliveries)?, json(&heads)?, json(&self.backlog.rows())?);
        let logged = json(&logged)?;
        let now = self.now.as_millis().into();
        let rows = [&ended, &freed, &messages, &deliveries, &heads, &backlog, &logged].map(Into::into);
        let [ended, freed, messages, deliveries, heads, backlog, logged] = rows;
        let incarnation = self.settings.incarnation.into();
        let values = [now, ended, freed, messages, deliveries, heads, backlog, logged, incarnation];
        self.connection().later(WRITE, &values).await?;
        if !self.freed.is_empty() {
            crash_point("release.done");
        }
        crash_point("batch.written");
        Ok(())
    }
}
