//! Topics: making them, who is in them, and what was written there.

use std::borrow::Cow;

use claudemesh_proto::limits::{HISTORY_PAGE, MAX_DESCRIPTION_CHARS};
use claudemesh_proto::text::one_line;
use claudemesh_proto::topic::{
    BadTopicName, BadTopicRole, BadVisibility, MadeTopic, OfTopic, TopicAddMember, TopicCreate, TopicCreated,
    TopicHistory, TopicHistoryResponse, TopicJoin, TopicListResponse, TopicMemberAdded, TopicMembersResponse,
};
use claudemesh_proto::{BrokerFrame, ErrorCode, MemberId, MeshId, TopicName, TopicRole, TopicSought, Visibility};
use claudemesh_store::{Closed, HistoryPage, NewTopic, OwnCopy, TopicJoined, TopicMade, TopicMemberPut};

use crate::app::App;
use crate::calls::{Live, topic_key, weight};
use crate::fault::Fault;

/// Makes a topic, led by the caller, or lets the caller into the public one of that name.
pub(crate) async fn create(app: &App, live: &Live, request: TopicCreate) -> Result<BrokerFrame, Fault> {
    let asked = parse(request)?;
    let made = if app.limits.may_make_topic(&live.mesh_id, &live.member_id, app.clock.now()) {
        let made = make(app, live, asked).await;
        // That there is a topic that one may not know of is not told for nothing.
        if !matches!(made, Ok(TopicMade::Made(_) | TopicMade::NotOpen)) {
            app.limits.made_no_topic(&live.mesh_id, &live.member_id);
        }
        made?
    } else {
        let rate = app.settings.config.topic_rate_per_hour;
        let too_many = || Fault::new(ErrorCode::RateLimit, format!("max {rate} new topics/hour, slow down"));
        let found = app.store.find_topic(caller(live), &asked.name).await?;
        found.filter(|found| *found != TopicMade::NotOpen).ok_or_else(too_many)?
    };
    let (topic, created) = match made {
        TopicMade::Made(topic) => (topic, true),
        TopicMade::Found(topic) => (topic, false),
        TopicMade::NotOpen => return Err(forbidden("there is a topic of this name that is joined by being added")),
        TopicMade::Archived => return Err(Fault::invalid("name is that of an archived topic")),
        TopicMade::NoMember => return Err(forbidden("you are no member of this mesh any more")),
    };
    let topic = MadeTopic { id: topic.id, name: topic.name, visibility: topic.visibility };
    Ok(BrokerFrame::TopicCreated(TopicCreated { topic, created }))
}

/// The topics that the caller may know of.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    let topics = weight::topics(app.store.topics(&live.mesh_id, &live.member_id).await?);
    Ok(BrokerFrame::TopicListResponse(TopicListResponse { topics }))
}

/// Puts the caller into a public topic.
pub(crate) async fn join(app: &App, live: &Live, request: &TopicJoin) -> Result<(), Fault> {
    let role = role(request.role.as_deref())?.unwrap_or_default();
    match app.store.join_topic(caller(live), &TopicSought::new(&request.topic), role).await? {
        TopicJoined::Done => Ok(()),
        TopicJoined::NotFound => Err(not_found(&request.topic)),
        TopicJoined::NotOpen => Err(forbidden("this topic is joined by being added")),
        TopicJoined::NoLead => Err(forbidden("nobody makes oneself the lead of a topic")),
    }
}

/// Takes the caller out of a topic.
pub(crate) async fn leave(app: &App, live: &Live, request: &OfTopic) -> Result<(), Fault> {
    let left = app.store.leave_topic(caller(live), &TopicSought::new(&request.topic)).await?;
    let topic_id = left.ok_or_else(|| not_found(&request.topic))?;
    app.hub.streams.end_of_member(&live.mesh_id, &live.member_id, Some(&topic_id));
    Ok(())
}

/// Puts somebody into a topic (R7).
pub(crate) async fn add_member(app: &App, live: &Live, request: TopicAddMember) -> Result<BrokerFrame, Fault> {
    let role = role(request.role.as_deref())?;
    let no_member = || Fault::new(ErrorCode::NotFound, "member not found");
    let member_id: MemberId = request.member_id.parse().map_err(|_| no_member())?;
    let sought = TopicSought::new(&request.topic);
    match app.store.add_topic_member(caller(live), &sought, (&member_id, role)).await? {
        TopicMemberPut::Done(role) => {
            let added = TopicMemberAdded { topic: request.topic, member_id, role };
            Ok(BrokerFrame::TopicMemberAdded(added))
        }
        TopicMemberPut::NotFound => Err(not_found(&request.topic)),
        TopicMemberPut::Forbidden => Err(forbidden("only a lead of the topic or an admin can add somebody")),
        TopicMemberPut::NoMember => Err(no_member()),
    }
}

