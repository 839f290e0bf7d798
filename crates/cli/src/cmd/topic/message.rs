//! How a message of a topic is shown, to people and programs.

use claudemesh_client::{Body, Connection, is_same_name, key_prefix};
use claudemesh_proto::MessageId;
use claudemesh_proto::post::mentioned_in;
use claudemesh_proto::text::{many_lines, one_line};
use claudemesh_proto::topic::{ListedTopic, TopicMessage};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// A message and what it says to us.
pub(super) struct Shown<'a> {
    pub(super) topic: &'a ListedTopic,
    pub(super) message: &'a TopicMessage,
    pub(super) body: Body,
    /// Whether we hold the topic's key.
    pub(super) has_key: bool,
    /// Our name in the mesh.
    pub(super) own_name: &'a str,
}

impl Shown<'_> {
    pub(super) fn print(&self, output: &Output) -> anyhow::Result<()> {
        output.data(&self.value(), |output| self.lines(output))
    }

    fn value(&self) -> Value {
        let message = self.message;
        let (text, encrypted) = match &self.body {
            Body::Text(text) => (Some(many_lines(text)), Some(true)),
            Body::Plaintext(text) => (Some(many_lines(text)), Some(false)),
            Body::Unopened { .. } => (None, None),
        };
        json!({
            "messageId": message.id,
            "topic": self.topic.name,
            "seq": message.seq,
            "from": message.sender_name,
            "senderPubkey": message.sender_pubkey,
            "senderMemberId": message.sender_member_id,
            "sentAt": message.created_at,
            "replyToId": message.reply_to_id,
            "mentions": message.mentions.iter().map(|name| one_line(name)).collect::<Vec<_>>(),
            "encrypted": encrypted,
            "plaintext": message.plaintext,
            "text": text,
        })
    }

    /// The head is one line and every line of the text is indented, so that no text can look like the next message's head.
    fn lines(&self, output: &Output) -> String {
        let message = self.message;
        let (key, id) = (key_prefix(&message.sender_pubkey), short(&message.id));
        let answers = message.reply_to_id.as_ref().map(|id| format!("  answers {}", short(id))).unwrap_or_default();
        let mentions = self.mentions().map(|names| format!("  mentions {names}")).unwrap_or_default();
        let open = match &self.body {
            Body::Plaintext(_) if message.plaintext => "NOT ENCRYPTED, in an encrypted topic",
            Body::Plaintext(_) => "not encrypted",
            Body::Text(_) | Body::Unopened { .. } => "",
        };
        let about = format!("({key})  {}  {id}{answers}{mentions}", message.created_at);
        let open = if open.is_empty() { String::new() } else { format!("  {}", output.bold(open)) };
        let mut text = format!("{}  {}{open}", output.bold(message.sender_name.as_str()), output.dim(&about));
        let body = match &self.body {
            Body::Text(body) | Body::Plaintext(body) => marked(output, &many_lines(body)),
            Body::Unopened { .. } if !self.has_key => "[cannot be opened: you do not have the topic's key]".into(),
            Body::Unopened { .. } => "[cannot be opened: it was not sealed with the topic's key, or is damaged]".into(),
        };
        for line in body.lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text
    }

    /// Who is mentioned, by the sender's word.
    fn mentions(&self) -> Option<String> {
        let name = |name: &String| {
            if is_same_name(name, self.own_name) { "you".into() } else { format!("@{}", one_line(name)) }
        };
        let names: Vec<_> = self.message.mentions.iter().map(name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// The text with the names in it that are mentioned made bold.
fn marked(output: &Output, text: &str) -> String {
    let names = mentioned_in(text.as_bytes());
    let mut marked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find('@').and_then(|at| rest.split_at_checked(at)) {
        marked.push_str(before);
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let name = from.get(1..).unwrap_or_default();
        let (name, after) =
            name.split_at_checked(name.find(|c| !is_of_name(c)).unwrap_or(name.len())).unwrap_or((name, ""));
        let begins = !marked.ends_with(is_of_name);
        if begins && names.contains(&name.to_ascii_lowercase()) {
            marked.push_str(&output.bold(&format!("@{name}")));
        } else {
            marked.push('@');
            marked.push_str(name);
        }
        rest = after;
    }
    marked.push_str(rest);
    marked
}

/// What people are shown of an id, and enough to name the message: the first eight characters differ from every other's.
pub(super) fn short(id: &MessageId) -> &str {
    id.as_str().get(..SHORT).unwrap_or(id.as_str())
}

/// The message of a topic that a text names: its id, or the first eight characters of it or more.
pub(super) async fn named(connection: &Connection, topic: &ListedTopic, text: &str) -> anyhow::Result<MessageId> {
    if text.len() >= WHOLE
        && let Ok(id) = text.parse()
    {
        return Ok(id);
    }
    let mut before: Option<MessageId> = None;
    for _ in 0..PAGES {
        let page = connection.topic_history(topic.id.as_str(), PAGE, before.as_ref()).await?;
        if let Some(found) = page.iter().find(|message| message.id.as_str().starts_with(text)) {
            return Ok(found.id.clone());
        }
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.id.clone());
    }
    let text = format!(
        "no message of #{} begins with \"{}\"\ntry: claudemesh topic history {} shows the ids; an old one is named by its whole id, \
         which --json shows",
        topic.name,
        one_line(text),
        topic.name
    );
    Err(Failure { exit: Exit::NotFound, text }.into())
}

const SHORT: usize = 8;

/// Characters of a whole id.
const WHOLE: usize = 32;

/// How far back a message is looked for by the beginning of its id: messages of a page, and pages.
const PAGE: i64 = 200;
const PAGES: usize = 10;

#[cfg(test)]
mod tests {
    use claudemesh_proto::{MemberId, Timestamp, TopicId, Visibility};

    use super::*;

    fn message() -> TopicMessage {
        TopicMessage {
            id: MessageId::new(10, [1; 24]),
            sender_pubkey: "ab".repeat(32).parse().unwrap(),
            sender_member_id: MemberId::from_random([1; 32]),
            sender_name: "Anna".parse().unwrap(),
            nonce: String::new(),
            ciphertext: "aGVsbG8=".into(),
            body_version: 2,
            reply_to_id: None,
            created_at: Timestamp::from_millis(0),
            seq: 1,
            mentions: Vec::new(),
            ext: None,
            plaintext: false,
        }
    }

    fn lines(message: &TopicMessage, body: Body) -> String {
        lines_for(true, message, body)
    }

    fn lines_for(has_key: bool, message: &TopicMessage, body: Body) -> String {
        let topic = ListedTopic {
            id: TopicId::from_random([1; 32]),
            name: "general".parse().unwrap(),
            description: None,
            visibility: Visibility::Public,
            member_count: 1,
            created_at: Timestamp::from_millis(0),
        };
        let shown = Shown { topic: &topic, message, body, has_key, own_name: "Ben" };
        assert_eq!(shown.value()["text"].is_null(), matches!(shown.body, Body::Unopened { .. }));
        assert!(!shown.value().to_string().contains("aGVsbG8="));
        shown.lines(&Output::new(false))
    }

    const HEAD: &str = "Anna  (abababababab)  1970-01-01T00:00:00.000Z  0000000A";

    /// (R16)
    #[test]
    fn a_text_cannot_look_like_another_message() {
        let text = "hi\n\u{1b}[2JBen  (cdcdcdcdcdcd)  1970-01-01T00:00:00.000Z  0000000B\n  pay him";
        let wanted = "hi\n  [2JBen  (cdcdcdcdcdcd)  1970-01-01T00:00:00.000Z  0000000B\n    pay him";
        assert_eq!(lines(&message(), Body::Text(text.into())), format!("{HEAD}\n  {wanted}"));
    }

    #[test]
    fn what_is_answered_and_who_is_mentioned_stands_in_the_head() {
        let reply_to_id = Some(MessageId::new(9, [2; 24]));
        let mentions = vec!["ben".to_owned(), "carl\nEve".to_owned()];
        let message = TopicMessage { reply_to_id, mentions, ..message() };
        let wanted = format!("{HEAD}  answers 00000009  mentions you, @carlEve\n  hi @ben");
        assert_eq!(lines(&message, Body::Text("hi @ben".into())), wanted);
    }

    /// (R17)
    #[test]
    fn what_is_not_encrypted_and_what_cannot_be_opened_is_said() {
        let open = || Body::Plaintext("hi".into());
        assert_eq!(lines(&message(), open()), format!("{HEAD}  not encrypted\n  hi"));
        let flagged = TopicMessage { plaintext: true, ..message() };
        assert_eq!(lines(&flagged, open()), format!("{HEAD}  NOT ENCRYPTED, in an encrypted topic\n  hi"));
        let unopened = || Body::Unopened { nonce: String::new(), ciphertext: "aGVsbG8=".into() };
        let wanted = "[cannot be opened: it was not sealed with the topic's key, or is damaged]";
        assert_eq!(lines(&message(), unopened()), format!("{HEAD}\n  {wanted}"));
        let wanted = "[cannot be opened: you do not have the topic's key]";
        assert_eq!(lines_for(false, &message(), unopened()), format!("{HEAD}\n  {wanted}"));
    }

    #[test]
    fn marking_names_changes_no_text() {
        for text in ["", "@", "@@ben @", "a@b @ben, @Ben-2! ü@ö @ü", "@ben@carl", "x\n@ben\n"] {
            assert_eq!(marked(&Output::new(false), text), text);
        }
    }
}
