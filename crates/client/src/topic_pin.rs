//! Which key a topic has: remembered when it is first seen, so that nobody replaces it unnoticed later. What is kept is a
//! fingerprint, which opens nothing.
//!
//! A topic is remembered by its id and by its name. Whoever asks for a name is told the id by the broker, and must not get another
//! topic's key by it.

use std::path::PathBuf;

use claudemesh_envelope::TopicKey;
use claudemesh_keys::sha256_hex;
use claudemesh_proto::canonical::SigningBytes;
use claudemesh_proto::{MeshId, TopicId, TopicName};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Membership;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::private_file;

/// Which topic, for whom, and where its key is remembered.
#[derive(Debug, Clone, Copy)]
pub struct TopicPin<'a> {
    /// Where.
    pub home: &'a Home,
    /// For whom.
    pub mesh: &'a Membership,
    /// The topic.
    pub id: &'a TopicId,
    /// Its name.
    pub name: &'a TopicName,
}

impl TopicPin<'_> {
    /// Remembers the key when none was, and refuses one that is not the one remembered.
    pub(crate) fn check(&self, key: &TopicKey) -> Result<()> {
        let (mesh, fingerprint) = (&self.mesh.mesh_id, fingerprint(key));
        // Two commands that see different keys at once must not both remember theirs.
        let _lock = self.home.alone()?;
        let mut file = self.home.topic_pins(mesh)?;
        let mut known = file.topics.iter().filter(|row| self.is_of(row));
        if known.any(|row| row.fingerprint != fingerprint) {
            return Err(self.changed());
        }
        if file.topics.iter().any(|row| row.topic_id == *self.id && row.topic == *self.name) {
            return Ok(());
        }
        file.topics.push(Row { topic_id: self.id.clone(), topic: self.name.clone(), fingerprint });
        self.home.keep_topic_pins(mesh, &file)
    }

    /// Refuses that the topic has no key, when it had one.
    pub(crate) fn check_none(&self) -> Result<()> {
        let file = self.home.topic_pins(&self.mesh.mesh_id)?;
        if file.topics.iter().any(|row| self.is_of(row)) { Err(self.changed()) } else { Ok(()) }
    }

    fn is_of(&self, row: &Row) -> bool {
        row.topic_id == *self.id || row.topic == *self.name
    }

    fn changed(&self) -> Error {
        Error::TopicKeyChanged { topic: self.name.clone() }
    }
}

impl Home {
    /// Forgets which key a topic has, by its name or id: the next one that is seen counts. Whether one was remembered.
    ///
    /// # Errors
    /// [`Error::TooOpen`] when others may read the file, [`Error::BadFile`] when it holds something else.
    pub fn forget_topic_key(&self, mesh: &MeshId, named: &str) -> Result<bool> {
        let name: Option<TopicName> = named.parse().ok();
        let _lock = self.alone()?;
        let mut file = self.topic_pins(mesh)?;
        let before = file.topics.len();
        file.topics.retain(|row| row.topic_id.as_str() != named && Some(&row.topic) != name.as_ref());
        if file.topics.len() == before {
            return Ok(false);
        }
        self.keep_topic_pins(mesh, &file).map(|()| true)
    }

    fn topic_pins(&self, mesh: &MeshId) -> Result<File> {
        let path = self.topic_pins_path(mesh);
        let Some(text) = private_file::read(&path)? else {
            return Ok(File { mesh_id: mesh.clone(), topics: Vec::new() });
        };
        let bad = |why: String| Error::BadFile { path: path.clone(), why };
        let file: File = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if file.mesh_id == *mesh {
            Ok(file)
        } else {
            Err(bad(format!("it belongs to mesh {}, not to {mesh}", file.mesh_id)))
        }
    }

    fn keep_topic_pins(&self, mesh: &MeshId, file: &File) -> Result<()> {
        let path = self.topic_pins_path(mesh);
        let text = serde_json::to_string_pretty(file)
            .map_err(|error| Error::BadFile { path: path.clone(), why: error.to_string() })?;
        private_file::write(&path, format!("{text}\n").as_bytes())
    }

