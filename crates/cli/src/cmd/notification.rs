//! `claudemesh notification list`, `notification read`

use std::time::Duration;

use clap::{Args, Subcommand};
use claudemesh_client::{Bearer, Notification, now};
use claudemesh_proto::NotificationId;
use claudemesh_proto::api_key::Capability;
use serde_json::json;

use crate::bearer::{Errand, with_bearer};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;
use crate::table::table;

/// Who mentioned you in topics
#[derive(Debug, Args)]
pub(crate) struct NotificationVerb {
    #[command(subcommand)]
    pub(crate) what: NotificationWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NotificationWhat {
    List(ListNotifications),
    Read(ReadNotifications),
}

/// List who mentioned you, newest first, 50 at most
#[derive(Debug, Args)]
#[command(
    after_help = "What was written is in claudemesh topic history.\n\nExample: claudemesh notification list --since 7d --all\n\n\
    JSON: {notifications: [{notificationId, id, topicId, topicName, senderName, kind, readAt|null, createdAt}]}; id is the message's"
)]
pub(crate) struct ListNotifications {
    /// Also those that are read
    #[arg(long)]
    pub(crate) all: bool,
    /// How far back
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse::duration)]
    pub(crate) since: Duration,
}

/// Mark notifications as read
#[derive(Debug, Args)]
#[command(after_help = "Example: claudemesh notification read --all\n\nJSON: {marked: COUNT|\"all\"}")]
pub(crate) struct ReadNotifications {
    /// Their ids; of the newest 50 the first 8 characters are enough
    #[arg(value_name = "ID", required_unless_present = "all", value_parser = parse::id_or_prefix)]
    pub(crate) ids: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

pub(crate) async fn run(context: &Context, asked: NotificationVerb) -> anyhow::Result<()> {
    match asked.what {
        NotificationWhat::List(asked) => list(context, &asked).await,
        NotificationWhat::Read(asked) => read(context, &asked).await,
    }
}

async fn list(context: &Context, asked: &ListNotifications) -> anyhow::Result<()> {
    let since = now().minus(asked.since);
    let found = ask(context, async |bearer| Ok(bearer.notifications(since, !asked.all).await?)).await?;
    context.output.data(&json!({ "notifications": found }), |output| {
        let row = |one: &Notification| {
            let state = if one.read_at.is_some() { "read" } else { "unread" };
            let short = |id: &str| id.chars().take(8).collect::<String>();
            vec![
                short(one.notification_id.as_str()),
                one.created_at.to_string(),
                format!("#{}", one.topic_name),
                one.sender_name.clone(),
                one.kind.clone(),
                short(one.id.as_str()),
                state.into(),
            ]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        table(output, &["ID", "TIME", "TOPIC", "FROM", "WHAT", "MESSAGE", "STATE"], &rows)
    })?;
    if found.is_empty() {
        context.output.notice(if asked.all { "Nobody mentioned you." } else { "Nothing is unread." });
    }
    Ok(())
}

async fn read(context: &Context, asked: &ReadNotifications) -> anyhow::Result<()> {
    let marked = ask(context, async |bearer| {
        let ids = if asked.all { Vec::new() } else { whole(bearer, &asked.ids).await? };
        Ok(bearer.read_notifications(&ids).await?)
    });
    let marked = marked.await?;
    let value = json!({ "marked": marked.map_or_else(|| json!("all"), |count| json!(count)) });
    context.output.data(&value, |_| match marked {
        Some(count) => format!("Marked as read: {count}."),
        None => "All are marked as read.".into(),
    })
}

/// The ids that these are, or begin among the newest.
async fn whole(bearer: &Bearer, named: &[String]) -> anyhow::Result<Vec<String>> {
    let is_whole = |text: &String| text.len() >= WHOLE && text.parse::<NotificationId>().is_ok();
    if named.iter().all(is_whole) {
        return Ok(named.to_vec());
    }
    let known = bearer.notifications(now().minus(LOOKED_BACK), false).await?;
    let find = |text: &String| {
        if is_whole(text) {
            return Ok(text.clone());
        }
        let found = known.iter().find(|one| one.notification_id.as_str().starts_with(text));
        let nobody = || Failure {
            exit: Exit::NotFound,
            text: format!(
                "none of the newest 50 notifications begins with \"{text}\"\ntry: claudemesh notification list --all shows the ids; an \
                 older one is named by its whole id, which --json shows"
            ),
        };
        found.map(|one| one.notification_id.to_string()).ok_or_else(nobody)
    };
    Ok(named.iter().map(find).collect::<Result<_, _>>()?)
}

async fn ask<T>(context: &Context, talk: impl AsyncFnOnce(&Bearer) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mesh = context.mesh()?;
    let errand = Errand { purpose: "notification", capabilities: &[Capability::Read], topic: None };
    context
        .on_line(&mesh, async |line| with_bearer(line, &mesh, errand, async |_, bearer| talk(bearer).await).await)
        .await
}

/// Characters of a whole id.
const WHOLE: usize = 32;

/// How far back a notification is looked for by the beginning of its id.
const LOOKED_BACK: Duration = Duration::from_hours(90 * 24);
