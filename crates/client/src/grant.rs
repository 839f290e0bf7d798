//! What we let others do to us.

use std::collections::BTreeSet;

use claudemesh_proto::frame::Empty;
use claudemesh_proto::grant::{Capability, GrantSet, Grants};
use claudemesh_proto::{BrokerFrame, ClientFrame, PublicKey};

use crate::connection::Connection;
use crate::error::{Error, Result};

impl Connection {
    /// Says all that the owner of a key may do to us; nothing blocks it, `None` goes back to what everybody may. All our grants as
    /// they are then.
    pub async fn set_grant(&self, key: &PublicKey, capabilities: Option<&BTreeSet<Capability>>) -> Result<Grants> {
        let words = capabilities.map(|capabilities| capabilities.iter().map(|one| one.as_str().to_owned()).collect());
        let grants = [(key.to_string(), words)].into();
        match self.request(ClientFrame::GrantSet(GrantSet { grants })).await? {
            BrokerFrame::GrantSetResponse(grants) => Ok(grants),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Our grants.
    pub async fn grants(&self) -> Result<Grants> {
        match self.request(ClientFrame::GrantList(Empty {})).await? {
            BrokerFrame::GrantListResponse(grants) => Ok(grants),
            other => Err(Error::unexpected(&other)),
        }
    }
}
