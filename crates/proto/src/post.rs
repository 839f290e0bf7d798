//! Messages of a topic: what they have besides the parts of every message.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::limits::{MAX_MENTIONS, MAX_NAME_CHARS};
use crate::message::{Invalid, Send};

/// What the ciphertext of a topic's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum BodyVersion {
    /// Base64 of UTF-8 text; the nonce means nothing.
    #[default]
    Plain,
    /// Base64 of a secretbox under the topic's key.
    Sealed,
}

/// The number is neither 1 nor 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 or 2")]
pub struct BadBodyVersion;

impl TryFrom<i64> for BodyVersion {
    type Error = BadBodyVersion;

    fn try_from(number: i64) -> Result<Self, BadBodyVersion> {
        match number {
            1 => Ok(Self::Plain),
            2 => Ok(Self::Sealed),
            _ => Err(BadBodyVersion),
        }
    }
}

impl From<BodyVersion> for i64 {
    fn from(version: BodyVersion) -> Self {
        match version {
            BodyVersion::Plain => 1,
            BodyVersion::Sealed => 2,
        }
    }
}

/// What somebody writes into a topic, besides the parts of every message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Post {
    /// What the ciphertext is.
    pub body_version: BodyVersion,
    /// Names that are mentioned, in lower case, without `@`.
    pub mentions: Vec<String>,
    /// The message that this one answers.
    pub reply_to_id: Option<String>,
}

impl Post {
    /// Reads those parts of a `send` or of a REST request. Without `mentions`, those of a plaintext are what it says.
    ///
    /// # Errors
    /// [`Invalid`] names the first field that is out of order.
    pub fn read(
        body_version: Option<i64>,
        mentions: Option<Vec<String>>,
        reply_to_id: Option<String>,
        (nonce, ciphertext): (&str, &str),
    ) -> Result<Self, Invalid> {
        let wrong = |field, why| Err(Invalid { field, why });
        let Ok(body_version) = body_version.map_or(Ok(BodyVersion::default()), BodyVersion::try_from) else {
            return wrong("bodyVersion", "must be 1 or 2");
        };
        if body_version == BodyVersion::Sealed && nonce.is_empty() {
            return wrong("nonce", "must be 24 bytes in padded standard base64 for bodyVersion 2");
        }
        if reply_to_id.as_ref().is_some_and(|id| id.parse::<MessageId>().is_err()) {
            return wrong("replyToId", "must be the id of a message");
        }
        let Some(mut mentions) = named(mentions.unwrap_or_default()) else {
            return wrong("mentions", "must be at most 16 names of 1-64 letters, digits, _ and -");
        };
        if mentions.is_empty() && body_version == BodyVersion::Plain {
            let text = data_encoding::BASE64.decode(ciphertext.as_bytes()).unwrap_or_default();
            mentions = mentioned_in(&text);
        }
        Ok(Self { body_version, mentions, reply_to_id })
    }

    pub(crate) fn of(send: &mut Send) -> Result<Self, Invalid> {
        let (mentions, reply) = (send.mentions.take(), send.reply_to_id.take());
        Self::read(send.body_version, mentions, reply, (&send.nonce, &send.ciphertext))
    }
}

/// Names as they are compared; none when there are too many, or one is no name that can be mentioned. A frame has room for many
/// thousands: what is too long is not read.
fn named(mentions: Vec<String>) -> Option<Vec<String>> {
    if mentions.len() > MAX_MENTIONS {
        return None;
    }
    let mut names = Vec::new();
    for mention in mentions {
        let name = mention.strip_prefix('@').unwrap_or(&mention);
        if !(1..=MAX_NAME_CHARS).contains(&name.len()) || !name.bytes().all(is_of_name) {
            return None;
        }
        add(&mut names, name.to_ascii_lowercase());
    }
    Some(names)
}

/// Who is mentioned in a plaintext: `@` and 1-64 letters, digits, `_` and `-`, with none of these before and after. The first 16 of
/// them, in lower case.
pub fn mentioned_in(text: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut before = None;
    for (place, byte) in text.iter().enumerate() {
        let begins = *byte == b'@' && !before.is_some_and(is_of_name);
        before = Some(*byte);
        if !begins || names.len() == MAX_MENTIONS {
            continue;
        }
        let rest = text.get(place + 1..).unwrap_or_default();
        let name: Vec<u8> = rest.iter().copied().take_while(|byte| is_of_name(*byte)).collect();
        if (1..=MAX_NAME_CHARS).contains(&name.len()) {
            add(&mut names, String::from_utf8_lossy(&name).to_ascii_lowercase());
        }
    }
    names
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mention_stands_by_itself() {
        let cases: [(&str, &[&str]); 8] = [
            ("@ann", &["ann"]),
            ("hi @Ann, and (@b-o_b)! @ann", &["ann", "b-o_b"]),
            ("mail me@example.com", &[]),
            ("@", &[]),
            ("@@ann", &["ann"]),
            ("ünder@ann", &[]),
            ("ü@ann", &["ann"]),
            ("@ann.lee @all", &["ann", "all"]),
        ];
        for (text, names) in cases {
            assert_eq!(mentioned_in(text.as_bytes()), names, "{text}");
        }
        assert_eq!(mentioned_in(format!("@{} @x", "y".repeat(65)).as_bytes()), ["x"]);
        let many: Vec<String> = (0..20).map(|number| format!("@n{number}")).collect();
        assert_eq!(mentioned_in(many.join(" ").as_bytes()).len(), 16);
    }

    #[test]
    fn what_a_client_names_decides_and_must_be_names() {
        let read = |mentions: &[&str], version| {
            let mentions = mentions.iter().map(|&name| name.to_owned()).collect();
            Post::read(version, Some(mentions), None, ("n", "QGVjaG8=")).map(|post| post.mentions)
        };
        assert_eq!(read(&["@Ann", "bob", "ann"], Some(1)).unwrap(), ["ann", "bob"]);
        assert_eq!(read(&[], None).unwrap(), ["echo"], "a plaintext says it itself");
        assert_eq!(read(&[], Some(2)).unwrap(), [""; 0], "of a ciphertext that would be noise");
        assert_eq!(read(&["a b"], None).unwrap_err().field, "mentions");
        assert_eq!(read(&[], Some(3)).unwrap_err().field, "bodyVersion");
        assert_eq!(read(&["ann"; 16], None).unwrap(), ["ann"]);
        assert_eq!(read(&["ann"; 17], None).unwrap_err().field, "mentions", "the list is counted before it is read");
        assert_eq!(Post::read(Some(2), None, None, ("", "AAAA")).unwrap_err().field, "nonce");
        assert_eq!(Post::read(None, None, Some("no id".into()), ("", "AAAA")).unwrap_err().field, "replyToId");
    }
}
