//! What this process says about itself when it connects.

use std::env;
use std::process;

use claudemesh_keys::random_bytes;
use claudemesh_proto::hello::Place;
use claudemesh_proto::limits::{MAX_NAME_CHARS, MAX_PATH_BYTES};
use claudemesh_proto::text::one_line;

use crate::error::Result;

/// This process, as a person's or an agent's command; `capability` is [`MAIL`](claudemesh_proto::hello::MAIL) or
/// [`QUIET`](claudemesh_proto::hello::QUIET).
///
/// The session id is `cli-<pid>-<random>`, fresh in every call: two connections with the same one would displace each other,
/// and a connection that is opened again with its own takes up where it was.
pub fn here(capability: &str) -> Result<Place> {
    let cwd = env::current_dir().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    // An agent's shell tells by this variable whose hands are on the keyboard.
    let is_agent = env::var_os("CLAUDE_CODE_SESSION_ID").is_some() || env::var_os("CLAUDECODE").is_some();
    Ok(Place {
        session_id: format!("cli-{}-{:016x}", process::id(), u64::from_le_bytes(random_bytes()?)),
        pid: i64::from(process::id()),
        cwd: if cwd.len() <= MAX_PATH_BYTES { cwd } else { String::new() },
        hostname: hostname(),
        peer_type: Some(if is_agent { "ai" } else { "human" }.into()),
        channel: Some("claudemesh-cli".into()),
        capabilities: Some(vec![capability.into()]),
        ..Place::default()
    })
}

/// This machine's name, as far as it is one.
pub fn hostname() -> Option<String> {
    let name = hostname::get().ok()?.into_string().ok()?;
    let name: String = one_line(&name).chars().take(MAX_NAME_CHARS).collect();
    (!name.is_empty()).then_some(name)
}
