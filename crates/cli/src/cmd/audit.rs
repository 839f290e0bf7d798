//! `claudemesh audit list` and `claudemesh audit verify`

use clap::{Args, Subcommand, value_parser};
use claudemesh_client::Connection;
use claudemesh_proto::audit::{AuditEntry, AuditQuery, AuditResult, AuditVerifyResult, Checkpoint};
use claudemesh_proto::text::one_line;
use serde_json::Value;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::table;

/// Read or verify what happened in the mesh; for admins
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) what: AuditWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditWhat {
    /// List entries of the audit log, newest first
    #[command(
        after_help = "On a terminal the details are cut at its width; in a pipe and with --json they are whole.\n\n\
        JSON: {entries: [{id, eventType, actor, actorMemberId?, payload, hash, createdAt}], total}; total counts also what --not-type \
        leaves out"
    )]
    List(AuditList),
    /// Have the broker verify the audit log, and show its newest checkpoint
    #[command(
        after_help = "Keep the checkpoint somewhere else: as long as the entry of its number has its hash in audit list, \
        the log before it is what it was. A log that does not verify ends in exit code 8.\n\n\
        JSON: {valid, entries, brokenAt?, why?, checkpoint?: {seq, hash, hash2, signedAt, pubkey, signature}}"
    )]
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// How many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// How many newer ones to leave out
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: u32,
    /// Only entries of this type, such as member_banned
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// No entries of this type; say it again for more
    #[arg(long = "not-type", value_name = "TYPE", conflicts_with = "event_type")]
    pub(crate) not_types: Vec<String>,
}

pub(crate) async fn run(context: &Context, asked: Audit) -> anyhow::Result<()> {
    match asked.what {
        AuditWhat::List(asked) => list(context, asked).await,
        AuditWhat::Verify => verify(context).await,
    }
}

async fn list(context: &Context, asked: AuditList) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let found = context.on_line(&mesh, async |line| entries(line.connection(), &asked).await).await?;
    context.output.data(&found, |output| {
        let rows: Vec<_> = found.entries.iter().map(row).collect();
        let shown = table(output, &["ID", "TIME", "EVENT", "ACTOR", "DETAILS"], &rows);
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        match columns.filter(|_| output.is_for_people()) {
            Some(columns) => cut(&shown, columns),
            None => shown,
        }
    })?;
    let shown = found.entries.len();
    let is_rest_left_out = !asked.not_types.is_empty() && asked.offset == 0 && u32::try_from(shown)? < asked.limit;
    if shown == 0 {
        let of_type = asked.event_type.map(|named| format!(" of type {named}")).unwrap_or_default();
        context.output.notice(&one_line(&format!("No entries{of_type}.")));
    } else if i64::try_from(shown).is_ok_and(|shown| shown < found.total) && !is_rest_left_out {
        context.output.notice(&format!("{shown} of {}; --limit and --offset show others.", found.total));
    }
    Ok(())
}

/// The entries that were asked for. The broker leaves out no types, so pages are asked for until there are enough of the others.
async fn entries(connection: &Connection, asked: &AuditList) -> anyhow::Result<AuditResult> {
    let AuditList { limit, offset, event_type, not_types } = asked;
    let query = AuditQuery { limit: Some(*limit), offset: Some(*offset), event_type: event_type.clone() };
    if not_types.is_empty() {
        return Ok(connection.audit_entries(query).await?);
    }
    let wanted = usize::try_from(u64::from(*offset) + u64::from(*limit))?;
    let mut found = AuditResult { entries: Vec::new(), total: 0 };
    let (mut asked_for, mut oldest) = (0, i64::MAX);
    loop {
        let query = AuditQuery { limit: Some(PAGE), offset: Some(asked_for), event_type: None };
        let page = connection.audit_entries(query).await?;
        // A page of long entries has fewer than were asked for.
        let count = u32::try_from(page.entries.len())?;
        found.total = page.total;
        for entry in page.entries {
            // What happens meanwhile moves the rest on, so that some of it comes again.
            if entry.id < oldest {
                oldest = entry.id;
                found.entries.extend(Some(entry).filter(|entry| !not_types.contains(&entry.event_type)));
            }
        }
        asked_for += count;
        if count == 0 || i64::from(asked_for) >= found.total || found.entries.len() >= wanted {
            break;
        }
    }
    found.entries = found.entries.into_iter().take(wanted).skip(usize::try_from(*offset)?).collect();
    Ok(found)
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let mut payload: Vec<_> = entry.payload.as_object().into_iter().flatten().collect();
    // What somebody became matters more than by which key, and is seen on a narrow terminal.
    payload.sort_by_key(|(name, _)| name.as_str() != "role");
    let details = payload.into_iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    let details = one_line(&details.collect::<Vec<_>>().join(" "));
    let (event, actor) = (one_line(&entry.event_type), one_line(&entry.actor));
    vec![entry.id.to_string(), entry.created_at.to_string(), event, actor, details]
}

/// The lines of a table, each cut where the terminal ends. Its head is short, and has codes of style in it that are no columns.
fn cut(shown: &str, columns: usize) -> String {
    let cut = |(index, line): (usize, &str)| {
        if index == 0 || line.chars().count() <= columns {
            return line.to_owned();
        }
        line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
    };
    shown.lines().enumerate().map(cut).collect::<Vec<_>>().join("\n")
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
    // What does not fit is nothing to keep.
    let checkpoint = result.checkpoint.as_ref().filter(|_| result.valid);
    let Some(Checkpoint { seq, hash, hash2, signed_at, pubkey, signature }) = checkpoint else { return head };
    let (hash, hash2) = (one_line(hash), one_line(hash2));
    format!(
        "{head}\n\nCheckpoint, to be kept somewhere else:\n  entry      {seq}\n  hash       {hash}\n  hash2      {hash2}\n  \
         signed at  {signed_at}\n  by         {pubkey}\n  signature  {signature}"
    )
}

/// Entries that are asked for at a time when some are left out: the most that a broker answers.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_for_the_terminal_says_so() {
        assert_eq!(cut("HEAD OF ALL\n12345\n123456\nüüüüüü", 5), "HEAD OF ALL\n12345\n1234…\nüüüü…");
        assert_eq!(cut("", 5), "");
    }
}
