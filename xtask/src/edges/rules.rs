//! The law of the crates, as a table and a pure function over a graph.
//!
//! A crate without a row is a breach: whoever adds one says first what it may use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What uses what, by package name; versions of one package are one node, so that none can hide.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// The crates of this workspace.
    pub(crate) members: BTreeSet<String>,
    /// Normal dependencies, features as resolved.
    pub(crate) uses: BTreeMap<String, BTreeSet<String>>,
    /// Name and version of each package that links an SQLite.
    pub(crate) sqlite_bindings: BTreeSet<String>,
}

/// The packages known to bring an SQLite of their own.
pub(crate) const SQLITE_BINDINGS: [&str; 5] =
    ["libsqlite3-sys", "sqlite3-sys", "sqlite3-src", "libsql-ffi", "turso_core"];

struct Rule {
    member: &'static str,
    /// Crates of ours it may name as dependencies.
    may: May,
    /// Packages that must not be anywhere in its tree.
    never: &'static [&'static [&'static str]],
}

enum May {
    Use(&'static [&'static str]),
    /// Programs for our own use that ship nowhere.
    UseAny,
}

const PROTO: &str = "claudemesh-proto";
const KEYS: &str = "claudemesh-keys";
const SEAL: &str = "claudemesh-seal";
const ENVELOPE: &str = "claudemesh-envelope";
const STORE: &str = "claudemesh-store";
const BROKER: &str = "claudemesh-broker";
const CLIENT: &str = "claudemesh-client";
const TESTKIT: &str = "claudemesh-testkit";
const CLI: &str = "claudemesh";
const REFEREE: &str = "claudemesh-referee";

const IO: &[&str] = &[
    "tokio",
    "mio",
    "async-std",
    "smol",
    "hyper",
    "reqwest",
    "axum",
    "async-nats",
    "sqlx",
    "sqlx-core",
    "rusqlite",
    "tokio-postgres",
    "libsqlite3-sys",
];
const CRYPTO: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "argon2",
    "chacha20poly1305",
    "crypto_box",
    "crypto_secretbox",
    "curve25519-dalek",
    "ed25519-dalek",
    "libsodium-sys",
    "libsodium-sys-stable",
    "openssl",
    "poly1305",
    "ring",
    "rustls",
    "salsa20",
    "sha2",
    "x25519-dalek",
];

const RULES: [Rule; 12] = [
    Rule { member: PROTO, may: May::Use(&[]), never: &[IO, CRYPTO] },
    Rule { member: KEYS, may: May::Use(&[PROTO]), never: &[IO] },
    Rule { member: SEAL, may: May::Use(&[PROTO, KEYS]), never: &[IO] },
    Rule { member: ENVELOPE, may: May::Use(&[PROTO, KEYS, SEAL]), never: &[IO] },
    Rule { member: STORE, may: May::Use(&[PROTO]), never: &[&["axum", KEYS, SEAL, ENVELOPE]] },
    Rule {
        member: BROKER,
        may: May::Use(&[PROTO, KEYS, SEAL, STORE]),
        never: &[&[ENVELOPE, CLIENT, "ureq", "reqwest"]],
    },
    Rule { member: CLIENT, may: May::Use(&[PROTO, KEYS, SEAL, ENVELOPE]), never: &[&[STORE, BROKER, "axum"]] },
    Rule { member: CLI, may: May::Use(&[PROTO, KEYS, CLIENT]), never: &[&[STORE, BROKER, "axum"]] },
    Rule { member: "claudemesh-bench", may: May::UseAny, never: &[] },
    Rule { member: "claudemesh-testkit", may: May::UseAny, never: &[] },
    Rule { member: REFEREE, may: May::Use(&[]), never: &[] },
    Rule { member: "xtask", may: May::Use(&[]), never: &[] },
];

/// Packages that every crate of ours may reach only through the named ones.
const ONLY_THROUGH: [(&str, &[&str]); 5] = [
    ("axum", &[BROKER]),
    ("async-nats", &[BROKER]),
    // Tests look into the database themselves, by the same driver.
    ("libsqlite3-sys", &[STORE, CLIENT, TESTKIT]),
    // Tests ask the referee; no program does.
    (REFEREE, &[]),
    ("libsodium-sys-stable", &[REFEREE]),
];

