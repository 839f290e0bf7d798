//! The server program: reads the settings, starts logs and listener, waits for a signal, and turns the outcome into an exit code.

use std::error::Error as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::{ContextKind, ErrorKind};
use claudemesh_broker::{Broker, Config, MeshCreation};
use claudemesh_store::Clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::subscriber::set_global_default;

fn main() -> ExitCode {
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if names(&error, "--database-url") => {
            // The value may hold a password, and is not repeated.
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            complain(&format!("invalid value for --database-url (DATABASE_URL): {source}"));
            return ExitCode::from(2);
        }
        Err(error) if names(&error, "--audit-key") => {
            complain("invalid value for --audit-key (BROKER_AUDIT_KEY): must be 64 hex characters");
            return ExitCode::from(2);
        }
        Err(error) => {
            complain(&one_line(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    start_logs();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(run(config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let address = (config.host, config.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {}:{} (--host, --port)", address.0, address.1))?;
    let listening_on = listener.local_addr()?;
    let is_open = !config.host.is_loopback();
    // Before anybody is told that the broker runs: from then on it may be told to stop.
    let mut terminate = signal(SignalKind::terminate())?;
    let broker = Broker::start(config, listener, Clock::system()).await?;
    introduce(&broker, listening_on, is_open);
    let reason = tokio::select! {
        _ = terminate.recv() => None,
        interrupted = tokio::signal::ctrl_c() => interrupted.err().map(|error| error.to_string()),
        reason = broker.failed() => Some(format!("a sync of the database failed; start again to read what is on disk: {reason}")),
    };
    tracing::info!("stopping");
    if !broker.stop().await {
        tracing::warn!("some connections did not close in time and were cut off");
    }
    reason.map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}

/// Tells a person where the broker is and what to do next.
fn introduce(broker: &Broker, listening_on: std::net::SocketAddr, is_open: bool) {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = std::io::stdout().lock();
    let url = &broker.public_url;
    let _ = writeln!(out, "claudemesh-broker {version} listening on http://{listening_on}");
    if is_open && !url.starts_with("https://") {
        let _ = writeln!(
            out,
            "warning: this is plain HTTP, reachable from outside; put TLS before it and set BROKER_PUBLIC_URL"
        );
    }
    if let Some(token) = &broker.new_setup_token {
        let _ = writeln!(out, "setup token (shown once, kept in the data directory): {token}");
    }
    let with_token = match broker.mesh_creation() {
        MeshCreation::Token => "CLAUDEMESH_SETUP_TOKEN=TOKEN ",
        _ => "",
    };
    let _ = writeln!(out, "next: {with_token}claudemesh create my-mesh --broker {url}");
    let _ = out.flush();
}

/// Only what comes by `tracing`: through the `log` crate, to which `init` would listen, the WebSocket library says whole frames.
fn start_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,sqlx=warn".into());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        set_global_default(logs.compact().finish())
    } else {
        set_global_default(logs.json().flatten_event(true).finish())
    };
    if let Err(error) = started {
        complain(&error.to_string());
    }
}

fn names(error: &clap::Error, flag: &str) -> bool {
    error.get(ContextKind::InvalidArg).is_some_and(|argument| argument.to_string().starts_with(flag))
}

/// What clap says about a bad setting, without the lines of help after it.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.starts_with("For more information"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.trim_start_matches("error: ").to_owned()
}

fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "claudemesh-broker: {message}");
}
