//! What one test client knows, on disk: the witness of a crash test. The broker is never asked what it did, but
//! for the history of a topic, which is a promise itself.
//!
//! - A client notes `sent` before it sends, `acked` when it is told so, and `received` before it acknowledges.
//! - Notes gather in memory; [`Ledger::sync`] writes and syncs them, before their client acts on what they say.
//! - The place of a line in its file is its ordinal: within one ledger, earlier lines happened earlier. Between two ledgers there is
//!   no common clock.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use claudemesh_proto::{MeshId, MessageId, Priority, PublicKey};
use serde::{Deserialize, Serialize};

/// Who writes a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The mesh.
    pub mesh: MeshId,
    /// The member, for whose key mail may come here.
    pub member: PublicKey,
    /// The key that it sends with: a session's, or the member's again.
    pub key: PublicKey,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A member or a session.
    Key(PublicKey),
    /// Everybody in the topic `general`, which all members of the mesh are in, but its author.
    General,
}

/// One line of a ledger. Connections are numbered by their client, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    /// The first line.
    Opened(Owner),
    /// A message is about to be sent, the first time or again.
    Sent { id: String, target: Target, priority: Priority, digest: String, connection: u32 },
    /// The broker answered for it.
    Acked { id: String, message: MessageId, connection: u32 },
    /// The broker did not take it.
    Refused { id: String, why: String, connection: u32 },
    /// A message came, the first time or again.
    Received {
        message: MessageId,
        id: Option<String>,
        sender: PublicKey,
        priority: Priority,
        digest: String,
        connection: u32,
    },
    /// The broker is about to be told that it came.
    ClientAcked { message: MessageId, connection: u32 },
}

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    waiting: Vec<u8>,
}

impl Ledger {
    /// Begins a ledger in a new file.
    pub fn create(path: &Path, owner: &Owner) -> io::Result<Self> {
        let file = File::options().create_new(true).append(true).open(path)?;
        let mut ledger = Self { file, waiting: Vec::new() };
        ledger.note(&Entry::Opened(owner.clone()))?;
        ledger.sync()?;
        Ok(ledger)
    }

    /// Adds a line, which counts once it is synced.
    pub fn note(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.waiting, entry)?;
        self.waiting.push(b'\n');
        Ok(())
    }

    /// Writes what was noted; it survives whatever comes when this returns.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.waiting)?;
        self.waiting.clear();
        self.file.sync_data()
    }
}

/// Reads a ledger from its file.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_as_it_was_noted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("anna.ledger");
        let key = PublicKey::from_bytes([7; 32]);
        let owner = Owner { mesh: MeshId::from_random([1; 32]), member: key, key };
        let message = MessageId::new(5, [3; 24]);
        let entries = [
            Entry::Opened(owner.clone()),
            Entry::Sent {
                id: "c1".into(),
                target: Target::Key(key),
                priority: Priority::Now,
                digest: "d".into(),
                connection: 1,
            },
            Entry::Sent {
                id: "c2".into(),
                target: Target::General,
                priority: Priority::Low,
                digest: "d".into(),
                connection: 1,
            },
            Entry::Acked { id: "c1".into(), message: message.clone(), connection: 1 },
            Entry::Refused { id: "c2".into(), why: "temporarily unavailable".into(), connection: 1 },
            Entry::Received {
                message: message.clone(),
                id: None,
                sender: key,
                priority: Priority::Low,
                digest: "d".into(),
                connection: 2,
            },
            Entry::ClientAcked { message, connection: 2 },
        ];
        let mut ledger = Ledger::create(&path, &owner).unwrap();
        for entry in entries.iter().skip(1) {
            ledger.note(entry).unwrap();
        }
        assert_eq!(read(&path).unwrap(), entries[..1], "what is not synced is not there yet");
        ledger.sync().unwrap();
        assert_eq!(read(&path).unwrap(), entries);
        assert!(Ledger::create(&path, &owner).is_err(), "a ledger is never overwritten");
    }
}
