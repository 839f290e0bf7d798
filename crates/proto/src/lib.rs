//! The words that the broker and its clients say to each other: frames and what is in them, the limits both keep to, the codes of
//! refusals, and the exact texts that are signed. It must not know sockets, clocks, randomness, databases or cryptography.
//!
//! # Glossary
//!
//! - **mesh**: the tenant and trust boundary; everything below belongs to exactly one.
//! - **owner key**: the key that signs a mesh's invites; its secret half stays with the owner.
//! - **member**: a lasting identity in a mesh, known by its public key; an `admin` or a `member`.
//! - **session**: one run of an agent, with a key of its own that a member vouches for.
//! - **connection**: one open WebSocket; a **presence** is what others see of it.
//! - **lease**: the right of a connection that broke to come back as the same presence within the grace time.
//! - **message**: one immutable sealed body with its target.
//! - **delivery**: one message for one recipient, with the state it is in.
//! - **claim**: a connection's exclusive hold on a delivery for a while.
//! - **invite**: an owner-signed token that makes its bearer a member.
//! - **group**: a name that members gather under; **grant**: what a member lets a sender do to it.
//! - **topic**: a conversation with a history; its **key** seals what is written there, and each member has a sealed **copy** of it.
//! - **post**: a message of a topic; a **reply** answers one, and a **mention** names a member in it, who gets a **notification**.
//! - **cursor**: how far a member has acknowledged a topic. **stream**: a topic as it is written, read over HTTP.
//! - **status**: whether a presence is `idle`, `working` or `dnd`; **system event**: what is told to whoever is connected.
//! - **API key**: a secret by which a program uses the REST interface in a member's name, with **capabilities** (what it lets do) and
//!   **scopes** (for which topics).
//! - **audit log**: the hash chain of what happened in a mesh; a **checkpoint** is the broker's signature under its head.
//! - **ext**: a JSON object beside a ciphertext that the broker carries byte for byte and does not look into.
#![warn(missing_docs)]

pub mod api_key;
pub mod audit;
pub mod ban;
pub mod canonical;
pub mod error;
pub mod event;
pub mod frame;
pub mod grant;
pub mod group;
pub mod hello;
pub mod id;
pub mod invite;
pub mod key;
pub mod limits;
pub mod member;
pub mod mesh;
pub mod message;
pub mod post;
pub mod presence;
pub mod text;
pub mod time;
pub mod topic;

pub use error::ErrorCode;
pub use frame::{Addressed, BrokerFrame, ClientFrame, ErrorFrame, Peek};
pub use group::{GroupName, GroupSet};
pub use id::{ApiKeyId, ConnectionId, InviteId, MemberId, MeshId, MessageId, NotificationId, PresenceId, TopicId};
pub use key::{PublicKey, Signature};
pub use member::MemberRole;
pub use mesh::Slug;
pub use message::{DeliveryState, Priority, Target};
pub use presence::{Status, StatusSource};
pub use text::DisplayName;
pub use time::Timestamp;
pub use topic::{TopicName, TopicRole, TopicSought, Visibility};
