//! The mesh's audit log. For admins.

use std::time::Duration;

use claudemesh_proto::audit::{AuditQuery, AuditResult, AuditVerifyResult};
use claudemesh_proto::frame::Empty;
use claudemesh_proto::{BrokerFrame, ClientFrame};

use crate::connection::Connection;
use crate::error::{Error, Result};

/// A broker hashes the whole log, which may have millions of entries.
const VERIFY_TIMEOUT: Duration = Duration::from_mins(10);

impl Connection {
    /// Entries, newest first.
    pub async fn audit_entries(&self, query: AuditQuery) -> Result<AuditResult> {
        match self.request(ClientFrame::AuditQuery(query)).await? {
            BrokerFrame::AuditResult(result) => Ok(result),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Has the broker verify the whole log.
    pub async fn verify_audit_log(&self) -> Result<AuditVerifyResult> {
        match self.request_within(ClientFrame::AuditVerify(Empty {}), VERIFY_TIMEOUT).await? {
            BrokerFrame::AuditVerifyResult(result) => Ok(result),
            other => Err(Error::unexpected(&other)),
        }
    }
}