/// Who is in a topic.
pub(crate) async fn members(app: &App, live: &Live, request: OfTopic) -> Result<BrokerFrame, Fault> {
    let members = app.store.topic_members(caller(live), &TopicSought::new(&request.topic)).await?;
    let members = members.map_err(|closed| shut(closed, &request.topic))?;
    Ok(BrokerFrame::TopicMembersResponse(TopicMembersResponse { topic: request.topic, members }))
}

/// What was written in a topic.
pub(crate) async fn history(app: &App, live: &Live, request: TopicHistory) -> Result<BrokerFrame, Fault> {
    let limit = request.limit.unwrap_or(HISTORY_PAGE);
    let page = HistoryPage { before: request.before_id.as_deref(), limit };
    let page = app.store.topic_history(caller(live), &TopicSought::new(&request.topic), page).await?;
    let (_, messages) = page.map_err(|closed| shut(closed, &request.topic))?;
    let messages = messages.unwrap_or_default();
    Ok(BrokerFrame::TopicHistoryResponse(TopicHistoryResponse { topic: request.topic, messages }))
}

/// Remembers that the caller has read a topic.
pub(crate) async fn mark_read(app: &App, live: &Live, request: &OfTopic) -> Result<(), Fault> {
    let read = app.store.mark_topic_read(caller(live), &TopicSought::new(&request.topic)).await?;
    read.map(drop).map_err(|closed| shut(closed, &request.topic))
}

/// What a `topic_create` asks for.
#[derive(Debug)]
struct Asked {
    name: TopicName,
    description: Option<String>,
    visibility: Visibility,
    /// The key that the client made.
    key: Option<OwnCopy>,
}

fn parse(request: TopicCreate) -> Result<Asked, Fault> {
    let name = request.name.parse().map_err(|why: BadTopicName| Fault::invalid(format!("name {why}")))?;
    let visibility = request.visibility.as_deref().map(str::parse).transpose();
    let visibility = visibility.map_err(|why: BadVisibility| Fault::invalid(format!("visibility {why}")))?;
    let description = request.description.as_deref().map(one_line).filter(|text| !text.is_empty());
    if description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS) {
        return Err(Fault::invalid(format!("description must be {MAX_DESCRIPTION_CHARS} characters at most")));
    }
    let TopicCreate { encrypted_key_pubkey, encrypted_key, nonce, .. } = request;
    let key = match (encrypted_key_pubkey, encrypted_key, nonce) {
        (None, None, None) => None,
        (pubkey, key, nonce) => {
            let [pubkey, key, nonce] = [pubkey, key, nonce].map(Option::unwrap_or_default);
            Some(topic_key::own_copy(&pubkey, &key, &nonce).map_err(|bad| Fault::invalid(bad.to_string()))?)
        }
    };
    Ok(Asked { name, description, visibility: visibility.unwrap_or_default(), key })
}

async fn make(app: &App, live: &Live, asked: Asked) -> Result<TopicMade, Fault> {
    let Asked { name, description, visibility, key } = asked;
    // A key of ours is sealed, and gone, before anything is waited for.
    let key = key.map_or_else(|| topic_key::make_for(&live.member_pubkey), Ok)?;
    let new = NewTopic { name, description, visibility, key };
    Ok(app.store.create_topic(caller(live), &new).await?)
}

fn caller(live: &Live) -> (&MeshId, &MemberId) {
    (&live.mesh_id, &live.member_id)
}

fn role(text: Option<&str>) -> Result<Option<TopicRole>, Fault> {
    text.map(|text| text.parse().map_err(|why: BadTopicRole| Fault::invalid(format!("role {why}")))).transpose()
}

fn shut(closed: Closed, topic: &str) -> Fault {
    match closed {
        Closed::NotFound => not_found(topic),
        Closed::NotIn => forbidden("you are not in this topic"),
    }
}

fn not_found(topic: &str) -> Fault {
    let shown: String = one_line(topic).chars().take(64).collect();
    Fault::new(ErrorCode::TopicNotFound, format!("topic \"{shown}\" not found"))
}

fn forbidden(message: impl Into<Cow<'static, str>>) -> Fault {
    Fault::new(ErrorCode::Forbidden, message)
}
