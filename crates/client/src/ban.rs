//! Sending connections and members away. For admins.

use claudemesh_proto::ban::{Ban, BanTarget, SendAway, SentAway};
use claudemesh_proto::frame::Empty;
use claudemesh_proto::{BrokerFrame, ClientFrame, DisplayName};

use crate::connection::Connection;
use crate::error::{Error, Result};

impl Connection {
    /// Closes connections of sessions, which are refused for a minute then.
    pub async fn kick(&self, whom: SendAway) -> Result<SentAway> {
        match self.request(ClientFrame::Kick(whom)).await? {
            BrokerFrame::KickAck(sent_away) => Ok(sent_away),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Closes connections, which may come back.
    pub async fn disconnect(&self, whom: SendAway) -> Result<SentAway> {
        match self.request(ClientFrame::Disconnect(whom)).await? {
            BrokerFrame::DisconnectAck(sent_away) => Ok(sent_away),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Removes a member; its name.
    pub async fn ban(&self, target: &str) -> Result<DisplayName> {
        match self.request(ClientFrame::Ban(named(target))).await? {
            BrokerFrame::BanAck(ack) => Ok(ack.banned),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Takes a removed member back; its name.
    pub async fn unban(&self, target: &str) -> Result<DisplayName> {
        match self.request(ClientFrame::Unban(named(target))).await? {
            BrokerFrame::UnbanAck(ack) => Ok(ack.unbanned),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// The removed members, by the time of their removal.
    pub async fn bans(&self) -> Result<Vec<Ban>> {
        match self.request(ClientFrame::ListBans(Empty {})).await? {
            BrokerFrame::ListBansResult(list) => Ok(list.bans),
            other => Err(Error::unexpected(&other)),
        }
    }
}

fn named(target: &str) -> BanTarget {
    BanTarget { target: Some(target.to_owned()), reason: None }
}
