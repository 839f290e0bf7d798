//! `claudemesh topic …`: the verbs that ask and tell. Writing, reading and reading along have files of their own.

mod history;
mod key;
mod message;
mod post;
mod tail;

use clap::{Args, Subcommand};
use claudemesh_client::{Error, Line, NewTopic, Newcomer, Roster, key_prefix};
use claudemesh_proto::text::one_line;
use claudemesh_proto::topic::{ListedTopic, TopicMember};
use claudemesh_proto::{TopicName, TopicRole, Visibility};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;
use crate::table::table;

/// Conversations with a history, encrypted for those who are in them
#[derive(Debug, Args)]
#[command(
    after_help = "This program makes a topic's key itself, and those who hold it pass it on, sealed for each other. For a client that \
    cannot make one the broker does: it seals one copy, for that client, and forgets the key. Who joins can read, history included, \
    once somebody who holds the key runs topic tail, post or history.\n\n\
    Example: claudemesh topic post general 'the build is green, @ben'"
)]
pub(crate) struct Topic {
    #[command(subcommand)]
    pub(crate) what: TopicWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicWhat {
    Create(Create),
    /// List the topics that you may know of
    #[command(after_help = "JSON: {topics: [{id, name, description|null, visibility, memberCount, createdAt}]}")]
    List,
    Join(Join),
    /// Leave a topic
    #[command(after_help = "Example: claudemesh topic leave deploys\n\nJSON: {topic, topicId, status: \"left\"}")]
    Leave(Named),
    /// List who is in a topic
    #[command(
        after_help = "Example: claudemesh topic members deploys\n\nJSON: {topic, topicId, members: [{memberId, pubkey, \
        displayName, role, joinedAt, lastReadAt|null}]}"
    )]
    Members(Named),
    History(history::History),
    Post(post::WritePost),
    Tail(tail::ReadAlong),
    /// Say that you have read a topic
    #[command(
        after_help = "Others see it in topic members.\n\nExample: claudemesh topic read deploys\n\nJSON: {topic, topicId, status: \"read\"}"
    )]
    Read(Named),
    Add(Add),
    /// Accept another key of a topic than the one that was seen first
    #[command(
        after_help = "Which key a topic has is remembered on this machine when it is first seen, and another one is refused: the broker or \
        a member may have replaced it to read what you write. Ask the others before, by another way than this mesh, whether the key \
        was changed. With another key, what was written with the one before cannot be opened.\n\n\
        Example: claudemesh topic forget-key deploys\n\nJSON: {topic, status: \"forgotten\"}"
    )]
    ForgetKey(Named),
}

/// Make a topic
#[derive(Debug, Args)]
#[command(
    after_help = "Its key is made here: the broker never has it. You lead the topic. A public topic of that name that is there already \
    is joined instead.\n\nExample: claudemesh topic create deploys --about 'what goes out, and when'\n\n\
    JSON: {topic, topicId, visibility, created}"
)]
pub(crate) struct Create {
    /// 1-64 of a-z, 0-9, _ and -; capitals are made small, and a # before it is left out
    #[arg(value_parser = parse::topic_name)]
    pub(crate) name: TopicName,
    /// What it is about; not encrypted
    #[arg(long, value_name = "TEXT")]
    pub(crate) about: Option<String>,
    /// public: everybody may join; private and dm: one is added with topic add
    #[arg(long, default_value = "public", value_parser = parse::visibility)]
    pub(crate) visibility: Visibility,
}

/// Join a public topic
#[derive(Debug, Args)]
#[command(after_help = "Example: claudemesh topic join deploys\n\nJSON: {topic, topicId, status: \"joined\"}")]
pub(crate) struct Join {
    #[command(flatten)]
    pub(crate) topic: Named,
    /// As an observer, who reads along, and not as a member
    #[arg(long)]
    pub(crate) observe: bool,
}

/// Add somebody to a topic that you lead, or as an admin
#[derive(Debug, Args)]
#[command(after_help = "When you hold the topic's key it is shared with whom you add at once.\n\n\
    Example: claudemesh topic add deploys ben\n\nJSON: {topic, topicId, memberId, role, keyShared}")]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) topic: Named,
    /// A member's name or key, or the first 12 characters of the key or more
    pub(crate) who: String,
    /// lead, member or observer [default: member, or what it is already]
    #[arg(long, value_parser = parse::topic_role)]
    pub(crate) role: Option<TopicRole>,
}

