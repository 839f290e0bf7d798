//! What everyone who talks to a broker uses: configuration and keys on disk, connecting and asking, sealing and opening, the
//! local inbox. It must not know the broker's insides, nor how anything is printed.
//!
//! A message goes out and comes in like this:
//!
//! - [`Home`] gives the [`Membership`]: which mesh, which broker, which key.
//! - [`Dial`] opens a [`Connection`] by a [`Handshake`]; pushes arrive in its [`Pushes`].
//! - [`Cipher`] seals a [`Draft`] into a `send`; [`Line`] sends it, again under the same id when the connection is lost.
//! - A [`Broadcast`] to an [`Audience`] is not sealed: nobody has one key for many.
//! - A [`Post`] to a topic is sealed under the topic's key, which a [`Bearer`] gets: see [`Held`]. A [`TopicStream`] reads along.
//! - A push is opened by an [`Opener`], kept by [`Inbox`], and only then acknowledged: see [`keep`].
//!
//! Load generators use [`Connection`] alone: [`Connection::submit`] many, collect the acks later.
#![warn(missing_docs)]

mod api_key;
mod audit;
mod backoff;
mod ban;
mod broadcast;
mod broker_url;
mod cipher;
mod clock;
mod config;
mod connection;
mod error;
mod grant;
mod group;
mod handshake;
mod home;
#[cfg(test)]
mod hostile;
mod http;
mod inbox;
mod invite;
mod join;
mod line;
mod link;
mod member;
mod mesh;
mod message;
mod message_id;
mod notification;
mod opener;
mod owner;
mod place;
mod post;
mod presence;
mod private_file;
mod receive;
mod resolve;
mod said;
#[cfg(test)]
mod samples;
mod tls;
mod topic;
mod topic_key;
mod topic_pin;
mod topic_stream;

pub use claudemesh_envelope::TopicKey;
pub use claudemesh_proto::hello::MAIL;

pub use api_key::{Bearer, PASSING_KEY_LIFE, Passing, PassingKey};
pub use backoff::Backoff;
pub use broadcast::{Audience, Broadcast};
pub use broker_url::{BadUrl, BrokerUrl};
pub use cipher::{Body, Cipher};
pub use clock::now;
pub use config::{Config, Membership};
pub use connection::{Connection, Ended, Handed, Pushes, Submitted};
pub use error::{Error, Kind, Result};
pub use handshake::{Handshake, attest};
pub use home::Home;
pub use inbox::{Inbox, InboxMessage};
pub use invite::{Invitation, Terms};
pub use join::{Joining, join};
pub use line::{Dial, Line};
pub use link::{BadLink, Invite, token_of};
pub use mesh::{Creation, create};
pub use message::{Draft, MAX_TEXT_BYTES, is_permanent};
pub use message_id::client_message_id;
pub use notification::{Mention, Notification};
pub use opener::Opener;
pub use owner::OwnerKey;
pub use place::{here, hostname};
pub use post::{Post, open_post};
pub use receive::{BATCH, Bound, Fetched, fetch, keep};
pub use resolve::{Addressee, Roster, Unresolved, is_same_name, is_short_key, key_prefix};
pub use said::Said;
pub use topic::NewTopic;
pub use topic_key::{Held, Newcomer};
pub use topic_pin::TopicPin;
pub use topic_stream::{TopicEvent, TopicStream};
