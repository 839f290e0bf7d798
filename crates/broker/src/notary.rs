//! Checkpoints of audit logs: signed with the broker's audit key, and kept in the database and in a file beside it. Whoever changes
//! the database alone contradicts the file, and whoever changes both contradicts what admins have noted elsewhere.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_keys::verify;
use claudemesh_proto::audit::Checkpoint;
use claudemesh_proto::{MeshId, Timestamp, canonical};
use claudemesh_store::{AuditHead, Mark};
use serde::{Deserialize, Serialize};

use crate::audit_key::AuditKey;

/// Signs checkpoints and keeps the file of them.
#[derive(Debug)]
pub(crate) struct Notary {
    key: AuditKey,
    file: Arc<Path>,
    /// One line at a time.
    writing: tokio::sync::Mutex<()>,
    /// Meshes whose logs are being verified.
    busy: Mutex<HashSet<MeshId>>,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    mesh_id: MeshId,
    #[serde(flatten)]
    checkpoint: Checkpoint,
}

/// What the file says of a mesh.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// In the order of their numbers.
    pub(crate) marks: Vec<Mark>,
    /// The number of the first entry that a checkpoint not of this broker is for.
    pub(crate) forged: Option<i64>,
    pub(crate) newest: Option<Checkpoint>,
}

/// Held while a mesh's log is verified.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    notary: &'a Notary,
    mesh_id: MeshId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.notary.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.mesh_id);
    }
}

impl Notary {
    pub(crate) fn new(key: AuditKey, data_dir: &Path) -> Self {
        let file: PathBuf = data_dir.join("audit-checkpoints.jsonl");
        Self { key, file: file.into(), writing: tokio::sync::Mutex::default(), busy: Mutex::default() }
    }

    /// The turn to verify a mesh's log, when nobody has it.
    pub(crate) fn turn(&self, mesh_id: &MeshId) -> Option<Turn<'_>> {
        let is_first = self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(mesh_id.clone());
        is_first.then(|| Turn { notary: self, mesh_id: mesh_id.clone() })
    }

    /// Signs where a log stands, and writes it into the file; synced.
    pub(crate) async fn sign(&self, head: AuditHead, now: Timestamp) -> io::Result<Checkpoint> {
        let AuditHead { mesh_id, seq, hash, hash2 } = head;
        let signed = canonical::audit_checkpoint(mesh_id.as_str(), seq, (&hash, &hash2), now);
        let (pubkey, signature) = (self.key.public(), self.key.sign(&signed));
        let checkpoint = Checkpoint { seq, hash, hash2, signed_at: now, pubkey, signature };
        let entry = Entry { mesh_id, checkpoint };
        let line = serde_json::to_string(&entry)?;
        let _one_at_a_time = self.writing.lock().await;
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || append(&file, line)).await??;
        Ok(entry.checkpoint)
    }

    /// Whether this broker, or one with the same key, signed a checkpoint of the mesh.
    pub(crate) fn is_ours(&self, mesh_id: &MeshId, checkpoint: &Checkpoint) -> bool {
        is_signed_by(&self.key, mesh_id, checkpoint)
    }

    /// What the file says of a mesh. Lines that are none are passed over: a crash may have torn one.
    pub(crate) async fn noted(&self, mesh_id: &MeshId) -> io::Result<Noted> {
        let (file, key, mesh_id) = (Arc::clone(&self.file), self.key.clone(), mesh_id.clone());
        tokio::task::spawn_blocking(move || read(&file, &key, &mesh_id)).await?
    }
}

fn is_signed_by(key: &AuditKey, mesh_id: &MeshId, checkpoint: &Checkpoint) -> bool {
    let Checkpoint { seq, hash, hash2, signed_at, pubkey, signature } = checkpoint;
    let signed = canonical::audit_checkpoint(mesh_id.as_str(), *seq, (hash, hash2), *signed_at);
    *pubkey == key.public() && verify(pubkey, &signed, signature).is_ok()
}

fn append(path: &Path, mut line: String) -> io::Result<()> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != *b"\n" {
        line.insert(0, '\n');
    }
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn read(path: &Path, key: &AuditKey, mesh_id: &MeshId) -> io::Result<Noted> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Noted::default()),
        Err(error) => return Err(error),
    };
    let mut noted = Noted::default();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let Ok(Entry { mesh_id: of, checkpoint }) = serde_json::from_slice(&line) else { continue };
        if of != *mesh_id {
            continue;
        }
        let seq = checkpoint.seq;
        if !is_signed_by(key, mesh_id, &checkpoint) {
            noted.forged = Some(noted.forged.map_or(seq, |first| first.min(seq)));
            continue;
        }
        noted.marks.push(Mark { seq, hash: checkpoint.hash.clone(), hash2: checkpoint.hash2.clone() });
        if noted.newest.as_ref().is_none_or(|newest| newest.seq < seq) {
            noted.newest = Some(checkpoint);
        }
    }
    noted.marks.sort_by_key(|mark| mark.seq);
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notary(directory: &Path) -> Notary {
        Notary::new(AuditKey::of(directory).unwrap(), directory)
    }

    #[test]
    fn a_log_is_verified_once_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let notary = notary(directory.path());
        let (one, two): (MeshId, MeshId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let turn = notary.turn(&one);
        assert!(turn.is_some() && notary.turn(&one).is_none() && notary.turn(&two).is_some());
        drop(turn);
        assert!(notary.turn(&one).is_some());
    }

    #[tokio::test]
    async fn a_line_that_was_torn_does_not_take_the_next_along() {
        let directory = tempfile::tempdir().unwrap();
        let notary = notary(directory.path());
        let mesh_id: MeshId = "one".parse().unwrap();
        let head = |seq| AuditHead { mesh_id: mesh_id.clone(), seq, hash: "a".into(), hash2: "b".into() };
        let now = Timestamp::from_millis(0);
        let first = notary.sign(head(1), now).await.unwrap();
        File::options().append(true).open(&notary.file).unwrap().write_all(b"{\"meshId\":\"on").unwrap();
        let second = notary.sign(head(2), now).await.unwrap();
        let noted = notary.noted(&mesh_id).await.unwrap();
        assert_eq!(noted.marks.iter().map(|mark| mark.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((noted.newest.as_ref(), noted.forged), (Some(&second), None));
        assert!(notary.is_ours(&mesh_id, &first) && !notary.is_ours(&"two".parse().unwrap(), &first));
    }
}
