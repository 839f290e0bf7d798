//! Who belongs to the mesh.

use claudemesh_proto::frame::Empty;
use claudemesh_proto::member::Member;
use claudemesh_proto::{BrokerFrame, ClientFrame};

use crate::connection::Connection;
use crate::error::{Error, Result};

impl Connection {
    /// Every member, by the time of joining.
    pub async fn members(&self) -> Result<Vec<Member>> {
        match self.request(ClientFrame::MemberList(Empty {})).await? {
            BrokerFrame::MemberListResponse(list) => Ok(list.members),
            other => Err(Error::unexpected(&other)),
        }
    }
}
