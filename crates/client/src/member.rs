//! Who belongs to the mesh.

use claudemesh_proto::frame::Empty;
use claudemesh_proto::member::{Member, MemberUpdate};
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

    /// Changes what is known of a member: us, or anybody else when we are an admin. The member as it is then.
    pub async fn update_member(&self, update: MemberUpdate) -> Result<Member> {
        match self.request(ClientFrame::MemberUpdate(update)).await? {
            BrokerFrame::MemberUpdated(updated) => Ok(updated.member),
            other => Err(Error::unexpected(&other)),
        }
    }
}
