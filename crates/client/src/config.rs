//! `config.json`: which meshes we belong to, with the member keys.
//!
//! The layout is that of the existing client, so that its users keep their meshes. Whatever of it is not ours is kept as it
//! stands: every rewrite reads the whole file, changes its part and writes the whole file, under a lock.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use claudemesh_keys::Identity;
use claudemesh_proto::text::one_line;
use claudemesh_proto::{MemberId, MeshId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::broker_url::BrokerUrl;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::private_file;

/// One mesh we are a member of, with the key that makes us one.
#[derive(Clone)]
pub struct Membership {
    /// The mesh.
    pub mesh_id: MeshId,
    /// Who we are in it.
    pub member_id: MemberId,
    /// Its short name, unique in a configuration.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// Where its broker is.
    pub broker_url: BrokerUrl,
    /// Since when, as the file has it.
    pub joined_at: String,
    /// The member's key.
    pub identity: Arc<Identity>,
}

/// Everything in `config.json` that is ours to read.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The name to go by, when the user set one.
    pub display_name: Option<String>,
    /// The meshes, in the order of joining.
    pub meshes: Vec<Membership>,
    /// Whose key signed the invite, where this program joined or made the mesh.
    owners: HashMap<MeshId, PublicKey>,
}

impl Config {
    /// The mesh with this slug, name or id; without one, the only mesh.
    ///
    /// # Errors
    /// [`Error::NoSuchMesh`] and [`Error::WhichMesh`] list what there is.
    pub fn mesh(&self, wanted: Option<&str>) -> Result<&Membership> {
        let known = || self.meshes.iter().map(|mesh| one_line(&mesh.slug)).collect();
        let Some(wanted) = wanted else {
            return match self.meshes.as_slice() {
                [only] => Ok(only),
                _ => Err(Error::WhichMesh { known: known() }),
            };
        };
        let by_slug = self.meshes.iter().find(|mesh| mesh.slug == wanted);
        by_slug
            .or_else(|| self.meshes.iter().find(|mesh| mesh.mesh_id.as_str() == wanted || mesh.name == wanted))
            .ok_or_else(|| Error::NoSuchMesh { wanted: one_line(wanted), known: known() })
    }

    /// The owner's key of a mesh, as it was on joining; `None` when another program joined it.
    pub fn owner(&self, mesh: &MeshId) -> Option<&PublicKey> {
        self.owners.get(mesh)
    }
}

impl Home {
    /// Reads the configuration; without a file it is empty.
    ///
    /// # Errors
    /// [`Error::TooOpen`] when others may read it, [`Error::BadFile`] naming what is wrong in it.
    pub fn config(&self) -> Result<Config> {
        let path = self.config_path();
        let file = read(&path)?;
        let meshes = file.meshes.iter().enumerate().map(|(index, row)| row.check(&path, index));
        let owner = |row: &Row| Some((row.mesh_id.parse().ok()?, row.owner_pubkey.as_deref()?.parse().ok()?));
        let owners = file.meshes.iter().filter_map(owner).collect();
        Ok(Config { meshes: meshes.collect::<Result<_>>()?, display_name: file.display_name, owners })
    }

    /// Adds a mesh with its owner's key.
    ///
    /// # Errors
    /// [`Error::MeshKnown`] when one of that id or slug is there already.
    pub fn add(&self, mesh: &Membership, owner: &PublicKey) -> Result<()> {
        self.update(|file| {
            let same = |row: &Row| row.mesh_id == mesh.mesh_id.as_str() || row.slug == mesh.slug;
            if file.meshes.iter().any(same) {
                return Err(Error::MeshKnown { slug: one_line(&mesh.slug), config: self.config_path() });
            }
            file.meshes.push(Row::of(mesh, owner));
            Ok(())
        })
    }

    /// Removes a mesh with its member key and what the member said of itself; tells whether it was there.
    pub fn remove(&self, mesh: &MeshId) -> Result<bool> {
        self.update(|file| {
            let before = file.meshes.len();
            file.meshes.retain(|row| row.mesh_id != mesh.as_str());
            private_file::remove(&self.said_path(mesh))?;
            Ok(file.meshes.len() < before)
        })
    }

    fn update<T>(&self, change: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
        let _lock = self.alone()?;
        let path = self.config_path();
        let mut file = read(&path)?;
        let outcome = change(&mut file)?;
        let text = serde_json::to_string_pretty(&file).map(Zeroizing::new);
        let mut text = text.map_err(|error| Error::BadFile { path: path.clone(), why: error.to_string() })?;
        text.push('\n');
        private_file::write(&path, text.as_bytes())?;
        Ok(outcome)
    }
}

/// Without the key.
impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("mesh_id", &self.mesh_id)
            .field("member_id", &self.member_id)
            .field("slug", &self.slug)
            .field("broker_url", &self.broker_url)
            .finish_non_exhaustive()
    }
}

/// The file as it stands. `rest` is what other programs keep there.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with the meshes")]
struct File {
    #[serde(default = "current_version")]
    version: u64,
    #[serde(default)]
    meshes: Vec<Row>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object for each mesh")]
struct Row {
    mesh_id: String,
    member_id: String,
    slug: String,
    name: String,
    pubkey: String,
    secret_key: SecretText,
    broker_url: String,
    #[serde(default)]
    joined_at: String,
    /// Existing clients neither write it nor mind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner_pubkey: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// 128 hex characters that must not be printed and are zeroed when dropped. Private, because it can be written to the file.
struct SecretText(Zeroizing<String>);

impl Row {
    fn of(mesh: &Membership, owner: &PublicKey) -> Self {
        Self {
            mesh_id: mesh.mesh_id.to_string(),
            member_id: mesh.member_id.to_string(),
            slug: mesh.slug.clone(),
            name: mesh.name.clone(),
            pubkey: mesh.identity.public().to_string(),
            secret_key: SecretText(mesh.identity.secret_hex()),
            broker_url: mesh.broker_url.ws(),
            joined_at: mesh.joined_at.clone(),
            owner_pubkey: Some(owner.to_string()),
            rest: Map::new(),
        }
    }

