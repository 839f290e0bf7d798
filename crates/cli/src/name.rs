//! What to be called when the user did not say.

use std::env;

use clap::Args;
use claudemesh_client::{Config, hostname};
use claudemesh_proto::DisplayName;

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Your name in the mesh [default: USER-HOST]
    #[arg(long, env = "CLAUDEMESH_DISPLAY_NAME", hide_env_values = true)]
    pub(crate) name: Option<DisplayName>,
}

/// The name given, else the configured one, else `USER-HOST` in characters that can be mentioned.
pub(crate) fn display_name(given: Option<DisplayName>, config: &Config) -> anyhow::Result<DisplayName> {
    if let Some(name) = given {
        return Ok(name);
    }
    let configured = config.display_name.as_deref().and_then(|name| name.parse().ok());
    if let Some(name) = configured {
        return Ok(name);
    }
    let user = env::var("USER").or_else(|_| env::var("USERNAME")).unwrap_or_default();
    Ok(made_of(&user, &hostname().unwrap_or_default()).parse()?)
}

fn made_of(user: &str, host: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let parts: Vec<_> = [user, short].into_iter().filter(|part| !part.is_empty()).collect();
    let name = parts.join("-");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    if name.is_empty() { "somebody".into() } else { name.chars().map(plain).take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_name_can_be_mentioned() {
        assert_eq!(made_of("anna", "laptop.home.example"), "anna-laptop");
        assert_eq!(made_of("anna b", ""), "anna-b");
        assert_eq!(made_of("", ""), "somebody");
        assert_eq!(made_of(&"x".repeat(99), "h").len(), 64);
    }
}
