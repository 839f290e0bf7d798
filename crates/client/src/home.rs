//! Where everything of one user is: `~/.claudemesh`, or where `CLAUDEMESH_CONFIG_DIR` points.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};

use claudemesh_keys::sha256_hex;
use claudemesh_proto::canonical::SigningBytes;
use claudemesh_proto::{MeshId, Slug};

use crate::error::{Error, Result};
use crate::link::Invite;
use crate::private_file;

/// The directory of one user's configuration, keys and mail. It is created, with mode 0700, by the first write.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// `CLAUDEMESH_CONFIG_DIR` when set, else `.claudemesh` in the user's home directory.
    ///
    /// # Errors
    /// [`Error::NoHome`] when neither is known.
    pub fn from_env() -> Result<Self> {
        let named = env::var_os("CLAUDEMESH_CONFIG_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = named.or_else(|| Some(env::home_dir()?.join(".claudemesh"))).ok_or(Error::NoHome)?;
        Ok(Self { dir })
    }

    /// A directory of the caller's choice.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Meshes and member keys.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// The owner's key of a mesh.
    pub fn owner_path(&self, mesh: &MeshId) -> PathBuf {
        self.dir.join("owner").join(format!("{mesh}.json"))
    }

    /// The keys of a mesh that is being created, and has no id yet. Not among the files that ids name: brokers make the ids.
    pub(crate) fn creation_path(&self, slug: &Slug) -> PathBuf {
        self.dir.join("creating").join(format!("{slug}.json"))
    }

    /// The key of a member that is joining. Anybody can sign an invite with any mesh's id in it, and two ids that differ in
    /// letter case are one file on some disks: so its name covers whose invite it is and where it leads, too.
    pub(crate) fn joining_path(&self, invite: &Invite) -> PathBuf {
        let told = SigningBytes::new("joining")
            .field(invite.owner.as_bytes())
            .field(invite.mesh_id.as_str())
            .field(invite.broker.ws());
        self.dir.join("joining").join(format!("{}.json", sha256_hex(told.finish())))
    }

    /// The local inbox of a mesh.
    pub fn inbox_path(&self, mesh: &MeshId) -> PathBuf {
        self.dir.join("inbox").join(format!("{mesh}.db"))
    }

    /// Creates the directory when it is missing, and refuses one that others may enter.
    pub(crate) fn make(&self) -> Result<()> {
        private_file::make_dir(&self.dir)
    }

    /// Makes sure of the directory, and of being the only command that changes it until the returned guard is dropped: two at
    /// once must not both find a file missing, nor both rewrite it.
    pub(crate) fn alone(&self) -> Result<File> {
        self.make()?;
        private_file::lock(&self.dir.join("config.lock"))
    }
}
