//! `claudemesh audit list` and `claudemesh audit verify`

use claudemesh_proto::audit::{AuditEntry, AuditQuery, AuditVerifyResult, Checkpoint};
use claudemesh_proto::text::one_line;
use serde_json::Value;

use crate::args::{Audit, AuditList, AuditWhat};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::table;

/// Characters of details that a line shows; `--json` shows them whole.
const DETAILS: usize = 100;

pub(crate) async fn run(context: &Context, asked: Audit) -> anyhow::Result<()> {
    match asked.what {
        AuditWhat::List(asked) => list(context, asked).await,
        AuditWhat::Verify => verify(context).await,
    }
}

async fn list(context: &Context, asked: AuditList) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let AuditList { limit, offset, event_type } = asked;
    let query = AuditQuery { limit: Some(limit), offset: Some(offset), event_type };
    let found = context.on_line(&mesh, async |line| Ok(line.connection().audit_entries(query).await?)).await?;
    context.output.data(&found, |output| {
        let rows: Vec<_> = found.entries.iter().map(row).collect();
        table(output, &["ID", "TIME", "EVENT", "ACTOR", "DETAILS"], &rows)
    })?;
    let shown = found.entries.len();
    if i64::try_from(shown).is_ok_and(|shown| shown < found.total) {
        context.output.notice(&format!("{shown} of {}; --limit and --offset show others.", found.total));
    }
    Ok(())
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let payload = entry.payload.as_object().into_iter().flatten();
    let details = payload.map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    let details: String = one_line(&details.collect::<Vec<_>>().join(" ")).chars().take(DETAILS).collect();
    let (event, actor) = (one_line(&entry.event_type), one_line(&entry.actor));
    vec![entry.id.to_string(), entry.created_at.to_string(), event, actor, details]
}

async fn verify(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let result = context.on_line(&mesh, async |line| Ok(line.connection().verify_audit_log().await?)).await?;
    context.output.data(&result, |_| said(&result))?;
    if result.valid {
        return Ok(());
    }
    let why = result.why.as_deref().map_or_else(|| "it does not fit".to_owned(), one_line);
    let at = result.broken_at.unwrap_or_default();
    Err(Failure { exit: Exit::Internal, text: format!("the audit log was changed, at entry {at}: {why}") }.into())
}

fn said(result: &AuditVerifyResult) -> String {
    let whole = format!("The audit log is whole: {} entries.", result.entries);
    let head =
        if result.valid { whole } else { format!("The audit log is NOT whole; it has {} entries.", result.entries) };
    let Some(Checkpoint { seq, hash, hash2, signed_at, pubkey, signature }) = &result.checkpoint else { return head };
    let (hash, hash2) = (one_line(hash), one_line(hash2));
    format!(
        "{head}\n\nCheckpoint, to be kept somewhere else:\n  entry      {seq}\n  hash       {hash}\n  hash2      {hash2}\n  \
         signed at  {signed_at}\n  by         {pubkey}\n  signature  {signature}"
    )
}
