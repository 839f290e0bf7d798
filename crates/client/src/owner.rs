//! The owner's key of a mesh: it signs invites, and never leaves this directory.

use std::path::Path;

use claudemesh_keys::Identity;
use claudemesh_proto::{MeshId, Slug};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Membership;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::link::Invite;
use crate::private_file;

/// The owner's key of one mesh.
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct OwnerKey {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The key.
    pub identity: Identity,
}

/// The two keys of a mesh that is being created.
pub(crate) struct CreationKeys {
    pub(crate) owner: Identity,
    pub(crate) member: Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerFile<'a> {
    version: u64,
    mesh_id: MeshId,
    slug: String,
    owner_secret_key: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretsFile<'a> {
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner_secret_key: Option<&'a str>,
    member_secret_key: &'a str,
}

impl Home {
    /// Whether the owner's key of this mesh is here.
    pub fn has_owner_key(&self, mesh: &MeshId) -> bool {
        self.owner_path(mesh).exists()
    }

    /// The owner's key of a mesh.
    ///
    /// # Errors
    /// [`Error::NoOwnerKey`] names the file that is missing.
    pub fn owner_key(&self, mesh: &Membership) -> Result<OwnerKey> {
        let path = self.owner_path(&mesh.mesh_id);
        let missing = || Error::NoOwnerKey { slug: claudemesh_proto::text::one_line(&mesh.slug), path: path.clone() };
        let text = private_file::read(&path)?.ok_or_else(missing)?;
        let file: OwnerFile<'_> = parse(&path, &text)?;
        if file.mesh_id != mesh.mesh_id {
            return Err(Error::BadFile { path, why: "it belongs to another mesh".into() });
        }
        let identity = secret(&path, "ownerSecretKey", file.owner_secret_key)?;
        Ok(OwnerKey { mesh_id: file.mesh_id, identity })
    }

    /// Keys for a mesh to be created: fresh ones, written down first, or those of an attempt whose outcome is not known.
    pub(crate) fn creation_keys(&self, slug: &Slug) -> Result<CreationKeys> {
        let _lock = self.alone()?;
        let path = self.creation_path(slug);
        if let Some(text) = private_file::read(&path)? {
            let file: SecretsFile<'_> = parse(&path, &text)?;
            let owner = file.owner_secret_key.unwrap_or_default();
            return Ok(CreationKeys {
                owner: secret(&path, "ownerSecretKey", owner)?,
                member: secret(&path, "memberSecretKey", file.member_secret_key)?,
            });
        }
        let keys = CreationKeys { owner: Identity::generate()?, member: Identity::generate()? };
        let (owner, member) = (keys.owner.secret_hex(), keys.member.secret_hex());
        write(&path, &SecretsFile { version: 1, owner_secret_key: Some(&owner), member_secret_key: &member })?;
        Ok(keys)
    }

    /// Keeps the owner's key of a mesh that was created. A key is never replaced: the id is the broker's word, and on some disks
    /// two ids that differ in letter case are one file.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the file is there and holds anything else.
    pub(crate) fn keep_owner_key(&self, mesh: &MeshId, slug: &Slug, owner: &Identity) -> Result<()> {
        let _lock = self.alone()?;
        let path = self.owner_path(mesh);
        let (slug, owner_secret) = (slug.to_string(), owner.secret_hex());
        let Some(text) = private_file::read(&path)? else {
            let file = OwnerFile { version: 1, mesh_id: mesh.clone(), slug, owner_secret_key: &owner_secret };
            return write(&path, &file);
        };
        let file: OwnerFile<'_> = parse(&path, &text)?;
        if file.mesh_id == *mesh && secret(&path, "ownerSecretKey", file.owner_secret_key)?.public() == owner.public() {
            return Ok(());
        }
        let path = path.display();
        Err(Error::Protocol(format!("it gave the new mesh the id {mesh}, whose owner's key is already in {path}")))
    }

    /// A key for joining with an invite: a fresh one, written down first, or that of an attempt whose outcome is not known: the
    /// broker may have used up the invite for it.
    pub(crate) fn joining_key(&self, invite: &Invite) -> Result<Identity> {
        let _lock = self.alone()?;
        let path = self.joining_path(invite);
        if let Some(text) = private_file::read(&path)? {
            let file: SecretsFile<'_> = parse(&path, &text)?;
            return secret(&path, "memberSecretKey", file.member_secret_key);
        }
        let key = Identity::generate()?;
        write(&path, &SecretsFile { version: 1, owner_secret_key: None, member_secret_key: &key.secret_hex() })?;
        Ok(key)
    }
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::BadFile { path: path.to_owned(), why: error.to_string() })
}

fn secret(path: &Path, field: &str, text: &str) -> Result<Identity> {
    let bad = |why| Error::BadFile { path: path.to_owned(), why: format!("{field} {why}") };
    Identity::from_secret_hex(text).map_err(bad)
}

fn write(path: &Path, file: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(file).map(Zeroizing::new);
    let text = text.map_err(|error| Error::BadFile { path: path.to_owned(), why: error.to_string() })?;
    private_file::write(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;
    use crate::samples::home;

    #[test]
    fn keys_of_an_unfinished_attempt_are_used_again() {
        let (_dir, home) = home();
        let slug: Slug = "team".parse().unwrap();
        let (first, second) = (home.creation_keys(&slug).unwrap(), home.creation_keys(&slug).unwrap());
        assert_eq!(first.owner.public(), second.owner.public());
        assert_eq!(first.member.public(), second.member.public());
        assert_ne!(first.owner.public(), first.member.public());
    }

    #[test]
    fn attempts_at_once_use_the_same_keys() {
        let (_dir, home) = home();
        let slug: Slug = "team".parse().unwrap();
        let keys: HashSet<_> = thread::scope(|scope| {
            let attempts: Vec<_> = (0..8).map(|_| scope.spawn(|| home.creation_keys(&slug).unwrap())).collect();
            let keys = attempts.into_iter().map(|attempt| attempt.join().unwrap());
            keys.map(|keys| (keys.owner.public(), keys.member.public())).collect()
        });
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn an_owners_key_is_kept_again_but_never_replaced() {
        let (_dir, home) = home();
        let (mesh, slug) = (MeshId::from_random([1; 32]), "team".parse().unwrap());
        let (owner, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        home.keep_owner_key(&mesh, &slug, &owner).unwrap();
        let before = private_file::read(&home.owner_path(&mesh)).unwrap();
        home.keep_owner_key(&mesh, &slug, &owner).unwrap();
        let refused = home.keep_owner_key(&mesh, &slug, &other);
        assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
        assert_eq!(private_file::read(&home.owner_path(&mesh)).unwrap(), before);
    }
}
