//! The broker: takes sealed messages from members, holds each until its recipient has it, and knows who is connected. It must not
//! be able to open one: no member's secret key comes here, and none of our crates with opening code is among its dependencies.
//!
//! - `edge`: bytes to requests, answers to bytes.
//! - `session`: one connection as plain values.
//! - `hub`: the connections of this process; it rings them, and carries nothing.
//! - `calls`: answering requests, a file per capability.
//! - `jobs`: clearing away what time has ended.
//!
//! # Stopping
//!
//! 1. Nothing new is accepted.
//! 2. Every connection answers what it was asked, and closes with 1001.
//! 3. The journal writes what it has taken.
//! 4. The database is closed.
//!
//! What takes longer than 8 s is cut off; nothing that was acknowledged depends on it.

mod app;
mod audit_key;
mod calls;
mod close;
mod config;
mod data_dir;
mod edge;
mod fault;
mod hub;
mod jobs;
mod metrics;
mod notary;
mod session;
mod token;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use claudemesh_store::{Clock, DatabaseUrl, Options, Ring, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use audit_key::AuditKey;
pub use config::{Config, MeshCreation};

use app::{App, Settings};
use close::Close;
use data_dir::node_name;
use edge::limit::Limits;
use edge::server::{self, Running};
use hub::{Capacity, Hub, Spans};
use notary::Notary;
use token::setup_token;

/// How long connections may take to close once the broker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the database may take to close after that.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A broker that listens.
pub struct Broker {
    running: Arc<Running>,
    /// Where it is reached, without a slash at the end.
    pub public_url: String,
    /// The setup token, when this start made it.
    pub new_setup_token: Option<String>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the database and starts to serve `listener`.
    ///
    /// # Errors
    /// When the data directory, the setup token or the database cannot be used.
    pub async fn start(config: Config, listener: TcpListener, clock: Clock) -> anyhow::Result<Self> {
        let data_dir = config.data_dir()?;
        let token = setup_token(&data_dir)?;
        let audit_key = config.audit_key.clone().map_or_else(|| AuditKey::of(&data_dir), Ok)?;
        let notary = Notary::new(audit_key, &data_dir);
        let address = listener.local_addr().context("the listener has no address")?;
        let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let hub = Arc::new(Hub::new(capacity(&config), spans(&config), clock.clone()));
        let bell = Arc::clone(&hub);
        let store = Store::open(Options {
            url: config.database_url.clone().unwrap_or_else(|| DatabaseUrl::Sqlite(data_dir.join("broker.db"))),
            node: node_name(&data_dir)?,
            message_ttl: Duration::from_hours(24) * config.message_ttl_days,
            clock: clock.clone(),
            bell: Arc::new(move |rings: &[Ring]| bell.ring(rings)),
        });
        let store = store.await?;
        let new_setup_token = token.is_new.then(|| token.text.clone());
        let settings = Settings {
            mesh_creation: config.mesh_creation(),
            setup_token: token,
            public_url: public_url.clone(),
            started_at: clock.instant(),
            git_sha: option_env!("GIT_SHA").unwrap_or("unknown").to_owned(),
            config,
        };
        let limits = Limits::new(&settings.config);
        let (metrics, door) = (metrics::Metrics::default(), tokio::sync::Mutex::default());
        let app = Arc::new(App { store, hub, clock, limits, metrics, notary, door, settings });
        let running = Arc::new(Running { app, tasks: TaskTracker::new(), stop: CancellationToken::new() });
        running.tasks.spawn(server::accept(listener, Arc::clone(&running)));
        running.tasks.spawn(jobs::sweep::presences(Arc::clone(&running)));
        running.tasks.spawn(jobs::sweep::rows(Arc::clone(&running)));
        running.tasks.spawn(jobs::checkpoints::of_all(Arc::clone(&running)));
        running.tasks.spawn(jobs::removed::connections(Arc::clone(&running)));
        Ok(Self { running, public_url, new_setup_token })
    }

    /// Resolves with the reason when the process has to start again: a sync failed, and only a fresh look tells what is on disk.
    pub async fn failed(&self) -> String {
        self.running.app.store.failed().await
    }

    /// Who may make meshes here.
    pub fn mesh_creation(&self) -> MeshCreation {
        self.running.app.settings.mesh_creation
    }

    /// Stops in the order written above; whether everything ended by itself.
    pub async fn stop(self) -> bool {
        let running = self.running;
        running.stop.cancel();
        running.app.hub.close_all(Close::SHUTTING_DOWN);
        running.tasks.close();
        let ended = tokio::time::timeout(STOP_TIMEOUT, running.tasks.wait()).await.is_ok();
        if cfg!(debug_assertions) {
            running.app.hub.check_invariants();
        }
        let is_empty = running.app.hub.open() == 0;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, jobs::sweep::log_departures(&running.app)).await;
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, running.app.store.clone().close()).await.is_ok();
        ended && is_empty && closed
    }
}

fn spans(config: &Config) -> Spans {
    Spans { grace: config.grace, hook_fresh: config.hook_fresh_window, status_ttl: config.status_ttl }
}

fn capacity(config: &Config) -> Capacity {
    Capacity {
        node: config.max_connections,
        mesh: config.max_connections_per_mesh,
        member: config.max_connections_per_member,
    }
}
