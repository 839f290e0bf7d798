//! What a person said of itself in a mesh. A broker forgets it with the presence that it was said of, so it is kept here: a command
//! that says it keeps it, and whoever listens says it anew on each connection, before taking mail.

use std::path::PathBuf;

use claudemesh_proto::hello::{Place, TOPICS};
use claudemesh_proto::limits::MAX_SUMMARY_CHARS;
use claudemesh_proto::presence::StatusSource;
use claudemesh_proto::{MeshId, Status};
use serde::{Deserialize, Serialize};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::private_file;

/// What is still to be said on each new connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// How busy, unless idle, which a new presence is by itself.
    pub status: Option<Status>,
    /// What it works on.
    pub summary: Option<String>,
}

impl Said {
    /// To be this busy from now on.
    pub fn set_status(&mut self, status: Status) {
        self.status = Some(status).filter(|status| *status != Status::Idle);
    }

    /// To work on this from now on; on nothing, when it is empty.
    pub fn set_summary(&mut self, summary: &str) {
        let summary: String = summary.chars().take(MAX_SUMMARY_CHARS).collect();
        self.summary = Some(summary).filter(|summary| !summary.is_empty());
    }

    /// How a connection for mail is to be opened on which this is said first. No handshake carries a status, but a connection that
    /// announces nothing but [`TOPICS`] is handed nothing for a moment, in which the status arrives.
    pub fn prepare(&self, place: &mut Place) {
        if let (Some(_), Some(words)) = (self.status, &mut place.capabilities) {
            words.retain(|word| word == TOPICS);
        }
    }
}

impl Home {
    /// What a person said of itself in a mesh.
    ///
    /// # Errors
    /// [`Error::TooOpen`] when others may read the file, [`Error::BadFile`] when it holds something else.
    pub fn said(&self, mesh: &MeshId) -> Result<Said> {
        let path = self.said_path(mesh);
        let Some(text) = private_file::read(&path)? else { return Ok(Said::default()) };
        let bad = |why: String| Error::BadFile { path: path.clone(), why };
        let file: File = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if file.mesh_id != *mesh {
            return Err(bad(format!("it belongs to mesh {}, not to {mesh}", file.mesh_id)));
        }
        Ok(Said { status: file.status, summary: file.summary })
    }

    /// Changes what is said on each new connection.
    ///
    /// # Errors
    /// Those of [`Home::said`], and when the file cannot be written.
    pub fn keep_said(&self, mesh: &MeshId, change: impl FnOnce(&mut Said)) -> Result<()> {
        let _lock = self.alone()?;
        let mut said = self.said(mesh)?;
        change(&mut said);
        let path = self.said_path(mesh);
        if said == Said::default() {
            return private_file::remove(&path);
        }
        let Said { status, summary } = said;
        let file = File { mesh_id: mesh.clone(), status, summary };
        let text = serde_json::to_string(&file)
            .map_err(|error| Error::BadFile { path: path.clone(), why: error.to_string() })?;
        private_file::write(&path, format!("{text}\n").as_bytes())
    }

    pub(crate) fn said_path(&self, mesh: &MeshId) -> PathBuf {
        self.dir().join("said").join(format!("{mesh}.json"))
    }
}

impl Connection {
    /// Says anew what is kept, until that is what was said: somebody may say something else meanwhile. `told` is what was said on
    /// this connection or the one before, and what is not so any more is taken back.
    ///
    /// # Errors
    /// Those of [`Home::said`] and [`Connection::tell`].
    pub async fn say_again(&self, home: &Home, mesh: &MeshId, told: &mut Said) -> Result<()> {
        loop {
            let said = home.said(mesh)?;
            if let Some(status) = said.status.or(told.status.map(|_| Status::Idle)) {
                self.set_status(status, StatusSource::Manual).await?;
            }
            if said.summary.is_some() || told.summary.is_some() {
                self.set_summary(said.summary.clone().unwrap_or_default()).await?;
            }
            *told = said;
            if home.said(mesh)? == *told {
                return Ok(());
            }
        }
    }
}

/// The file as it stands. Two ids that differ in letter case are one file on some disks, so it says whose it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object with what was said")]
struct File {
    mesh_id: MeshId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::MAIL;
    use crate::hostile::{Hostile, WELCOME};
    use crate::samples::{home, membership};

    fn mesh(seed: u8) -> MeshId {
        MeshId::from_random([seed; 32])
    }

