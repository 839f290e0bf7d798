//! What every verb needs.

use claudemesh_client::{Config, Dial, Home, Line, Membership};
use claudemesh_proto::hello::QUIET;

use crate::args::OneMesh;
use crate::output::Output;

/// The user's files and where to print.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(json: bool) -> anyhow::Result<Self> {
        Ok(Self { home: Home::from_env()?, output: Output::new(json) })
    }

    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Ok(self.home.config()?)
    }

    /// The mesh that was named, or the only one.
    pub(crate) fn mesh(&self, of: &OneMesh) -> anyhow::Result<Membership> {
        Ok(self.config()?.mesh(of.mesh.as_deref())?.clone())
    }

    /// A connection for asking and sending, which takes no mail.
    pub(crate) async fn line(&self, mesh: &Membership) -> anyhow::Result<Line> {
        Ok(Line::open(Dial::member(mesh, QUIET)?).await?)
    }
}
