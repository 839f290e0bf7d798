//! Encrypting and decrypting with secret keys: direct messages, what is said in topics, and the keys of topics. No broker may have
//! it. It must not know sockets, storage or what a plaintext means.
//!
//! - [`Channel`]: direct messages between one identity and one peer (`crypto_box_easy` over converted keys).
//! - [`seal_body`], [`open_body`]: bodies of a topic, version 2 (`crypto_secretbox_easy`).
//! - [`open_topic_key`], [`pass_topic_key`]: the key of a topic, taken from its sealed copy and sealed again for another member.
//! - [`Sealed`]: what travels, and its two wire strings. [`base64_encode`] and [`base64_decode`] are for bodies that are not sealed.
//!
//! Opening fails without saying why, and what cannot be opened is never taken for plain text. A box proves that one of two
//! keys made it: the peer, or oneself. A topic body proves only that some holder of the topic key made it.
#![warn(missing_docs)]

mod direct;
mod sealed;
mod secretbox;
mod topic;
mod wire;

pub use claudemesh_seal::{SealError, SealedTopicKey, TopicKey};
pub use direct::Channel;
pub use sealed::{Sealed, Unopened};
pub use topic::{open_body, open_topic_key, pass_topic_key, seal_body};
pub use wire::{BadBase64, base64_decode, base64_encode};
