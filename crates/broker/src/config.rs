//! What can be set. This struct is the reference: each field says its name, its default and its reason.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use claudemesh_store::DatabaseUrl;
use ipnet::IpNet;

use crate::audit_key::AuditKey;
use crate::data_dir::private_dir;

/// The broker of claudemesh: routes end-to-end encrypted messages between sessions of coding agents, and keeps them until they
/// are delivered. It needs no configuration.
#[derive(Debug, Clone, Parser)]
#[command(name = "claudemesh-broker", version, max_term_width = 100)]
pub struct Config {
    /// Port for HTTP and WebSocket; 0 picks a free one.
    #[arg(long, env = "BROKER_PORT", default_value_t = 7900)]
    pub port: u16,

    /// Address to listen on. Loopback, so that nothing is reachable from outside before somebody decides so.
    #[arg(long, env = "BROKER_HOST", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,

    /// Database: postgres://USER:PASSWORD@HOST/NAME or sqlite://PATH. Without it, broker.db in the data directory.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,

    /// Directory for the database and the setup token, mode 0700. Without it, the platform's data directory.
    #[arg(long, env = "CLAUDEMESH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Signs audit logs: 64 hex characters. Without it, audit.key in the data directory, made at the first start; several brokers on
    /// one database need the same one.
    #[arg(long, env = "BROKER_AUDIT_KEY", hide_env_values = true, value_name = "HEX")]
    pub audit_key: Option<AuditKey>,

    /// Where people reach this broker, such as https://mesh.example.org; invite links point there.
    #[arg(long, env = "BROKER_PUBLIC_URL", value_parser = public_url)]
    pub public_url: Option<String>,

    /// Who may create meshes. Without it: loopback while the broker listens on loopback and has no public URL, else token.
    #[arg(long, env = "BROKER_MESH_CREATION", value_enum)]
    pub mesh_creation: Option<MeshCreation>,

    /// Networks of proxies whose X-Forwarded-For is believed, separated by commas.
    #[arg(long, env = "BROKER_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// Web origins that may open a WebSocket, separated by commas. The public URL's own always may.
    #[arg(long, env = "BROKER_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    /// Most open connections of one mesh; the last twentieth is for admins and for members who have none.
    #[arg(long, env = "MAX_CONNECTIONS_PER_MESH", default_value_t = 1000)]
    pub max_connections_per_mesh: usize,

    /// Most open connections of one member: a person runs dozens of sessions, not hundreds.
    #[arg(long, env = "MAX_CONNECTIONS_PER_MEMBER", default_value_t = 100)]
    pub max_connections_per_member: usize,

    /// Most open connections of this broker.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 20_000)]
    pub max_connections: usize,

    /// Largest message and HTTP body, in bytes.
    #[arg(long, env = "MAX_MESSAGE_BYTES", default_value_t = claudemesh_proto::limits::MAX_MESSAGE_BYTES)]
    pub max_message_bytes: usize,

    /// Messages a member may send per minute; 0 is no limit.
    #[arg(long, env = "SEND_RATE_PER_MIN", default_value_t = 600)]
    pub send_rate_per_min: u32,

    /// Messages a member may send at once before the rate applies.
    #[arg(long, env = "SEND_BURST", default_value_t = 100)]
    pub send_burst: u32,

    /// Questions (who is here, what became of a message, …) a member may ask per minute; 0 is no limit. A list of a thousand peers
    /// costs milliseconds that others wait for.
    #[arg(long, env = "REQUEST_RATE_PER_MIN", default_value_t = 1200)]
    pub request_rate_per_min: u32,

    /// Questions a member may ask at once before the rate applies.
    #[arg(long, env = "REQUEST_BURST", default_value_t = 200)]
    pub request_burst: u32,

    /// Looks through what was written (`/me/search`, `/me/activity`) a member may have per minute; 0 is no limit. Each reads up to 4 MiB.
    #[arg(long, env = "SEARCH_RATE_PER_MIN", default_value_t = 60)]
    pub search_rate_per_min: u32,

    /// Connections a member may open per minute; 0 is no limit. Each leaves a row or two behind for days.
    #[arg(long, env = "HELLO_RATE_PER_MIN", default_value_t = 600)]
    pub hello_rate_per_min: u32,

    /// Connections a member may open at once before the rate applies: all its sessions come back in one second after a restart.
    #[arg(long, env = "HELLO_BURST", default_value_t = 300)]
    pub hello_burst: u32,

    /// Failed handshakes an address may have per minute; 0 is no limit. Loopback is exempt.
    #[arg(long, env = "FAILED_HELLOS_PER_MIN", default_value_t = 10)]
    pub failed_hellos_per_min: u32,

    /// Wrong API keys an address may present per minute, before it is not asked any more; 0 is no limit. Loopback is exempt.
    #[arg(long, env = "FAILED_KEYS_PER_MIN", default_value_t = 60)]
    pub failed_keys_per_min: u32,

    /// Sockets an address may have open before they say hello; 0 is no limit. Loopback is exempt.
    #[arg(long, env = "MAX_UNAUTHENTICATED_PER_ADDRESS", default_value_t = 50)]
    pub max_unauthenticated_per_address: usize,

