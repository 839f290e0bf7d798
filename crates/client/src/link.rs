//! Reading an invite: every form in which one is given away, and everything that can be checked before a broker is asked.

use claudemesh_keys::verify;
use claudemesh_proto::invite::InvitePayload;
use claudemesh_proto::limits::MAX_NAME_CHARS;
use claudemesh_proto::text::one_line;
use claudemesh_proto::{MemberRole, MeshId, PublicKey, Timestamp};

use crate::broker_url::BrokerUrl;

/// An invite whose signature verifies and whose time is not over.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The token, as it stands in the link.
    pub token: String,
    /// The mesh.
    pub mesh_id: MeshId,
    /// Its short name.
    pub slug: String,
    /// The broker that carries it.
    pub broker: BrokerUrl,
    /// What the newcomer will be.
    pub role: MemberRole,
    /// Who signed it.
    pub owner: PublicKey,
    /// Until when it can be used.
    pub expires_at: Timestamp,
    /// The host of the link when it is not the broker's: whoever gave it away may show one and lead to the other.
    pub foreign_host: Option<String>,
}

/// Why an invite cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// No form that we know.
    #[error("this is not an invite link; one looks like https://HOST/join/TOKEN, or is the TOKEN alone")]
    Form,
    /// A short code.
    #[error("the invite is a short code, which this version cannot redeem; ask for the long link (…/join/…)")]
    ShortCode,
    /// The token is damaged.
    #[error("the invite is damaged: it is not a complete token; copy the whole link")]
    Damaged,
    /// A newer kind of token.
    #[error("the invite is of version {0}, this program knows version 1")]
    Version(i64),
    /// A field is not what it must be.
    #[error("the invite is not valid: {0} is not what it must be")]
    Field(&'static str),
    /// The signature does not verify.
    #[error("the invite is forged or damaged: the owner's signature does not verify")]
    Signature,
    /// Its time is over.
    #[error("the invite expired at {0}; ask for a new one")]
    Expired(Timestamp),
}

/// The token in a link, in any form it is given away in:
/// `http(s)://HOST[/xx]/join/TOKEN`, `ic://join/TOKEN`, `claudemesh://join/TOKEN`, or the token alone.
///
/// # Errors
/// [`BadLink::ShortCode`] for the forms that need a broker to look the invite up, [`BadLink::Form`] for anything else.
pub fn token_of(link: &str) -> Result<&str, BadLink> {
    let link = link.trim();
    let web = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
    let own = link.strip_prefix("ic://").or_else(|| link.strip_prefix("claudemesh://"));
    let route = match (web, own) {
        (Some(rest), _) => rest.split_once('/').map(|(_host, path)| without_language(path)),
        (None, Some(rest)) => Some(rest),
        (None, None) => return bare(link),
    };
    let route = route.ok_or(BadLink::Form)?;
    let end = route.find(['?', '#']).unwrap_or(route.len());
    let route = route.get(..end).unwrap_or_default().trim_end_matches('/');
    match route.split_once('/') {
        Some(("join", token)) if is_base64url(token) => Ok(token),
        Some(("i", _)) => Err(BadLink::ShortCode),
        _ => Err(BadLink::Form),
    }
}

