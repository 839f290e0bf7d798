//! Which crate may use which, checked on the graph that cargo resolved.
//!
//! `rules.rs` is the law, as data and a pure function; this file reads the graph out of `cargo metadata`
//! and prints what breaks the law. Only normal dependencies count: what a test links ships nowhere.

mod rules;

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

use self::rules::{Graph, SQLITE_BINDINGS, breaches};
use crate::workspace;

/// Prints the forbidden edges; false when there is one.
pub(crate) fn check() -> anyhow::Result<bool> {
    let graph = read(&workspace::metadata()?)?;
    let breaches = breaches(&graph);
    for breach in &breaches {
        println!("{breach}");
    }
    println!(
        "{} crates of ours, {} in their trees, {} forbidden edges",
        graph.members.len(),
        graph.uses.len(),
        breaches.len()
    );
    Ok(breaches.is_empty())
}

fn read(metadata: &Value) -> anyhow::Result<Graph> {
    let mut names = BTreeMap::new();
    let mut graph = Graph::default();
    for package in list(metadata, "/packages")? {
        let name = text(package, "/name")?;
        names.insert(text(package, "/id")?, name);
        if SQLITE_BINDINGS.contains(&name) {
            let version = text(package, "/version")?;
            graph.sqlite_bindings.insert(format!("{name} {version}"));
        }
    }
    let name_of = |id: &str| -> anyhow::Result<String> {
        let name = names.get(id).context("a node without a package")?;
        Ok((*name).to_owned())
    };
    for member in list(metadata, "/workspace_members")? {
        let id = member.as_str().context("a member without an id")?;
        graph.members.insert(name_of(id)?);
    }
    for node in list(metadata, "/resolve/nodes")? {
        let used = graph.uses.entry(name_of(text(node, "/id")?)?).or_default();
        for dependency in list(node, "/deps")? {
            // A null kind is a normal dependency; the others are "dev" and "build".
            let kinds = list(dependency, "/dep_kinds")?;
            if kinds.iter().any(|kind| kind.get("kind").is_some_and(Value::is_null)) {
                used.insert(name_of(text(dependency, "/pkg")?)?);
            }
        }
    }
    Ok(graph)
}

fn list<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a Vec<Value>> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.with_context(|| format!("cargo metadata has no list at {pointer}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("cargo metadata has no text at {pointer}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_normal_dependencies_are_edges() {
        let metadata = json!({
            "packages": [
                { "id": "#a", "name": "a", "version": "1.0.0" },
                { "id": "#b", "name": "b", "version": "1.0.0" },
                { "id": "#c", "name": "c", "version": "1.0.0" },
                { "id": "#s", "name": "libsqlite3-sys", "version": "0.37.0" },
            ],
            "workspace_members": ["#a"],
            "resolve": { "nodes": [
                { "id": "#a", "deps": [
                    { "pkg": "#b", "dep_kinds": [{ "kind": null, "target": null }] },
                    { "pkg": "#c", "dep_kinds": [{ "kind": "dev", "target": null }] },
                ] },
                { "id": "#b", "deps": [
                    { "pkg": "#c", "dep_kinds": [{ "kind": "build" }, { "kind": null }] },
                ] },
            ] },
        });
        let graph = read(&metadata).unwrap();
        assert!(graph.members.iter().eq(["a"]));
        assert!(graph.uses["a"].iter().eq(["b"]));
        assert!(graph.uses["b"].iter().eq(["c"]));
        assert!(graph.sqlite_bindings.iter().eq(["libsqlite3-sys 0.37.0"]));
    }

    #[test]
    fn metadata_of_another_shape_is_an_error_and_not_a_pass() {
        assert!(read(&json!({ "packages": [] })).is_err());
    }
}
