//! What every verb needs.

use std::env;

use claudemesh_client::{Config, Connection, Dial, Home, Line, Membership, Said};
use claudemesh_proto::hello::{QUIET, TOPICS};
use claudemesh_proto::presence::Peer;

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

    /// The same by a client that knows what topics are: it is trusted not to write in clear where there is a key.
    pub(crate) async fn on_line_of_topics<T>(
        &self,
        mesh: &Membership,
        talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut dial = Dial::member(mesh, QUIET)?;
        dial.place.capabilities.get_or_insert_default().push(TOPICS.into());
        Self::on(dial, talk).await
    }

    /// The same in the name of the session that this command runs in, where there is one: what is said is said of that session,
    /// else of all that its member has here.
    pub(crate) async fn on_line_of_session<T>(
        &self,
        mesh: &Membership,
        talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut dial = Dial::member(mesh, QUIET)?;
        if let Some(session) = session() {
            dial.place.session_id = session;
        }
        Self::on(dial, talk).await
    }

    /// Says something on such a line, and keeps it for whoever listens later when it is a person's word: what a command says in
    /// the name of a session is that session's alone. What there is to tell when nobody is here of whom it is said.
    pub(crate) async fn say_of_oneself(
        &self,
        mesh: &Membership,
        keep: Option<&dyn Fn(&mut Said)>,
        say: impl AsyncFnOnce(&Connection) -> claudemesh_client::Result<()>,
    ) -> anyhow::Result<Option<&'static str>> {
        let keep = keep.filter(|_| session().is_none());
        let said = async |line: &mut Line| {
            if let Some(keep) = keep {
                self.home.keep_said(&mesh.mesh_id, keep)?;
            }
            say(line.connection()).await?;
            let own = mesh.identity.public();
            let ours = |peers: Vec<Peer>| peers.iter().filter(|peer| peer.member_pubkey == own).count();
            // It is said whether this can be found out or not. One of ours is this command.
            Ok(line.connection().peers().await.map_or(2, ours) > 1)
        };
        let is_heard = self.on_line_of_session(mesh, said).await?;
        Ok((!is_heard).then_some(if keep.is_some() { SAID_LATER } else { SAID_TO_NOBODY }))
    }

    async fn on<T>(dial: Dial, talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut line = Line::open(dial).await?;
        let outcome = talk(&mut line).await;
        line.close().await;
        outcome
    }
}

/// The session that this command runs in, where there is one.
fn session() -> Option<String> {
    env::var("CLAUDEMESH_SESSION_ID").ok().filter(|id| !id.is_empty())
}

const SAID_LATER: &str = "No session of yours listens now; the next `claudemesh inbox --wait` will say it.";
const SAID_TO_NOBODY: &str = "No session of yours listens now, so nobody is told.";
