//! `claudemesh topic post`

use clap::Args;
use claudemesh_client::{Line, Post};
use claudemesh_proto::topic::ListedTopic;
use claudemesh_proto::{MessageId, Priority};
use serde_json::json;

use super::message::named;
use super::{Named, find, key};
use crate::bearer::with_bearer;
use crate::cmd::send::{sending, text};
use crate::context::Context;
use crate::parse;

/// Write in a topic
#[derive(Debug, Args)]
#[command(
    after_help = "It is sealed with the topic's key, so that those who are in the topic read it and the broker does not. A topic that \
    has no key yet, as general at first, is given one; without a key nothing is written unless --plaintext says so, and where there is \
    one nothing is written in clear. @NAME notifies whoever is called so; whom a message mentions is not encrypted.\n\n\
    Example: claudemesh topic post deploys --reply 0000002k 'done, @ben'\n\n\
    JSON: {messageId, topic, topicId, encrypted, replyToId|null, mentions}"
)]
pub(crate) struct WritePost {
    #[command(flatten)]
    pub(crate) topic: Named,
    /// What to say; - reads it from standard input
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// The message that this one answers: its id, or the first 8 characters of it or more
    #[arg(long, value_name = "ID", value_parser = parse::id_or_prefix)]
    pub(crate) reply: Option<String>,
    /// now interrupts, next waits for a free moment, low for idle time
    #[arg(long, default_value = "next", value_parser = parse::priority)]
    pub(crate) priority: Priority,
    /// Write it NOT encrypted in a topic that has no key, and give it none: for readers whose programs cannot open what is sealed
    #[arg(long)]
    pub(crate) plaintext: bool,
}

/// What became of it.
struct Posted {
    id: MessageId,
    reply_to: Option<MessageId>,
    mentions: Vec<String>,
    is_encrypted: bool,
}

pub(crate) async fn run(context: &Context, asked: &WritePost) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let text = text(&asked.text)?;
    let (topic, posted) = sending(context, &mesh, async |line| {
        let topic = find(&line.connection().topics().await?, &asked.topic.topic)?;
        let posted = with_bearer(line, &mesh, key::errand(&topic, "topic-post"), async |line, bearer| {
            let pin = key::pin(context, &mesh, &topic);
            let key = if asked.plaintext {
                key::is_none(bearer, pin).await?;
                None
            } else {
                let held = bearer.topic_key_or_claim(pin).await?;
                Some(key::held(context, &topic, held)?)
            };
            let reply_to = match &asked.reply {
                Some(text) => Some(named(line.connection(), &topic, text).await?),
                None => None,
            };
            let post = Post {
                topic: &topic.id,
                key: key.as_ref(),
                priority: asked.priority,
                reply_to: reply_to.as_ref(),
                text: &text,
            };
            if let Some(key) = &key {
                // It is posted whether this works or not, and after it: newcomers who listen can open it when it comes.
                let _ = key::share_on_the_way(context, (bearer, key), (&mesh, &topic)).await;
            }
            let posted = post_it(line, &post).await?;
            Ok(Posted { reply_to, ..posted })
        });
        let posted = posted.await?;
        Ok((topic, posted))
    })
    .await?;
    report(context, &topic, &posted)
}

async fn post_it(line: &mut Line, post: &Post<'_>) -> anyhow::Result<Posted> {
    let send = post.compose()?;
    let id = line.send(&send).await?;
    let mentions = send.mentions.unwrap_or_default();
    Ok(Posted { id, reply_to: None, mentions, is_encrypted: post.key.is_some() })
}

fn report(context: &Context, topic: &ListedTopic, posted: &Posted) -> anyhow::Result<()> {
    let value = json!({
        "messageId": posted.id,
        "topic": topic.name,
        "topicId": topic.id,
        "encrypted": posted.is_encrypted,
        "replyToId": posted.reply_to,
        "mentions": posted.mentions,
    });
    let printed = context.output.data(&value, |_| format!("posted  {}  to #{}", posted.id, topic.name));
    if printed.is_err() {
        // Whoever believes that it failed posts it again.
        context.output.notice(&format!("The message is posted: {}.", posted.id));
    }
    printed?;
    if !posted.is_encrypted {
        context.output.notice(&format!("Not encrypted: #{} has no key, and the broker can read it.", topic.name));
    }
    Ok(())
}