/// Which topic.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name, with or without #, or its id
    #[arg(value_name = "TOPIC", value_parser = parse::topic)]
    pub(crate) topic: String,
}

pub(crate) async fn run(context: &Context, asked: Topic) -> anyhow::Result<()> {
    match asked.what {
        TopicWhat::Create(asked) => create(context, asked).await,
        TopicWhat::List => list(context).await,
        TopicWhat::Join(asked) => join(context, &asked).await,
        TopicWhat::Leave(asked) => leave(context, &asked).await,
        TopicWhat::Members(asked) => members(context, &asked).await,
        TopicWhat::History(asked) => history::run(context, &asked).await,
        TopicWhat::Post(asked) => post::run(context, &asked).await,
        TopicWhat::Tail(asked) => tail::run(context, &asked).await,
        TopicWhat::Read(asked) => read(context, &asked).await,
        TopicWhat::Add(asked) => add(context, &asked).await,
        TopicWhat::ForgetKey(asked) => forget_key(context, &asked),
    }
}

async fn create(context: &Context, asked: Create) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let Create { name, about, visibility } = asked;
    let made = context.on_line(&mesh, async |line| {
        let new = NewTopic { name: &name, description: about.as_deref(), visibility };
        Ok(line.connection().create_topic(&context.home, &mesh, new).await?)
    });
    let made = made.await?;
    let (topic, created) = (made.topic, made.created);
    let value = json!({ "topic": topic.name, "topicId": topic.id, "visibility": topic.visibility, "created": created });
    context.output.data(&value, |_| match (created, topic.visibility) {
        (false, _) => format!("#{} was there already; you are in it.", topic.name),
        (true, Visibility::Public) => format!("#{} is made; you lead it.", topic.name),
        (true, _) => {
            format!("#{} is made; you lead it. Add others: claudemesh topic add {} NAME", topic.name, topic.name)
        }
    })
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let topics = context.on_line(&mesh, async |line| Ok(line.connection().topics().await?)).await?;
    context.output.data(&json!({ "topics": topics }), |output| {
        let row = |topic: &ListedTopic| {
            vec![
                format!("#{}", topic.name),
                topic.visibility.as_str().into(),
                topic.member_count.to_string(),
                topic.description.as_deref().map(one_line).unwrap_or_default(),
            ]
        };
        table(output, &["TOPIC", "VISIBILITY", "MEMBERS", "ABOUT"], &topics.iter().map(row).collect::<Vec<_>>())
    })?;
    if topics.is_empty() {
        context.output.notice("There is no topic yet. Make one: claudemesh topic create NAME");
    }
    Ok(())
}

async fn join(context: &Context, asked: &Join) -> anyhow::Result<()> {
    let role = if asked.observe { TopicRole::Observer } else { TopicRole::Member };
    let topic = on_topic(context, &asked.topic, async |line, topic| {
        Ok(line.connection().join_topic(topic.id.as_str(), Some(role)).await?)
    });
    let (topic, ()) = topic.await?;
    let value = json!({ "topic": topic.name, "topicId": topic.id, "status": "joined" });
    context
        .output
        .data(&value, |_| format!("You are in #{} now. Read it: claudemesh topic history {}", topic.name, topic.name))
}

async fn leave(context: &Context, asked: &Named) -> anyhow::Result<()> {
    let left =
        on_topic(context, asked, async |line, topic| Ok(line.connection().leave_topic(topic.id.as_str()).await?));
    let (topic, ()) = left.await?;
    let value = json!({ "topic": topic.name, "topicId": topic.id, "status": "left" });
    context.output.data(&value, |_| format!("You are in #{} no more.", topic.name))
}

async fn read(context: &Context, asked: &Named) -> anyhow::Result<()> {
    let read =
        on_topic(context, asked, async |line, topic| Ok(line.connection().mark_topic_read(topic.id.as_str()).await?));
    let (topic, ()) = read.await?;
    let value = json!({ "topic": topic.name, "topicId": topic.id, "status": "read" });
    context.output.data(&value, |_| format!("#{} is read.", topic.name))
}

