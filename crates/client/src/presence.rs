//! Who is here.

use claudemesh_proto::frame::Empty;
use claudemesh_proto::presence::Peer;
use claudemesh_proto::{BrokerFrame, ClientFrame};

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
}
