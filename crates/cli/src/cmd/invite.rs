//! `claudemesh invite`, `invite list`, `invite revoke`

use std::time::Duration;

use clap::{Args, Subcommand};
use claudemesh_client::BrokerUrl;
use claudemesh_client::{Invitation, Line, Membership, Terms};
use claudemesh_proto::invite::{Invite as Row, InviteRevokeStatus};
use claudemesh_proto::{MemberRole, Timestamp};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;
use crate::table::table;

/// Make a link that lets somebody join; needs the owner's key
#[derive(Debug, Args)]
#[command(after_help = "JSON: {id, url, role, maxUses, expiresAt}")]
pub(crate) struct Invite {
    #[command(subcommand)]
    pub(crate) what: Option<InviteWhat>,
    #[command(flatten)]
    pub(crate) new: NewInvite,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteWhat {
    /// List the invites of the mesh
    #[command(after_help = "JSON: {invites: [{id, role, maxUses, usedCount, expiresAt, createdAt, revokedAt|null}]}")]
    List,
    /// Take an invite back
    #[command(after_help = "JSON: {id, status: \"revoked\"}")]
    Revoke {
        /// Its id, from `invite list`
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewInvite {
    /// What newcomers will be: member or admin [default: member]
    #[arg(long)]
    pub(crate) role: Option<MemberRole>,
    /// How many may use it, 1 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) uses: Option<u32>,
    /// How long it can be used, such as 30min, 12h or 7d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) expires: Option<Duration>,
    /// Where newcomers reach the broker [default: its public address, else as this machine does]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<BrokerUrl>,
}

impl NewInvite {
    /// Whether anything was said about a new invite.
    pub(crate) fn is_given(&self) -> bool {
        self.role.is_some() || self.uses.is_some() || self.expires.is_some() || self.broker.is_some()
    }
}

pub(crate) async fn run(context: &Context, asked: Invite) -> anyhow::Result<()> {
    match asked.what {
        None => create(context, asked.new).await,
        Some(_) if asked.new.is_given() => {
            Err(Failure::bad_arguments("--role, --uses, --expires and --broker are for a new invite only"))
        }
        Some(InviteWhat::List) => list(context).await,
        Some(InviteWhat::Revoke { id }) => revoke(context, &id).await,
    }
}

async fn create(context: &Context, asked: NewInvite) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let owner = context.home.owner_key(&mesh)?;
    let is_told = asked.broker.is_some();
    let broker = asked.broker.unwrap_or_else(|| mesh.broker_url.clone());
    let terms = Terms {
        role: asked.role.unwrap_or(MemberRole::Member),
        max_uses: asked.uses.unwrap_or(1),
        life: asked.expires.unwrap_or(LIFE),
        broker,
    };
    let token = owner.sign_invite(&mesh, &terms, claudemesh_client::now())?;
    let register = async |line: &mut Line| {
        let invitation = line.connection().create_invite(&token, &terms).await?;
        if is_told {
            return Ok(invitation);
        }
        Ok(line.connection().lead_to_public_address(invitation, &owner, &mesh, &terms).await?)
    };
    let invitation = context.on_line(&mesh, register).await?;
    show(context, &mesh, &invitation)
}

fn show(context: &Context, mesh: &Membership, invitation: &Invitation) -> anyhow::Result<()> {
    let Invitation { created, url, broker } = invitation;
    let value = json!({
        "id": created.id,
        "url": url,
        "role": created.role,
        "maxUses": created.max_uses,
        "expiresAt": created.expires_at,
    });
    context.output.data(&value, |_| url.clone())?;
    if context.output.is_for_people() {
        context.output.notice(&qr(url));
    }
    let uses = if created.max_uses == 1 { "once".into() } else { format!("{} times", created.max_uses) };
    context.output.notice(&format!(
        "Lets its holder into {} as {}, {uses}, until {}. Take it back: claudemesh invite revoke {}",
        mesh.slug,
        created.role.as_str(),
        created.expires_at,
        created.id
    ));
    if broker.is_loopback() {
        context.output.notice(
            "The link points at this machine only; for others: claudemesh invite --broker ADDRESS-THEY-CAN-REACH",
        );
    }
    Ok(())
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let invites = context.on_line(&mesh, async |line| Ok(line.connection().invites().await?)).await?;
    context.output.data(&json!({ "invites": invites }), |output| {
        let now = claudemesh_client::now();
        let row = |one: &Row| {
            let used = format!("{}/{}", one.used_count, one.max_uses);
            vec![one.id.to_string(), one.role.as_str().into(), used, one.expires_at.to_string(), state(one, now).into()]
        };
        let rows: Vec<_> = invites.iter().map(row).collect();
        table(output, &["ID", "ROLE", "USED", "EXPIRES", "STATE"], &rows)
    })?;
    if invites.is_empty() {
        context.output.notice("No invites yet. Make one: claudemesh invite");
    }
    Ok(())
}

async fn revoke(context: &Context, id: &str) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let status = context.on_line(&mesh, async |line| Ok(line.connection().revoke_invite(id).await?)).await?;
    match status {
        InviteRevokeStatus::Revoked => {
            let value = json!({ "id": id, "status": status });
            context.output.data(&value, |_| "Revoked: nobody can use it any more.".into())
        }
        InviteRevokeStatus::NotFound => {
            let text = format!("mesh \"{}\" has no invite {id}", mesh.slug);
            Err(Failure { exit: Exit::NotFound, text }.into())
        }
    }
}

fn state(invite: &Row, now: Timestamp) -> &'static str {
    match invite.revoked_at {
        Some(_) => "revoked",
        None if invite.used_count >= invite.max_uses => "used up",
        None if invite.expires_at < now => "expired",
        None => "open",
    }
}

/// The link as a picture of characters, where the terminal is wide enough for it.
fn qr(url: &str) -> String {
    let Ok(code) = QrCode::with_error_correction_level(url, EcLevel::L) else {
        return "(the link is too long for a QR code)".into();
    };
    let columns = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
    let needed = code.width() + 8;
    if columns < needed {
        return format!("(for a QR code of the link, make the terminal {needed} columns wide)");
    }
    // Light modules drawn, dark ones left out: readable on the dark background that most terminals have.
    code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
}

/// How long an invite is good for when nothing is said.
const LIFE: Duration = Duration::from_hours(7 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_usual_length_fits_a_code() {
        let url = format!("https://broker.example/join/{}", "A".repeat(750));
        assert!(QrCode::with_error_correction_level(&url, EcLevel::L).is_ok());
        assert!(qr("x").contains('█') || qr("x").contains("columns"));
    }
}
