//! From a push to a letter in the inbox. The order is the promise: opened, then committed, then acknowledged.

use claudemesh_proto::message::Push;

use crate::cipher::Cipher;
use crate::clock::now;
use crate::connection::Connection;
use crate::error::Result;
use crate::inbox::{Inbox, Letter};

/// Opens what was handed over, commits it to the inbox in one transaction, and acknowledges it. Returns what is new; a
/// redelivery is acknowledged again and not kept twice. The broker's events are not mail, and are passed over.
///
/// # Errors
/// When the inbox fails nothing is acknowledged, and the broker hands the same over again. When only the acks are lost
/// ([`crate::Error::Ended`]), everything is kept.
pub async fn keep(
    inbox: &Inbox,
    cipher: &Cipher,
    connection: &Connection,
    pushes: Vec<Box<Push>>,
) -> Result<Vec<Letter>> {
    let mail: Vec<_> = pushes.into_iter().filter(|push| push.subtype.as_deref() != Some("system")).collect();
    let letters = mail.iter().map(|push| Letter::of(push, cipher.open(push), now())).collect();
    let new = inbox.store(letters).await?;
    for push in &mail {
        connection.ack(push).await?;
    }
    Ok(new)
}