    #[test]
    fn what_was_said_is_kept_for_its_mesh_until_it_is_taken_back_or_the_mesh_is_left() {
        let (_dir, home) = home();
        home.keep_said(&mesh(1), |said| said.set_status(Status::Dnd)).unwrap();
        home.keep_said(&mesh(1), |said| said.set_summary(&"ü".repeat(600))).unwrap();
        let said = home.said(&mesh(1)).unwrap();
        assert_eq!((said.status, said.summary), (Some(Status::Dnd), Some("ü".repeat(512))));
        assert_eq!(home.said(&mesh(2)).unwrap(), Said::default());
        home.keep_said(&mesh(1), |said| said.set_status(Status::Idle)).unwrap();
        home.keep_said(&mesh(1), |said| said.set_summary("")).unwrap();
        assert!(!home.said_path(&mesh(1)).exists(), "nothing to say needs no file");
        home.keep_said(&mesh(1), |said| said.set_summary("x")).unwrap();
        std::fs::rename(home.said_path(&mesh(1)), home.said_path(&mesh(2))).unwrap();
        assert!(home.said(&mesh(2)).unwrap_err().to_string().contains("it belongs to mesh"));
        home.add(&membership("team", 2), &membership("team", 2).identity.public()).unwrap();
        home.remove(&mesh(2)).unwrap();
        assert!(!home.said_path(&mesh(2)).exists());
    }

    #[test]
    fn who_has_a_status_to_say_announces_nothing_before_that_would_bring_mail() {
        let announced = |said: Said| {
            let mut place = Place { capabilities: Some(vec![MAIL.into(), TOPICS.into()]), ..Place::default() };
            said.prepare(&mut place);
            place.capabilities.unwrap()
        };
        assert_eq!(announced(Said { status: Some(Status::Dnd), summary: None }), [TOPICS]);
        assert_eq!(announced(Said { status: None, summary: Some("x".into()) }), [MAIL, TOPICS]);
    }

    /// A broker that notes what is said to it, and the words of it.
    async fn listener(on_status: impl Fn() + Clone + Send + 'static) -> (Hostile, Arc<Mutex<Vec<Value>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let broker = Hostile::web_socket(move |_, asked| {
            match asked["type"].as_str() {
                Some("hello") => return Some(vec![WELCOME.to_owned()]),
                Some("set_status") => on_status(),
                _ => {}
            }
            if asked["type"] == "set_profile" {
                let ack = json!({"type": "ack", "id": asked["_reqId"], "messageId": "", "queued": false});
                return Some(vec![ack.to_string()]);
            }
            ear.lock().unwrap().push(asked.get("status").or(asked.get("summary")).cloned().unwrap_or_default());
            Some(vec![])
        });
        (broker.await, heard)
    }

    #[tokio::test]
    async fn what_is_kept_is_said_on_each_connection_and_taken_back_once() {
        let (_dir, home) = home();
        let (broker, heard) = listener(|| ()).await;
        let mut told = Said::default();
        let mut say = async || {
            let (connection, _) = broker.dial().open().await.unwrap();
            connection.say_again(&home, &mesh(1), &mut told).await.unwrap();
            std::mem::take(&mut *heard.lock().unwrap())
        };
        assert_eq!(say().await, Vec::<Value>::new());
        home.keep_said(&mesh(1), |said| *said = Said { status: Some(Status::Dnd), summary: Some("tests".into()) })
            .unwrap();
        assert_eq!(say().await, ["dnd", "tests"]);
        assert_eq!(say().await, ["dnd", "tests"]);
        home.keep_said(&mesh(1), |said| *said = Said::default()).unwrap();
        assert_eq!(say().await, ["idle", ""]);
        assert_eq!(say().await, Vec::<Value>::new());
    }

    #[tokio::test]
    async fn what_is_said_meanwhile_counts() {
        let (_dir, home) = home();
        home.keep_said(&mesh(1), |said| said.set_status(Status::Dnd)).unwrap();
        let meanwhile = home.clone();
        let (broker, heard) =
            listener(move || meanwhile.keep_said(&mesh(1), |said| said.set_status(Status::Idle)).unwrap()).await;
        let (connection, _) = broker.dial().open().await.unwrap();
        connection.say_again(&home, &mesh(1), &mut Said::default()).await.unwrap();
        assert_eq!(*heard.lock().unwrap(), ["dnd", "idle"]);
    }
}
