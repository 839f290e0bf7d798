//! `claudemesh grant`, `claudemesh block`, `claudemesh grants`

use std::collections::BTreeSet;

use clap::Args;
use claudemesh_client::{Addressee, Roster, key_prefix};
use claudemesh_proto::grant::Capability;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::table::table;

/// Say what somebody may do to you, and nothing else
#[derive(Debug, Args)]
#[command(
    after_help = "Without a word of yours everybody may read, dm, broadcast and state-read. What a blocked sender sends \
    is refused or held back.\n\nJSON: {name|null, pubkey, capabilities|null}; null is what everybody may"
)]
pub(crate) struct Grant {
    /// A name, a key, or the first 8 characters of a key or more; a member's name stands for all its sessions
    pub(crate) who: String,
    /// read, dm, broadcast, state-read, state-write or file-read
    #[arg(value_name = "CAPABILITY", required_unless_present = "reset")]
    pub(crate) capabilities: Vec<Capability>,
    /// Go back to what everybody may
    #[arg(long, conflicts_with = "capabilities")]
    pub(crate) reset: bool,
}

/// Let somebody do nothing to you; undo it with grant --reset
#[derive(Debug, Args)]
#[command(after_help = "JSON: {name|null, pubkey, capabilities: []}")]
pub(crate) struct Block {
    /// A name, a key, or the first 8 characters of a key or more; a member's name stands for all its sessions
    pub(crate) who: String,
}

pub(crate) async fn grant(context: &Context, asked: Grant) -> anyhow::Result<()> {
    let capabilities = (!asked.reset).then(|| asked.capabilities.into_iter().collect());
    set(context, &asked.who, capabilities).await
}

pub(crate) async fn block(context: &Context, asked: &Block) -> anyhow::Result<()> {
    set(context, &asked.who, Some(BTreeSet::new())).await
}

async fn set(context: &Context, who: &str, capabilities: Option<BTreeSet<Capability>>) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let whom = context.on_line(&mesh, async |line| {
        let whom = Roster::fetch(line.connection()).await?.resolve(who)?;
        if whom.member_key.unwrap_or(whom.key) == mesh.identity.public() {
            return Err(Failure::bad_arguments("that is you; grants are for others"));
        }
        line.connection().set_grant(&whom.key, capabilities.as_ref()).await?;
        Ok(whom)
    });
    let whom = whom.await?;
    let value = json!({ "name": whom.name, "pubkey": whom.key, "capabilities": capabilities });
    context.output.data(&value, |_| said(&whom, capabilities.as_ref()))
}

fn said(whom: &Addressee, capabilities: Option<&BTreeSet<Capability>>) -> String {
    match capabilities {
        None => format!("{whom} may do what everybody may: {}", words(Capability::DEFAULT.iter())),
        Some(none) if none.is_empty() => format!("{whom} is blocked: nothing that it sends reaches you."),
        Some(some) => format!("{whom} may do this and nothing else: {}", words(some.iter())),
    }
}

pub(crate) async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let (grants, roster) = context
        .on_line(&mesh, async |line| {
            Ok((line.connection().grants().await?.grants, Roster::fetch(line.connection()).await?))
        })
        .await?;
    context.output.data(&json!({ "grants": grants }), |output| {
        let row = |(key, capabilities): (&String, &BTreeSet<Capability>)| {
            let known = key.parse().ok().and_then(|key| roster.resolve_key(&key));
            let may = if capabilities.is_empty() { "nothing (blocked)".into() } else { words(capabilities.iter()) };
            vec![known.map(|name| one_line(&name)).unwrap_or_default(), key_prefix(key), may]
        };
        table(output, &["NAME", "KEY", "MAY"], &grants.iter().map(row).collect::<Vec<_>>())
    })?;
    if grants.is_empty() {
        let all = words(Capability::DEFAULT.iter());
        context.output.notice(&format!("Everybody may do the same: {all}. Block somebody: claudemesh block NAME"));
    }
    Ok(())
}

fn words<'a>(capabilities: impl Iterator<Item = &'a Capability>) -> String {
    capabilities.map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
}