    fn topic_pins_path(&self, mesh: &MeshId) -> PathBuf {
        self.dir().join("topic-keys").join(format!("{mesh}.json"))
    }
}

/// A key is random, so that nobody finds it by trying.
fn fingerprint(key: &TopicKey) -> String {
    sha256_hex(Zeroizing::new(SigningBytes::new("topic-key-fingerprint").field(key.expose_bytes()).finish()))
}

/// The file as it stands. Two ids that differ in letter case are one file on some disks, so it says whose it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with the topics")]
struct File {
    mesh_id: MeshId,
    topics: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object for each topic")]
struct Row {
    topic_id: TopicId,
    topic: TopicName,
    fingerprint: String,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::samples::{home, membership};

    fn check(home: &Home, (id, name): (&str, &str), key: u8) -> Result<()> {
        let (mesh, id, name) = (membership("team", 1), id.parse().unwrap(), name.parse().unwrap());
        TopicPin { home, mesh: &mesh, id: &id, name: &name }.check(&TopicKey::from_bytes([key; 32]))
    }

    fn is_changed(outcome: &Result<()>) -> bool {
        matches!(outcome, Err(Error::TopicKeyChanged { .. }))
    }

    #[test]
    fn another_key_is_refused_under_the_same_id_and_under_the_same_name_until_it_is_forgotten() {
        let (_dir, home) = home();
        check(&home, ("t1", "deploys"), 1).unwrap();
        check(&home, ("t1", "deploys"), 1).unwrap();
        check(&home, ("t2", "general"), 2).unwrap();
        for topic in [("t1", "deploys"), ("t9", "deploys"), ("t1", "other"), ("t2", "deploys")] {
            assert!(is_changed(&check(&home, topic, 2)), "{topic:?}");
        }
        let mesh = membership("team", 1).mesh_id;
        assert!(home.forget_topic_key(&mesh, "Deploys").unwrap());
        assert!(!home.forget_topic_key(&mesh, "deploys").unwrap());
        check(&home, ("t1", "deploys"), 3).unwrap();
        assert!(is_changed(&check(&home, ("t1", "deploys"), 1)));
        assert!(home.forget_topic_key(&mesh, "t1").unwrap());
    }

    #[test]
    fn a_topic_that_had_a_key_has_one() {
        let (_dir, home) = home();
        let (mesh, id, name) = (membership("team", 1), "t1".parse().unwrap(), "deploys".parse().unwrap());
        let pin = TopicPin { home: &home, mesh: &mesh, id: &id, name: &name };
        pin.check_none().unwrap();
        pin.check(&TopicKey::from_bytes([1; 32])).unwrap();
        assert!(is_changed(&pin.check_none()));
    }

    #[test]
    fn the_file_is_private_and_does_not_hold_the_key() {
        let (_dir, home) = home();
        check(&home, ("t1", "deploys"), 1).unwrap();
        let mesh = membership("team", 1).mesh_id;
        // What others may read is refused by this.
        let text = private_file::read(&home.topic_pins_path(&mesh)).unwrap().unwrap();
        assert!(!text.contains(&"01".repeat(8)));
        std::fs::rename(home.topic_pins_path(&mesh), home.topic_pins_path(&MeshId::from_random([2; 32]))).unwrap();
        assert!(matches!(home.forget_topic_key(&MeshId::from_random([2; 32]), "x"), Err(Error::BadFile { .. })));
    }

    #[test]
    fn of_two_commands_that_see_different_keys_at_once_one_is_refused_and_no_topic_is_lost() {
        let (_dir, home) = home();
        let home = &home;
        let refused: Vec<bool> = thread::scope(|scope| {
            let seen: Vec<_> = (0..8_u8)
                .map(|number| {
                    let (topic, key) = (number / 2, number % 2);
                    let name = format!("topic-{topic}");
                    scope.spawn(move || is_changed(&check(home, (&name, &name), key)))
                })
                .collect();
            seen.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(refused.chunks(2).all(|pair| pair[0] != pair[1]), "{refused:?}");
        assert_eq!(home.topic_pins(&membership("team", 1).mesh_id).unwrap().topics.len(), 4);
    }
}
