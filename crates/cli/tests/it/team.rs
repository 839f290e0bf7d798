//! Anna, who made the mesh, and Ben, who joined it.

use claudemesh_client::{Home, Membership};

use crate::broker::Broker;
use crate::user::User;

pub(crate) struct Team {
    pub(crate) anna: User,
    pub(crate) ben: User,
    pub(crate) broker: Broker,
}

impl Team {
    pub(crate) fn new() -> Self {
        Self::at(Broker::start())
    }

    pub(crate) fn at(broker: Broker) -> Self {
        let (anna, ben) = (User::new(), User::new());
        anna.json_one(&["create", "team", "--broker", broker.url(), "--name", "Anna"]);
        let invite = anna.json_one(&["invite"]);
        ben.json_one(&["join", invite["url"].as_str().unwrap(), "--name", "Ben"]);
        Self { anna, ben, broker }
    }
}

/// What the library needs to be this person.
pub(crate) fn membership(user: &User) -> Membership {
    Home::at(user.home()).config().unwrap().mesh(None).unwrap().clone()
}
