//! `claudemesh topic history`

use clap::{Args, value_parser};
use claudemesh_client::{Connection, Held, TopicKey, open_post};
use claudemesh_proto::MessageId;
use claudemesh_proto::topic::{ListedTopic, TopicMessage};

use super::message::{Shown, named};
use super::{Named, key, on_topic};
use crate::bearer::with_bearer;
use crate::context::Context;
use crate::parse;

/// Show what was written in a topic, oldest first
#[derive(Debug, Args)]
#[command(
    after_help = "What is not encrypted is flagged; what the topic's key does not open is said so and never shown as text. When you hold \
    the key, it is shared on the way with those in the topic who wait for it.\n\n\
    Example: claudemesh topic history deploys --limit 20\n\n\
    JSON: one line per message: {messageId, topic, seq, from, senderPubkey, senderMemberId, sentAt, replyToId|null, mentions, \
    encrypted, plaintext, text}; encrypted is false for what the broker could read, plaintext is true when the topic had a key \
    then; encrypted and text are null when the message could not be opened"
)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) topic: Named,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Only what was written before the message with this id, or the first 8 characters of it or more
    #[arg(long, value_name = "ID", value_parser = parse::id_or_prefix)]
    pub(crate) before: Option<String>,
}

pub(crate) async fn run(context: &Context, asked: &History) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let found = on_topic(context, &asked.topic, async |line, topic| {
        let own_name = line.connection().welcome().member_display_name.to_string();
        let before = match &asked.before {
            Some(text) => Some(named(line.connection(), topic, text).await?),
            None => None,
        };
        let messages = pages(line.connection(), topic, asked.limit, before).await?;
        let held = with_bearer(line, &mesh, key::errand(topic, "topic-history"), async |_, bearer| {
            let held = bearer.topic_key(key::pin(context, &mesh, topic)).await?;
            if let Held::Key { key, .. } = &held {
                // What is shown does not depend on it.
                let _ = key::share_on_the_way(context, (bearer, key), (&mesh, topic)).await;
            }
            Ok(held)
        });
        Ok((own_name, messages, held.await?))
    });
    let (topic, (own_name, messages, held)) = found.await?;
    let key = if let Held::Key { key, .. } = &held { Some(key) } else { None };
    show(context, (&topic, &own_name), &messages, key)?;
    if messages.is_empty() {
        let when = if asked.before.is_some() { "before that" } else { "yet" };
        context.output.notice(&format!("Nothing was written in #{} {when}.", topic.name));
    }
    if let Held::Awaited { was_bad } = held
        && messages.iter().any(|message| message.body_version != 1)
    {
        return Err(key::awaited(&topic, was_bad).into());
    }
    Ok(())
}

fn show(
    context: &Context,
    (topic, own_name): (&ListedTopic, &str),
    messages: &[TopicMessage],
    key: Option<&TopicKey>,
) -> anyhow::Result<()> {
    for message in messages {
        let (body, has_key) = (open_post(key, message), key.is_some());
        Shown { topic, message, body, has_key, own_name }.print(&context.output)?;
    }
    Ok(())
}

/// The newest messages before one, in the order in which they were written.
async fn pages(
    connection: &Connection,
    topic: &ListedTopic,
    limit: u32,
    mut before: Option<MessageId>,
) -> anyhow::Result<Vec<TopicMessage>> {
    let limit = usize::try_from(limit)?;
    let mut messages: Vec<TopicMessage> = Vec::new();
    while messages.len() < limit {
        let wanted = i64::try_from((limit - messages.len()).min(PAGE))?;
        // A page of long messages has fewer than were asked for.
        let page = connection.topic_history(topic.id.as_str(), wanted, before.as_ref()).await?;
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.id.clone());
        messages.extend(page);
    }
    messages.truncate(limit);
    messages.reverse();
    Ok(messages)
}

/// The most that a broker answers at a time.
const PAGE: usize = 200;
