//! The groups that we are in.

use claudemesh_proto::group::{JoinGroup, LeaveGroup};
use claudemesh_proto::{ClientFrame, GroupName};

use crate::connection::Connection;
use crate::error::Result;

impl Connection {
    /// Joins a group, or changes the role in it; for all of the member's connections.
    pub async fn join_group(&self, name: &GroupName, role: Option<&str>) -> Result<()> {
        let join = JoinGroup { name: name.to_string(), role: role.map(Into::into) };
        self.tell(ClientFrame::JoinGroup(join)).await
    }

    /// Leaves a group.
    pub async fn leave_group(&self, name: &GroupName) -> Result<()> {
        self.tell(ClientFrame::LeaveGroup(LeaveGroup { name: name.to_string() })).await
    }
}