impl Invite {
    /// Reads a link and checks all that can be checked without a broker.
    ///
    /// # Errors
    /// [`BadLink`] says what is wrong.
    pub fn read(link: &str, now: Timestamp) -> Result<Self, BadLink> {
        let token = token_of(link)?;
        let payload = InvitePayload::from_token(token).map_err(|_| BadLink::Damaged)?;
        if payload.v != 1 {
            return Err(BadLink::Version(payload.v));
        }
        let slug = one_line(&payload.mesh_slug);
        if slug.is_empty() || slug != payload.mesh_slug || slug.chars().count() > MAX_NAME_CHARS {
            return Err(BadLink::Field("mesh_slug"));
        }
        if payload.mesh_root_key.is_empty() {
            return Err(BadLink::Field("mesh_root_key"));
        }
        let mesh_id = payload.mesh_id.parse().map_err(|_| BadLink::Field("mesh_id"))?;
        let role = payload.role.parse().map_err(|_| BadLink::Field("role"))?;
        let owner: PublicKey = payload.owner_pubkey.parse().map_err(|_| BadLink::Field("owner_pubkey"))?;
        let signature = payload.signature.parse().map_err(|_| BadLink::Field("signature"))?;
        let broker = websocket(&payload.broker_url).ok_or(BadLink::Field("broker_url"))?;
        if payload.expires_at <= 0 {
            return Err(BadLink::Field("expires_at"));
        }
        verify(&owner, payload.signed_text().as_bytes(), &signature).map_err(|_| BadLink::Signature)?;
        let expires_at = Timestamp::from_millis(payload.expires_at.saturating_mul(1000));
        if expires_at < now {
            return Err(BadLink::Expired(expires_at));
        }
        let foreign_host = host_of(link).filter(|host| host != broker.host()).map(|host| one_line(&host));
        Ok(Self { token: token.to_owned(), mesh_id, slug, broker, role, owner, expires_at, foreign_host })
    }
}

fn websocket(text: &str) -> Option<BrokerUrl> {
    let is_websocket = text.starts_with("ws://") || text.starts_with("wss://");
    text.parse().ok().filter(|_| is_websocket)
}

/// The host of a web link, as a browser would read it.
fn host_of(link: &str) -> Option<String> {
    let link = link.trim();
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"))?;
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    Some(host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase())
}

/// `xx/join/…` and `join/…` are the same.
fn without_language(path: &str) -> &str {
    match path.split_once('/') {
        Some((language, rest)) if language.len() == 2 && language.bytes().all(|byte| byte.is_ascii_lowercase()) => rest,
        _ => path,
    }
}

