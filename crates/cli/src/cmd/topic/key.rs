//! The key of a topic, for one command.

use claudemesh_client::{Bearer, Error, Held, Line, Membership, Newcomer, TopicKey, TopicPin};
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::topic::ListedTopic;

use crate::bearer::{Errand, with_bearer};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// An errand about one topic.
pub(super) fn errand<'a>(topic: &'a ListedTopic, purpose: &'a str) -> Errand<'a> {
    Errand { purpose, capabilities: &[Capability::Read, Capability::Send], topic: Some(&topic.name) }
}

/// What a topic's key is remembered by.
pub(super) fn pin<'a>(context: &'a Context, mesh: &'a Membership, topic: &'a ListedTopic) -> TopicPin<'a> {
    TopicPin { home: &context.home, mesh, id: &topic.id, name: &topic.name }
}

/// The key.
///
/// # Errors
/// When there is none, or nobody has shared it with us: then nothing can be read or written there.
pub(super) fn held(context: &Context, topic: &ListedTopic, held: Held) -> anyhow::Result<TopicKey> {
    match held {
        Held::Key { key, is_new } => {
            if is_new {
                context.output.notice(&format!("#{} had no key; it has one now, made here.", topic.name));
            }
            Ok(key)
        }
        Held::None => Err(Error::NoTopicKey { topic: topic.name.clone() }.into()),
        Held::Awaited { was_bad } => Err(awaited(topic, was_bad).into()),
    }
}

/// Makes sure that a topic has no key: where there is one, nothing is written in clear.
pub(super) async fn is_none(bearer: &Bearer, pin: TopicPin<'_>) -> anyhow::Result<()> {
    match bearer.topic_key(pin).await? {
        Held::None => Ok(()),
        Held::Key { .. } | Held::Awaited { .. } => {
            let text =
                format!("#{} is encrypted: nothing is written there in clear\ntry: leave out --plaintext", pin.name);
            Err(Failure { exit: Exit::NotPermitted, text }.into())
        }
    }
}

pub(super) fn awaited(topic: &ListedTopic, was_bad: bool) -> Failure {
    let why = if was_bad {
        "the copy of the topic's key that was sealed for you could not be opened, and was given back"
    } else {
        "nobody has shared the topic's key with you yet"
    };
    let text = format!(
        "#{name} is encrypted, and {why}\ntry: ask somebody who reads it to run claudemesh topic tail {name} for a moment; \
         claudemesh topic tail {name} waits for it here",
        name = topic.name
    );
    Failure { exit: Exit::NotPermitted, text }
}

/// Shares the topic's key with everybody in it who waits for it, if we hold it.
pub(super) async fn share(
    context: &Context,
    line: &mut Line,
    (mesh, topic): (&Membership, &ListedTopic),
) -> anyhow::Result<Vec<Newcomer>> {
    with_bearer(line, mesh, errand(topic, "topic-add"), async |_, bearer| {
        match bearer.topic_key(pin(context, mesh, topic)).await? {
            Held::Key { key, .. } => Ok(bearer.share_topic_key(&mesh.identity, &topic.name, &key).await?),
            Held::Awaited { .. } | Held::None => Ok(Vec::new()),
        }
    })
    .await
}

/// Shares the key on the way. What was asked for is done whether this works or not.
pub(super) async fn share_on_the_way(
    context: &Context,
    (bearer, key): (&Bearer, &TopicKey),
    (mesh, topic): (&Membership, &ListedTopic),
) -> Result<(), Error> {
    let shared = bearer.share_topic_key(&mesh.identity, &topic.name, key).await?;
    if !shared.is_empty() {
        let mut names: Vec<_> = shared.iter().take(NAMED).map(|one| one.name.clone()).collect();
        if shared.len() > NAMED {
            names.push(format!("{} more", shared.len() - NAMED));
        }
        context.output.notice(&format!("The key of #{} was shared with {}.", topic.name, names.join(", ")));
    }
    Ok(())
}

/// Newcomers that are named; a topic may have a thousand members.
const NAMED: usize = 10;
