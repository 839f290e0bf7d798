//! Makes sealed copies of a topic's key, one for each member. The code that opens them is in `claudemesh-envelope` alone, which a
//! broker does not have. It must not know sockets, storage or whose keys are whose.
//!
//! 1. [`TopicKey::generate`] makes the key of a new topic.
//! 2. [`Sealer::ephemeral`] makes a throw-away X25519 pair; its public half is published with the topic.
//! 3. [`Sealer::seal`] makes the copy of one member: a [`SealedTopicKey`].
//! 4. Both are dropped, and with them every secret.
//!
//! What was in memory for that moment is gone afterwards only as far as a program can see to it: the types zero themselves,
//! the operating system may have written a page to disk.
#![warn(missing_docs)]

mod sealed;
mod sealer;
mod topic_key;

pub use sealed::{BadSealedKey, SealedTopicKey};
pub use sealer::{SealError, Sealer};
pub use topic_key::TopicKey;
