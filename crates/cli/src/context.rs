//! What every verb needs.

use std::env;

use claudemesh_client::{Config, Dial, Home, Line, Membership};
use claudemesh_proto::hello::QUIET;

use crate::output::Output;

/// The user's files and where to print.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) output: Output,
    /// What `--mesh` says.
    pub(crate) wanted: Option<String>,
}

impl Context {
    pub(crate) fn new(json: bool, wanted: Option<String>) -> anyhow::Result<Self> {
        Ok(Self { home: Home::from_env()?, output: Output::new(json), wanted })
    }

    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Ok(self.home.config()?)
    }

    /// The mesh that was named, or the only one.
    pub(crate) fn mesh(&self) -> anyhow::Result<Membership> {
        Ok(self.config()?.mesh(self.wanted.as_deref())?.clone())
    }

    /// Asks and sends on a connection that takes no mail. It says goodbye also after a failure: to others, who goes without a
    /// word is still here for as long as the broker waits for a broken connection to come back.
    pub(crate) async fn on_line<T>(
        &self,
        mesh: &Membership,
        talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        Self::on(Dial::member(mesh, QUIET)?, talk).await
    }

    /// The same in the name of the session that this command runs in, where there is one: what is said is said of that session,
    /// else of all that its member has here.
    pub(crate) async fn on_line_of_session<T>(
        &self,
        mesh: &Membership,
        talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut dial = Dial::member(mesh, QUIET)?;
        if let Some(session) = env::var("CLAUDEMESH_SESSION_ID").ok().filter(|id| !id.is_empty()) {
            dial.place.session_id = session;
        }
        Self::on(dial, talk).await
    }

    async fn on<T>(dial: Dial, talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut line = Line::open(dial).await?;
        let outcome = talk(&mut line).await;
        line.close().await;
        outcome
    }
}
