//! The broker's REST interface for one command, with a key that ends with it.

use claudemesh_client::{Bearer, Line, Membership, PASSING_KEY_LIFE, Passing};
use claudemesh_proto::TopicName;
use claudemesh_proto::api_key::Capability;

/// What a command asks for there.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'a> {
    /// A word for it in the list of keys.
    pub(crate) purpose: &'a str,
    pub(crate) capabilities: &'a [Capability],
    /// The one topic that it is about; none for all.
    pub(crate) topic: Option<&'a TopicName>,
}

/// Does something with an API key, which is ended afterwards, whatever came of it.
pub(crate) async fn with_bearer<T>(
    line: &mut Line,
    mesh: &Membership,
    errand: Errand<'_>,
    talk: impl AsyncFnOnce(&mut Line, &Bearer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Errand { purpose, capabilities, topic } = errand;
    let passing = Passing { purpose, capabilities, topic, life: PASSING_KEY_LIFE };
    let key = line.connection().passing_key(&mesh.broker_url, passing).await?;
    let outcome = talk(line, &key.bearer).await;
    line.connection().end_api_key(&key.id).await;
    outcome
}