    fn check(&self, path: &Path, index: usize) -> Result<Membership> {
        let bad = |field: &str, why: &dyn fmt::Display| Error::BadFile {
            path: path.to_owned(),
            why: format!("meshes[{index}].{field} {why}"),
        };
        let identity = Identity::from_secret_hex(&self.secret_key.0).map_err(|why| bad("secretKey", &why))?;
        if identity.public().to_string() != self.pubkey {
            return Err(bad("pubkey", &"does not belong to secretKey"));
        }
        Ok(Membership {
            mesh_id: MeshId::from_str(&self.mesh_id).map_err(|why| bad("meshId", &why))?,
            member_id: MemberId::from_str(&self.member_id).map_err(|why| bad("memberId", &why))?,
            slug: self.slug.clone(),
            name: self.name.clone(),
            broker_url: self.broker_url.parse().map_err(|why| bad("brokerUrl", &why))?,
            joined_at: self.joined_at.clone(),
            identity: Arc::new(identity),
        })
    }
}

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new).map(Self)
    }
}

fn read(path: &Path) -> Result<File> {
    let Some(text) = private_file::read(path)? else {
        return Ok(File { version: current_version(), meshes: Vec::new(), display_name: None, rest: Map::new() });
    };
    let bad = |why: String| Error::BadFile { path: path.to_owned(), why };
    let file: File = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if file.version != current_version() {
        return Err(bad(format!("version is {}, this program knows {}", file.version, current_version())));
    }
    Ok(file)
}

fn current_version() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::samples::{home, membership};

    fn owner() -> PublicKey {
        Identity::from_seed([3; 32]).public()
    }

    #[test]
    fn what_other_programs_keep_in_the_file_survives_a_rewrite() {
        let (_dir, home) = home();
        let row = serde_json::json!({
            "meshId": "m1", "memberId": "x1", "slug": "old", "name": "Old", "brokerUrl": "wss://h.example/ws",
            "pubkey": Identity::from_seed([9; 32]).public(), "secretKey": *Identity::from_seed([9; 32]).secret_hex(),
            "joinedAt": "then", "rootKey": "AAAA", "inviteVersion": 2
        });
        let before = serde_json::json!({
            "version": 1, "meshes": [row], "displayName": "Anna", "accountId": "a1",
            "groups": [{"name": "g", "role": "lead"}], "later": {"deep": [1, null]}
        });
        private_file::write(&home.config_path(), before.to_string().as_bytes()).unwrap();
        home.add(&membership("new", 1), &owner()).unwrap();
        assert!(home.remove(&MeshId::from_random([1; 32])).unwrap());
        let after: Value = serde_json::from_str(&private_file::read(&home.config_path()).unwrap().unwrap()).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn a_mesh_reads_back_as_it_was_added() {
        let (_dir, home) = home();
        let mesh = membership("team", 1);
        home.add(&mesh, &owner()).unwrap();
        let config = home.config().unwrap();
        let read = config.mesh(None).unwrap();
        assert_eq!((&read.mesh_id, &read.slug, &read.broker_url), (&mesh.mesh_id, &mesh.slug, &mesh.broker_url));
        assert_eq!(read.identity.public(), mesh.identity.public());
        assert_eq!(config.owner(&mesh.mesh_id), Some(&owner()));
        assert!(!format!("{read:?}").contains(mesh.identity.secret_hex().as_str()));
        assert!(matches!(home.add(&mesh, &owner()), Err(Error::MeshKnown { .. })));
    }

    #[test]
    fn the_mesh_is_the_only_one_or_must_be_named() {
        let mut config = Config::default();
        assert_eq!(config.mesh(None).unwrap_err().to_string(), "which mesh? there is none yet");
        config.meshes = vec![membership("one", 1), membership("two", 2)];
        assert_eq!(config.mesh(None).unwrap_err().to_string(), "which mesh? there are: one, two");
        assert_eq!(config.mesh(Some("two")).unwrap().slug, "two");
        assert_eq!(config.mesh(Some(config.meshes[0].mesh_id.as_str())).unwrap().slug, "one");
        assert_eq!(config.mesh(Some("x")).unwrap_err().to_string(), "no mesh \"x\" here; there are: one, two");
    }

    #[test]
    fn two_commands_at_once_lose_no_entry() {
        let (_dir, home) = home();
        let home = &home;
        thread::scope(|scope| {
            for seed in 1..=8 {
                scope.spawn(move || home.add(&membership(&format!("mesh-{seed}"), seed), &owner()).unwrap());
            }
        });
        assert_eq!(home.config().unwrap().meshes.len(), 8);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_field() {
        let (_dir, home) = home();
        home.add(&membership("team", 1), &owner()).unwrap();
        let text = private_file::read(&home.config_path()).unwrap().unwrap();
        let damaged = text.replace(&Identity::from_seed([1; 32]).public().to_string(), &"ab".repeat(32));
        private_file::write(&home.config_path(), damaged.as_bytes()).unwrap();
        let error = home.config().unwrap_err().to_string();
        assert!(error.contains("config.json cannot be used: meshes[0].secretKey"), "{error}");
        private_file::write(&home.config_path(), b"{\"version\":2}").unwrap();
        assert!(home.config().unwrap_err().to_string().contains("version is 2"));
    }
}