async fn members(context: &Context, asked: &Named) -> anyhow::Result<()> {
    let found =
        on_topic(context, asked, async |line, topic| Ok(line.connection().topic_members(topic.id.as_str()).await?));
    let (topic, members) = found.await?;
    let value = json!({ "topic": topic.name, "topicId": topic.id, "members": members });
    context.output.data(&value, |output| {
        let row = |member: &TopicMember| {
            let read = member.last_read_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            let (name, key) = (member.display_name.to_string(), key_prefix(&member.pubkey));
            vec![name, member.role.as_str().into(), key, member.joined_at.to_string(), read]
        };
        let rows: Vec<_> = members.iter().map(row).collect();
        table(output, &["NAME", "ROLE", "KEY", "SINCE", "HAS READ"], &rows)
    })
}

async fn add(context: &Context, asked: &Add) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let added = on_topic(context, &asked.topic, async |line, topic| {
        let roster = Roster::fetch(line.connection()).await?;
        let whom = roster.resolve_member(&asked.who)?;
        let member = roster.members.iter().find(|member| member.pubkey == whom.key);
        let nobody = || Failure { exit: Exit::NotFound, text: format!("{whom} is no member of this mesh") };
        let member = member.ok_or_else(nobody)?;
        let role = line.connection().add_topic_member(topic.id.as_str(), &member.member_id, asked.role).await?;
        let shared = key::share(context, line, (&mesh, topic)).await;
        let is_of_them = |shared: &Vec<Newcomer>| shared.iter().any(|one| one.pubkey == member.pubkey);
        let is_shared = shared.as_ref().is_ok_and(is_of_them);
        Ok((whom, member.member_id.clone(), role, is_shared, shared.err()))
    });
    let (topic, (whom, member_id, role, is_shared, failure)) = added.await?;
    let value = json!({
        "topic": topic.name, "topicId": topic.id, "memberId": member_id, "role": role, "keyShared": is_shared,
    });
    context.output.data(&value, |_| {
        let key = if is_shared { "; the topic's key was shared" } else { "" };
        format!("{whom} is in #{} now, as {}{key}.", topic.name, role.as_str())
    })?;
    // Who is added is in it whether the key could be shared or not, but a key that is not what it was is no small matter.
    match failure {
        Some(failure) if matches!(failure.downcast_ref(), Some(Error::TopicKeyChanged { .. })) => Err(failure),
        _ => Ok(()),
    }
}

fn forget_key(context: &Context, asked: &Named) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    if !context.home.forget_topic_key(&mesh.mesh_id, &asked.topic)? {
        let text = format!("no key of a topic \"{}\" is remembered here", one_line(&asked.topic));
        return Err(Failure { exit: Exit::NotFound, text }.into());
    }
    context.output.data(&json!({ "topic": asked.topic, "status": "forgotten" }), |_| {
        format!("The key of #{} is forgotten: the next one that comes is believed.", one_line(&asked.topic))
    })
}

/// Does something with the topic that was named.
async fn on_topic<T>(
    context: &Context,
    named: &Named,
    talk: impl AsyncFnOnce(&mut Line, &ListedTopic) -> anyhow::Result<T>,
) -> anyhow::Result<(ListedTopic, T)> {
    let mesh = context.mesh()?;
    context
        .on_line_of_topics(&mesh, async |line| {
            let topic = find(&line.connection().topics().await?, &named.topic)?;
            let outcome = talk(line, &topic).await?;
            Ok((topic, outcome))
        })
        .await
}

/// The topic with this id, else the one with this name.
fn find(topics: &[ListedTopic], named: &str) -> anyhow::Result<ListedTopic> {
    let name: Option<TopicName> = named.parse().ok();
    let by_id = topics.iter().position(|topic| topic.id.as_str() == named);
    let place = by_id.or_else(|| topics.iter().position(|topic| Some(&topic.name) == name.as_ref()));
    if let Some(topic) = place.and_then(|place| topics.get(place)) {
        return Ok(topic.clone());
    }
    let mut known: Vec<_> = topics.iter().take(NAMED).map(|topic| format!("#{}", topic.name)).collect();
    if topics.len() > NAMED {
        known.push(format!("and {} more", topics.len() - NAMED));
    }
    let known =
        if known.is_empty() { "there is none yet".to_owned() } else { format!("there are: {}", known.join(", ")) };
    let text = format!("no topic \"{}\" that you may know of; {known}\ntry: {CREATE}", one_line(named));
    Err(Failure { exit: Exit::NotFound, text }.into())
}

const CREATE: &str = "claudemesh topic create NAME makes one; to a private one somebody who leads it adds you";

/// Topics that a refusal names.
const NAMED: usize = 20;
