//! Who is here, and what we say of ourselves.
//!
//! A connection that names a session's id speaks for that session; without a session of that id, for all of its member.

use claudemesh_proto::frame::Empty;
use claudemesh_proto::presence::{Peer, SetStatus, SetSummary, SetVisible, StatusSource};
use claudemesh_proto::{BrokerFrame, ClientFrame, Status};

use crate::connection::Connection;
use crate::error::{Error, Result};

impl Connection {
    /// Every presence of the mesh that we may see, our own included.
    pub async fn peers(&self) -> Result<Vec<Peer>> {
        match self.request(ClientFrame::ListPeers(Empty {})).await? {
            BrokerFrame::PeersList(list) => Ok(list.peers),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Says how busy we are, and whether that is somebody's word or was inferred from a transcript.
    pub async fn set_status(&self, status: Status, source: StatusSource) -> Result<()> {
        let source = (source == StatusSource::Jsonl).then(|| "jsonl".to_owned());
        self.tell(ClientFrame::SetStatus(SetStatus { status: status.as_str().to_owned(), source })).await
    }

    /// Says what we work on; nothing, when it is empty.
    pub async fn set_summary(&self, summary: String) -> Result<()> {
        self.tell(ClientFrame::SetSummary(SetSummary { summary })).await
    }

    /// Shows us to others or hides us from them.
    pub async fn set_visible(&self, visible: bool) -> Result<()> {
        self.tell(ClientFrame::SetVisible(SetVisible { visible })).await
    }
}