/// One sentence for each edge that the law forbids, with the way from crate to crate.
pub(crate) fn breaches(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for member in &graph.members {
        match RULES.iter().find(|rule| rule.member == member) {
            Some(rule) => found.extend(breaches_of(graph, rule)),
            None => found.push(format!("{member} has no row in xtask/src/edges/rules.rs")),
        }
        for (package, gates) in ONLY_THROUGH {
            if gates.contains(&member.as_str()) {
                continue;
            }
            if let Some(way) = way(graph, member, package, gates) {
                found.push(if gates.is_empty() {
                    format!("{member} reaches {package}, which is for tests alone: {way}")
                } else {
                    let gates = gates.join(" or ");
                    format!("{member} reaches {package} other than through {gates}: {way}")
                });
            }
        }
    }
    if graph.sqlite_bindings.len() > 1 {
        let bindings = graph.sqlite_bindings.iter().cloned().collect::<Vec<_>>().join(", ");
        found.push(format!("more than one SQLite is linked: {bindings}"));
    }
    found
}

fn breaches_of(graph: &Graph, rule: &Rule) -> Vec<String> {
    let mut found = Vec::new();
    if let May::Use(allowed) = rule.may {
        for used in graph.uses.get(rule.member).into_iter().flatten() {
            if graph.members.contains(used) && !allowed.contains(&used.as_str()) {
                found.push(format!("{} may not use {used}", rule.member));
            }
        }
    }
    for package in rule.never.iter().copied().flatten() {
        if let Some(way) = way(graph, rule.member, package, &[]) {
            found.push(format!("{} may never reach {package}: {way}", rule.member));
        }
    }
    found
}

