//! Topics: making them, who is in them, what was written there. A topic is named by its id or its name.

use claudemesh_envelope::{TopicKey, pass_topic_key};
use claudemesh_proto::frame::Empty;
use claudemesh_proto::topic::{
    ListedTopic, OfTopic, TopicAddMember, TopicCreate, TopicCreated, TopicHistory, TopicJoin, TopicMember, TopicMessage,
};
use claudemesh_proto::{BrokerFrame, ClientFrame, MemberId, MessageId, TopicName, TopicRole, Visibility};

use crate::config::Membership;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::topic_key::unsealable;
use crate::topic_pin::TopicPin;

/// A topic that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewTopic<'a> {
    /// Its name.
    pub name: &'a TopicName,
    /// What it is about.
    pub description: Option<&'a str>,
    /// Whom it is open to.
    pub visibility: Visibility,
}

impl Connection {
    /// Makes a topic, or finds the public one of that name. Its key is made here and known to nobody else: the broker gets our own
    /// sealed copy. It is not kept, because the copy is there to be opened again; which one it is is remembered.
    pub async fn create_topic(&self, home: &Home, mesh: &Membership, new: NewTopic<'_>) -> Result<TopicCreated> {
        let (own, key) = (&mesh.identity, TopicKey::generate()?);
        let copy = pass_topic_key(own, &key, &own.public()).map_err(unsealable)?;
        let create = TopicCreate {
            name: new.name.to_string(),
            description: new.description.map(Into::into),
            visibility: Some(new.visibility.as_str().into()),
            encrypted_key_pubkey: Some(copy.sender.to_string()),
            encrypted_key: Some(copy.encrypted_key_base64()),
            nonce: Some(copy.nonce_base64()),
        };
        let made = match self.request(ClientFrame::TopicCreate(create)).await? {
            BrokerFrame::TopicCreated(made) => made,
            other => return Err(Error::unexpected(&other)),
        };
        if made.created {
            TopicPin { home, mesh, id: &made.topic.id, name: new.name }.check(&key)?;
        }
        Ok(made)
    }

    /// The topics that we may know of, by name.
    pub async fn topics(&self) -> Result<Vec<ListedTopic>> {
        match self.request(ClientFrame::TopicList(Empty {})).await? {
            BrokerFrame::TopicListResponse(list) => Ok(list.topics),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Joins a public topic. Who is in it already stays what it is.
    pub async fn join_topic(&self, topic: &str, role: Option<TopicRole>) -> Result<()> {
        let role = role.map(|role| role.as_str().to_owned());
        self.tell(ClientFrame::TopicJoin(TopicJoin { topic: topic.to_string(), role })).await
    }

    /// Leaves a topic.
    pub async fn leave_topic(&self, topic: &str) -> Result<()> {
        self.tell(ClientFrame::TopicLeave(of(topic))).await
    }

    /// Adds somebody to a topic that we lead, or as an admin. What it is there then.
    pub async fn add_topic_member(&self, topic: &str, member: &MemberId, role: Option<TopicRole>) -> Result<TopicRole> {
        let role = role.map(|role| role.as_str().to_owned());
        let add = TopicAddMember { topic: topic.to_string(), member_id: member.to_string(), role };
        match self.request(ClientFrame::TopicAddMember(add)).await? {
            BrokerFrame::TopicMemberAdded(added) => Ok(added.role),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Who is in a topic, by name.
    pub async fn topic_members(&self, topic: &str) -> Result<Vec<TopicMember>> {
        match self.request(ClientFrame::TopicMembers(of(topic))).await? {
            BrokerFrame::TopicMembersResponse(list) => Ok(list.members),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Messages of a topic before another, newest first; 200 at most.
    pub async fn topic_history(
        &self,
        topic: &str,
        limit: i64,
        before: Option<&MessageId>,
    ) -> Result<Vec<TopicMessage>> {
        let before_id = before.map(ToString::to_string);
        let asked = TopicHistory { topic: topic.to_string(), limit: Some(limit), before_id };
        match self.request(ClientFrame::TopicHistory(asked)).await? {
            BrokerFrame::TopicHistoryResponse(page) => Ok(page.messages),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Says that we have read a topic.
    pub async fn mark_topic_read(&self, topic: &str) -> Result<()> {
        self.tell(ClientFrame::TopicMarkRead(of(topic))).await
    }
}

fn of(topic: &str) -> OfTopic {
    OfTopic { topic: topic.to_string() }
}