fn bare(text: &str) -> Result<&str, BadLink> {
    // A word of small letters is rather a mistake than one of the few codes without a digit or a capital.
    let is_word = text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_code = (6..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !is_word;
    if is_code || text.contains("/i/") {
        Err(BadLink::ShortCode)
    } else if text.len() > 20 && is_base64url(text) {
        Ok(text)
    } else {
        Err(BadLink::Form)
    }
}

fn is_base64url(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::Identity;
    use claudemesh_proto::text::base64url;
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "eyJ2IjoxLCJtZXNoX2lkIjoibTEifQ";

    fn signed(change: impl FnOnce(&mut InvitePayload)) -> String {
        let owner = Identity::from_seed([1; 32]);
        let mut payload = InvitePayload {
            v: 1,
            mesh_id: "mesh1".into(),
            mesh_slug: "team".into(),
            broker_url: "wss://h.example/ws".into(),
            expires_at: 1_700_000_000,
            mesh_root_key: "AAAA".into(),
            role: "member".into(),
            owner_pubkey: owner.public().to_string(),
            signature: String::new(),
        };
        change(&mut payload);
        if payload.signature.is_empty() {
            payload.signature = owner.sign(payload.signed_text().as_bytes()).to_string();
        }
        payload.to_token()
    }

    fn read(change: impl FnOnce(&mut InvitePayload)) -> Result<Invite, BadLink> {
        Invite::read(&signed(change), Timestamp::from_millis(1_600_000_000_000))
    }

    #[test]
    fn every_form_of_a_link_leads_to_the_token() {
        for link in [
            format!("https://h.example/join/{TOKEN}"),
            format!("http://127.0.0.1:7900/join/{TOKEN}/"),
            format!("https://h.example/de/join/{TOKEN}"),
            format!("https://h.example/join/{TOKEN}?from=mail#x"),
            format!("ic://join/{TOKEN}"),
            format!("claudemesh://join/{TOKEN}"),
            format!("  {TOKEN}\n"),
        ] {
            assert_eq!(token_of(&link), Ok(TOKEN), "{link}");
        }
    }

    #[test]
    fn short_codes_are_known_and_refused() {
        for link in
            ["https://h/i/ABCD1234", "https://h/de/i/ABCD1234/", "h.example/i/ABCD1234", "ABCD1234", "claudemesh://i/x"]
        {
            assert_eq!(token_of(link), Err(BadLink::ShortCode), "{link}");
        }
    }

    #[test]
    fn anything_else_is_no_link() {
        for link in [
            "",
            "hello",
            "garbage",
            "https://h.example",
            "https://h.example/join",
            "https://h.example/join/",
            "ftp://h/join/x",
            "https://h.example/join/a b",
            "https://h.example/deu/join/abc",
            "not a link but a rather long sentence",
        ] {
            assert_eq!(token_of(link), Err(BadLink::Form), "{link}");
        }
    }

    #[test]
    fn a_good_invite_is_read() {
        let invite = read(|_| ()).unwrap();
        assert_eq!(
            (invite.slug.as_str(), invite.role, invite.broker.ws().as_str()),
            ("team", MemberRole::Member, "wss://h.example/ws")
        );
    }

    #[test]
    fn a_link_that_shows_another_host_than_the_brokers_is_told() {
        let token = signed(|_| ());
        for (start, foreign) in [
            ("https://h.example/join/", None),
            ("http://H.example:7900/join/", None),
            ("ic://join/", None),
            ("", None),
            ("https://good.example/join/", Some("good.example")),
            ("https://h.example@good.example:1/join/", Some("good.example")),
        ] {
            let invite = Invite::read(&format!("{start}{token}"), Timestamp::from_millis(0)).unwrap();
            assert_eq!(invite.foreign_host.as_deref(), foreign, "{start}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Change = fn(&mut InvitePayload);
        let cases: [(BadLink, Change); 10] = [
            (BadLink::Version(2), |payload| payload.v = 2),
            (BadLink::Field("mesh_id"), |payload| payload.mesh_id = String::new()),
            (BadLink::Field("mesh_slug"), |payload| payload.mesh_slug = "a\u{202e}b".into()),
            (BadLink::Field("broker_url"), |payload| payload.broker_url = "file:///etc/passwd".into()),
            (BadLink::Field("mesh_root_key"), |payload| payload.mesh_root_key = String::new()),
            (BadLink::Field("role"), |payload| payload.role = "owner".into()),
            (BadLink::Field("owner_pubkey"), |payload| payload.owner_pubkey = "8a".into()),
            (BadLink::Field("signature"), |payload| payload.signature = "b6".into()),
            (BadLink::Field("expires_at"), |payload| payload.expires_at = 0),
            (BadLink::Signature, |payload| payload.signature = "00".repeat(64)),
        ];
        for (why, change) in cases {
            assert_eq!(read(change).unwrap_err(), why);
        }
        let past = read(|payload| payload.expires_at = 1_500_000_000).unwrap_err();
        assert_eq!(past.to_string(), "the invite expired at 2017-07-14T02:40:00.000Z; ask for a new one");
        assert_eq!(
            Invite::read(&base64url(b"{\"v\":1,\"mesh_id\""), Timestamp::from_millis(0)).unwrap_err(),
            BadLink::Damaged
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,200}") {
            let _ = Invite::read(&text, Timestamp::from_millis(0));
        }

        #[test]
        fn no_changed_payload_passes(index in 0_usize..200, bit in 0_u8..7) {
            let mut bytes = claudemesh_proto::text::from_base64url(&signed(|_| ())).unwrap();
            let index = index % bytes.len();
            bytes[index] ^= 1 << bit;
            let changed = base64url(&bytes);
            // A change that JSON does not see, such as an escape, leaves the same invite; anything else must fail.
            if let Ok(invite) = Invite::read(&changed, Timestamp::from_millis(0)) {
                prop_assert_eq!(invite.mesh_id.as_str(), "mesh1");
                prop_assert_eq!(invite.slug.as_str(), "team");
            }
        }
    }
}