/// The shortest way from one package to another that enters none of `closed`, as `a → b → c`.
fn way(graph: &Graph, from: &str, to: &str, closed: &[&str]) -> Option<String> {
    let mut seen = BTreeSet::from([from]);
    let mut ways = VecDeque::from([vec![from]]);
    while let Some(way) = ways.pop_front() {
        let uses = way.last().and_then(|last| graph.uses.get(*last));
        for next in uses.into_iter().flatten().map(String::as_str) {
            if closed.contains(&next) || !seen.insert(next) {
                continue;
            }
            let mut longer = way.clone();
            longer.push(next);
            if next == to {
                return Some(longer.join(" → "));
            }
            ways.push_back(longer);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as it should be, and the edges a test adds to it.
    fn graph(extra: &[(&str, &str)]) -> Graph {
        let lawful = [
            (KEYS, PROTO),
            (KEYS, "ed25519-dalek"),
            (SEAL, KEYS),
            (SEAL, PROTO),
            (SEAL, "crypto_box"),
            (ENVELOPE, SEAL),
            (ENVELOPE, KEYS),
            (ENVELOPE, PROTO),
            (STORE, PROTO),
            (STORE, "sqlx"),
            ("sqlx", "libsqlite3-sys"),
            ("sqlx", "tokio"),
            ("sqlx", "sha2"),
            (BROKER, STORE),
            (BROKER, SEAL),
            (BROKER, KEYS),
            (BROKER, PROTO),
            (BROKER, "axum"),
            ("axum", "tokio"),
            (CLIENT, ENVELOPE),
            (CLIENT, PROTO),
            (CLIENT, "sqlx"),
            (CLIENT, "tokio"),
            (CLI, CLIENT),
            (CLI, PROTO),
            ("claudemesh-bench", CLIENT),
            ("claudemesh-testkit", BROKER),
            ("claudemesh-testkit", CLIENT),
            ("xtask", "clap"),
        ];
        let mut graph = Graph::default();
        for (from, to) in lawful.iter().chain(extra) {
            for end in [from, to] {
                if end.starts_with("claudemesh") || *end == "xtask" {
                    graph.members.insert((*end).to_owned());
                }
            }
            let uses = graph.uses.entry((*from).to_owned()).or_default();
            uses.insert((*to).to_owned());
        }
        graph.sqlite_bindings.insert("libsqlite3-sys 0.37.0".into());
        graph
    }

    #[track_caller]
    fn refused(extra: &[(&str, &str)], sentence: &str) {
        let found = breaches(&graph(extra));
        assert!(found.iter().any(|breach| breach == sentence), "{found:#?}");
    }

    #[test]
    fn the_workspace_as_designed_is_lawful() {
        assert_eq!(breaches(&graph(&[])), Vec::<String>::new());
    }

    #[test]
    fn the_opening_code_is_nowhere_under_the_broker() {
        refused(&[(BROKER, ENVELOPE)], "claudemesh-broker may not use claudemesh-envelope");
        refused(
            &[(BROKER, "innocent"), ("innocent", ENVELOPE)],
            "claudemesh-broker may never reach claudemesh-envelope: \
             claudemesh-broker → innocent → claudemesh-envelope",
        );
    }

    #[test]
    fn the_store_knows_words_and_no_keys() {
        refused(&[(STORE, KEYS)], "claudemesh-store may not use claudemesh-keys");
    }

    #[test]
    fn cryptography_points_left_and_does_no_io() {
        refused(&[(KEYS, SEAL)], "claudemesh-keys may not use claudemesh-seal");
        refused(&[(SEAL, ENVELOPE)], "claudemesh-seal may not use claudemesh-envelope");
        refused(&[(ENVELOPE, "tokio")], "claudemesh-envelope may never reach tokio: claudemesh-envelope → tokio");
    }

    #[test]
    fn the_words_need_neither_io_nor_cryptography() {
        refused(&[(PROTO, "sha2")], "claudemesh-proto may never reach sha2: claudemesh-proto → sha2");
        refused(&[(PROTO, "axum")], "claudemesh-proto may never reach axum: claudemesh-proto → axum");
    }

    #[test]
    fn the_client_has_nothing_of_the_server() {
        for other in [STORE, BROKER] {
            let sentence = format!("claudemesh-client may not use {other}");
            refused(&[(CLIENT, other)], &sentence);
        }
        refused(
            &[(CLIENT, "web"), ("web", "axum")],
            "claudemesh-client may never reach axum: claudemesh-client → web → axum",
        );
    }

    #[test]
    fn the_program_goes_through_the_client() {
        refused(&[(CLI, ENVELOPE)], "claudemesh may not use claudemesh-envelope");
        refused(&[(CLI, STORE)], "claudemesh may not use claudemesh-store");
    }

    #[test]
    fn servers_and_clusters_are_the_brokers_alone() {
        refused(
            &[("claudemesh-bench", "axum")],
            "claudemesh-bench reaches axum other than through claudemesh-broker: \
             claudemesh-bench → axum",
        );
        refused(
            &[(STORE, "async-nats")],
            "claudemesh-store reaches async-nats other than through claudemesh-broker: \
             claudemesh-store → async-nats",
        );
    }

    #[test]
    fn sqlite_is_one_and_behind_store_and_client() {
        refused(
            &[(BROKER, "sqlx")],
            "claudemesh-broker reaches libsqlite3-sys other than through \
             claudemesh-store or claudemesh-client or claudemesh-testkit: claudemesh-broker → sqlx → libsqlite3-sys",
        );
        let mut graph = graph(&[]);
        graph.sqlite_bindings.insert("libsql-ffi 0.9.0".into());
        assert_eq!(breaches(&graph), ["more than one SQLite is linked: libsql-ffi 0.9.0, libsqlite3-sys 0.37.0"]);
    }

    #[test]
    fn no_program_links_the_referee() {
        refused(
            &[("claudemesh-bench", REFEREE), (REFEREE, "libsodium-sys-stable")],
            "claudemesh-bench reaches claudemesh-referee, which is for tests alone: \
             claudemesh-bench → claudemesh-referee",
        );
        refused(
            &[("claudemesh-testkit", "libsodium-sys-stable")],
            "claudemesh-testkit reaches libsodium-sys-stable other than through claudemesh-referee: \
             claudemesh-testkit → libsodium-sys-stable",
        );
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        refused(&[("claudemesh-new", PROTO)], "claudemesh-new has no row in xtask/src/edges/rules.rs");
    }
}