    /// Seconds until a new socket must have said hello.
    #[arg(long, env = "HELLO_TIMEOUT_SECONDS", default_value = "10", value_parser = seconds)]
    pub hello_timeout: Duration,

    /// Seconds for which a connection that broke may come back as the same presence.
    #[arg(long, env = "GRACE_SECONDS", default_value = "90", value_parser = seconds)]
    pub grace: Duration,

    /// Seconds for which a connection holds a message before it is handed over again.
    #[arg(long, env = "CLAIM_LEASE_SECONDS", default_value = "30", value_parser = seconds)]
    pub claim_lease: Duration,

    /// Seconds between pings. A connection that is silent for two and a half times as long is dead.
    #[arg(long, env = "PING_SECONDS", default_value = "30", value_parser = seconds)]
    pub ping_every: Duration,

    /// Seconds in which a peer must take what is written to it; a slower reader is dropped, and its messages are kept.
    #[arg(long, env = "WRITE_TIMEOUT_SECONDS", default_value = "30", value_parser = seconds)]
    pub write_timeout: Duration,

    /// Seconds for which what a hook reported outranks what is inferred from a transcript.
    #[arg(long, env = "HOOK_FRESH_WINDOW_SECONDS", default_value = "30", value_parser = seconds)]
    pub hook_fresh_window: Duration,

    /// Seconds after which a session that says nothing more is no longer taken to be working.
    #[arg(long, env = "STATUS_TTL_SECONDS", default_value = "60", value_parser = seconds)]
    pub status_ttl: Duration,

    /// Status hooks that may be called per minute with one token, or without for one process and directory, and twenty times as many by
    /// one address; 0 is no limit.
    #[arg(long, env = "HOOK_RATE_LIMIT_PER_MIN", default_value_t = 30)]
    pub hook_rate_limit_per_min: u32,

    /// Meshes that may be made and joined per minute from one address; 0 is no limit.
    #[arg(long, env = "CREATION_RATE_PER_MIN", default_value_t = 60)]
    pub creation_rate_per_min: u32,

    /// Topics a member may make per hour; 0 is no limit. They stay, and everybody lists them.
    #[arg(long, env = "TOPIC_RATE_PER_HOUR", default_value_t = 30)]
    pub topic_rate_per_hour: u32,

    /// Days for which a message waits for its recipient.
    #[arg(long, env = "MESSAGE_TTL_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub message_ttl_days: u32,
}

/// Who may create meshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MeshCreation {
    /// Anybody on this machine, unless a proxy stands before the broker; and whoever has the setup token.
    Loopback,
    /// Whoever has the setup token.
    Token,
    /// Anybody.
    Open,
    /// Nobody.
    Closed,
}

impl Config {
    /// The data directory, made with mode 0700 when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, cannot be written, or others may read it and that cannot be changed.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.data_dir {
            Some(path) => path.clone(),
            None => directories::ProjectDirs::from("", "", "claudemesh")
                .context("this system names no data directory; set --data-dir (CLAUDEMESH_DATA_DIR)")?
                .data_dir()
                .to_owned(),
        };
        let why = || format!("cannot use the data directory {} (--data-dir, CLAUDEMESH_DATA_DIR)", path.display());
        private_dir(&path).with_context(why)?;
        let probe = path.join(".write-test");
        std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).with_context(why)?;
        Ok(path)
    }

    /// Who may create meshes, with the default worked out.
    pub fn mesh_creation(&self) -> MeshCreation {
        let private = self.host.is_loopback() && self.public_url.is_none();
        self.mesh_creation.unwrap_or(if private { MeshCreation::Loopback } else { MeshCreation::Token })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    let fits = (0.05..=86_400.0).contains(&seconds);
    fits.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| "must be between 0.05 and 86400 seconds".to_owned())
}

fn public_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(url.to_owned()),
        _ => Err("must be http://HOST[:PORT] or https://HOST[:PORT], without a path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["claudemesh-broker"], args].concat())
    }

    #[test]
    fn mesh_creation_is_open_to_this_machine_only_while_nothing_points_elsewhere() {
        let creation = |args| config(args).unwrap().mesh_creation();
        assert_eq!(creation(&[]), MeshCreation::Loopback);
        assert_eq!(creation(&["--host", "0.0.0.0"]), MeshCreation::Token);
        assert_eq!(creation(&["--public-url", "https://mesh.example.org"]), MeshCreation::Token);
        assert_eq!(creation(&["--host", "0.0.0.0", "--mesh-creation", "closed"]), MeshCreation::Closed);
    }

    #[test]
    fn malformed_values_are_refused() {
        let cases = [
            ["--port", "70000"],
            ["--host", "localhost"],
            ["--database-url", "mysql://x"],
            ["--public-url", "ftp://x"],
            ["--public-url", "https://x/path"],
            ["--audit-key", "00"],
            ["--trusted-proxies", "10.0.0.0/40"],
            ["--claim-lease", "0"],
            ["--message-ttl-days", "0"],
            ["--no-such-flag", "1"],
        ];
        for case in cases {
            assert!(config(&case).is_err(), "{case:?}");
        }
    }
}
