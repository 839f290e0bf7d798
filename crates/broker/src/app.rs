//! The one handle that everything shares.

use std::sync::Arc;

use claudemesh_store::{Clock, Store};

use crate::config::MeshCreation;
use crate::edge::limit::Limits;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::token::SetupToken;

/// What a running broker is made of.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    /// Signs where audit logs stand.
    pub(crate) notary: Notary,
    /// Who joins or makes a mesh waits here, and one at a time goes on to the database: anybody may come, any number of them, and
    /// messages wait for no more than one.
    pub(crate) door: tokio::sync::Mutex<()>,
    pub(crate) settings: Settings,
}

/// The configuration as the parts need it, worked out once.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: crate::Config,
    pub(crate) mesh_creation: MeshCreation,
    pub(crate) setup_token: SetupToken,
    /// Without a slash at its end.
    pub(crate) public_url: String,
    pub(crate) started_at: std::time::Instant,
    pub(crate) git_sha: String,
}
