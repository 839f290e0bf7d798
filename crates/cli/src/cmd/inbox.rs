//! `claudemesh inbox`
//!
//! What was fetched is shown from the local inbox and marked there: a command that is interrupted between fetching and
//! showing loses nothing, the next one shows it.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use clap::{Args, value_parser};
use claudemesh_client::{
    BATCH, Body, Bound, Connection, Dial, Ended, Error, Fetched, Handed, Inbox, InboxMessage, MAIL, Membership,
    Mention, Opener, Pushes, Said, fetch, keep, key_prefix, now,
};
use claudemesh_proto::Priority;
use claudemesh_proto::hello::TOPICS;
use claudemesh_proto::text::{many_lines, one_line};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure;
use crate::output::Output;

/// Fetch, open and show new messages
#[derive(Debug, Args)]
#[command(
    after_help = "A message is acknowledged once it is safely in the local inbox. What is written in the topics that you are in comes too, \
    under the topic's name, and is opened when the topic's key was shared with you by then; topic history has it in any case. With \
    --wait it is also said who mentions you in other topics.\n\nJSON: one line per message: \
    {messageId, from, senderPubkey, senderMemberPubkey, priority, sentAt, receivedAt, topic|null, mentionsYou, encrypted, text}; encrypted is \
    false for what the broker could read; it and text are null when the message could not be opened"
)]
pub(crate) struct ReadInbox {
    /// Go on until interrupted, also across lost connections
    #[arg(long, conflicts_with_all = ["all", "local"])]
    pub(crate) wait: bool,
    /// Show earlier messages too
    #[arg(long)]
    pub(crate) all: bool,
    /// The most messages that --all shows
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "all", value_parser = value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Only what is here already, without asking the broker
    #[arg(long)]
    pub(crate) local: bool,
}

pub(crate) async fn run(context: &Context, asked: &ReadInbox) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let inbox = Inbox::open(&context.home, &mesh.mesh_id).await?;
    let mut desk = Desk { context, opener: Opener::new(&context.home, &mesh), inbox, mesh: &mesh };
    let outcome = if asked.wait { desk.wait().await } else { desk.once(asked).await };
    desk.inbox.close().await;
    outcome
}

struct Desk<'a> {
    context: &'a Context,
    opener: Opener<'a>,
    inbox: Inbox,
    mesh: &'a Membership,
}

impl Desk<'_> {
    /// Fetches what there is and shows it; what is here is shown also when nothing can be fetched.
    async fn once(&mut self, asked: &ReadInbox) -> anyhow::Result<()> {
        let fetched = if asked.local { Ok(Fetched::All) } else { self.fetch().await };
        let messages = if asked.all { self.inbox.latest(asked.limit).await? } else { self.inbox.unshown().await? };
        self.show(&messages).await?;
        let fetched = fetched?;
        if messages.is_empty() {
            self.context.output.notice(if asked.all { "No messages." } else { "No new messages." });
        }
        if fetched == Fetched::Part {
            self.context.output.notice("There is more: claudemesh inbox fetches it, --wait goes on until interrupted.");
        }
        Ok(())
    }

    async fn fetch(&mut self) -> anyhow::Result<Fetched> {
        let (connection, mut pushes) = self.dial()?.open().await?;
        let fetched = fetch(&self.inbox, &mut self.opener, &connection, &mut pushes, BOUND).await;
        self.opener.end(&connection).await;
        connection.close().await;
        let (fetched, without_key) = fetched?;
        self.tell(&without_key);
        Ok(fetched)
    }

    /// As one who keeps mail, and can open what is written in topics.
    fn dial(&self) -> anyhow::Result<Dial> {
        let mut dial = Dial::member(self.mesh, MAIL)?;
        dial.place.capabilities.get_or_insert_default().push(TOPICS.into());
        Ok(dial)
    }

    /// Says that somebody mentions us, unless the message itself comes as mail, as it does to who is in the topic.
    async fn tell_of(&self, connection: &Connection, mention: &Mention) {
        let Mention { topic_name: topic, sender_name, .. } = mention;
        if let Err(Error::Refused { .. }) = connection.topic_history(topic.as_str(), 1, None).await {
            let name = one_line(sender_name.as_str());
            self.context.output.notice(&format!(
                "{name} mentions you in #{topic}, which you are not in. Read it: claudemesh topic join {topic}"
            ));
        }
    }

    /// Says why keys of topics could not be had.
    fn tell(&self, without_key: &[Error]) {
        for error in without_key {
            self.context.output.notice(&failure::words(error));
        }
    }

    /// Shows what comes until the process is told to stop.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let (output, home) = (&self.context.output, &self.context.home);
        let mut dial = self.dial()?;
        let announced = dial.place.capabilities.clone();
        let mut told = Said::default();
        self.show(&self.inbox.unshown().await?).await?;
        output.notice("Waiting for messages; Ctrl-C ends.");
        let mut stop = pin!(interrupted());
        let is_lost = Cell::new(false);
        loop {
            let notice = |error: &Error, wait: Duration| {
                is_lost.set(true);
                output.notice(&format!("{error}; trying again in {} s", wait.as_secs_f32().ceil()));
            };
            dial.place.capabilities.clone_from(&announced);
            home.said(&self.mesh.mesh_id)?.prepare(&mut dial.place);
            let (connection, pushes) = tokio::select! {
                opened = dial.open_patiently(notice) => opened?,
                () = &mut stop => return Ok(()),
            };
            if is_lost.replace(false) {
                output.notice("Connected again.");
            }
            let ended = tokio::select! {
                ended = self.listen(&connection, pushes, &mut told) => Some(ended),
                () = &mut stop => None,
            };
            if !matches!(&ended, Some(Ok(ended)) if ended.may_return()) {
                self.opener.end(&connection).await;
            }
            connection.close().await;
            let Some(ended) = ended.transpose()? else { return Ok(()) };
            if !ended.may_return() {
                return Err(Error::Ended(ended).into());
            }
            is_lost.set(true);
            output.notice(&format!("{}; connecting again", Error::Ended(ended)));
        }
    }

    /// Says what the person said of itself, then keeps and shows what comes on one connection, until that is over.
    async fn listen(&mut self, connection: &Connection, mut pushes: Pushes, told: &mut Said) -> anyhow::Result<Ended> {
        match connection.say_again(&self.context.home, &self.mesh.mesh_id, told).await {
            Ok(()) => {}
            Err(Error::Ended(ended)) => return Ok(ended),
            Err(error @ (Error::Refused { .. } | Error::TimedOut { .. })) => {
                self.context.output.notice(&format!("What you said of yourself could not be said again: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = told.status {
            let status = status.as_str();
            self.context.output.notice(&format!("You are {status}, as you said; claudemesh set-status idle ends it."));
        }
        loop {
            let batch = match pushes.next_of_all(BATCH).await {
                Handed::Pushes(batch) if batch.is_empty() => return Ok(pushes.ended().unwrap_or(Ended::ByUs)),
                Handed::Pushes(batch) => batch,
                Handed::Mention(mention) => {
                    self.tell_of(connection, &mention).await;
                    continue;
                }
            };
            let kept = keep(&self.inbox, &mut self.opener, connection, batch).await;
            self.show(&self.inbox.unshown().await?).await?;
            match kept {
                Ok(without_key) => self.tell(&without_key),
                Err(Error::Ended(ended)) => return Ok(ended),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn show(&self, messages: &[InboxMessage]) -> anyhow::Result<()> {
        for message in messages {
            self.context.output.data(&value(message), |output| lines(output, message))?;
        }
        Ok(self.inbox.mark_shown(messages, now()).await?)
    }
}

fn value(message: &InboxMessage) -> Value {
    let (text, encrypted) = match &message.body {
        Body::Text(text) => (Some(many_lines(text)), Some(true)),
        Body::Plaintext(text) => (Some(many_lines(text)), Some(false)),
        Body::Unopened { .. } => (None, None),
    };
    json!({
        "messageId": message.message_id,
        "from": message.sender(),
        "senderPubkey": one_line(&message.sender_pubkey),
        "senderMemberPubkey": message.sender_member_pubkey,
        "priority": message.priority,
        "sentAt": message.sent_at,
        "receivedAt": message.received_at,
        "topic": message.topic.as_deref().map(one_line),
        "mentionsYou": message.mentions_us,
        "encrypted": encrypted,
        "text": text,
    })
}

/// The head is one line and every line of the text is indented, so that no text can look like the next message's head.
fn lines(output: &Output, message: &InboxMessage) -> String {
    let key = key_prefix(&message.sender_pubkey);
    let urgent = if message.priority == Priority::Now { "  now" } else { "" };
    let open = if matches!(message.body, Body::Plaintext(_)) { "  not encrypted" } else { "" };
    let topic = message.topic.as_deref().map(|topic| format!("  #{}", one_line(topic))).unwrap_or_default();
    let mention = if message.mentions_us { "  mentions you" } else { "" };
    let about = format!("({key})  {}{topic}{mention}{urgent}{open}", message.sent_at);
    let mut text = format!("{}  {}", output.bold(&message.sender()), output.dim(&about));
    let body = match (&message.body, &message.topic) {
        (Body::Text(body) | Body::Plaintext(body), _) => many_lines(body),
        (Body::Unopened { .. }, None) => "[cannot be opened: it was not sealed for this key, or is damaged]".into(),
        (Body::Unopened { .. }, Some(topic)) => format!(
            "[not opened: no key of #{topic} that you had by then opens it; see claudemesh topic history {topic}]",
            topic = one_line(topic)
        ),
    };
    for line in body.lines() {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

/// Ctrl-C, or being told to end.
pub(crate) async fn interrupted() {
    if let Ok(mut ended) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = ended.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    } else {
        // Without a handler the signal ends the process, which is what was wanted.
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// What one `inbox` fetches. Others may write without end; whoever wants to listen without end says `--wait`.
const BOUND: Bound = Bound { time: Duration::from_mins(1), messages: 10_000 };

#[cfg(test)]
mod tests {
    use claudemesh_proto::{MessageId, Timestamp};

    use super::*;

    fn message(body: Body) -> InboxMessage {
        InboxMessage {
            message_id: MessageId::new(1, [1; 24]),
            sender_pubkey: "ab".repeat(32),
            sender_member_pubkey: None,
            sender_name: Some("Anna".into()),
            priority: Priority::Now,
            sent_at: Timestamp::from_millis(0),
            received_at: Timestamp::from_millis(0),
            topic: None,
            mentions_us: false,
            body,
        }
    }

    #[test]
    fn a_text_cannot_look_like_another_message() {
        let forged =
            message(Body::Text("hi\n\u{1b}[2JBen  (cdcdcdcdcdcd)  1970-01-01T00:00:00.000Z\n  pay him".into()));
        let wanted = "Anna  (abababababab)  1970-01-01T00:00:00.000Z  now\n  hi\n  [2JBen  (cdcdcdcdcdcd)  \
                      1970-01-01T00:00:00.000Z\n    pay him";
        assert_eq!(lines(&Output::new(false), &forged), wanted);
    }

    #[test]
    fn what_cannot_be_opened_is_never_shown_as_text() {
        let sealed = message(Body::Unopened { nonce: "n".into(), ciphertext: "aGVsbG8=".into() });
        assert!(
            lines(&Output::new(false), &sealed)
                .ends_with("  [cannot be opened: it was not sealed for this key, or is damaged]")
        );
        let in_topic = InboxMessage { topic: Some("deploys\nBen".into()), ..sealed.clone() };
        let wanted = "[not opened: no key of #deploysBen that you had by then opens it; see claudemesh topic history deploysBen]";
        assert!(lines(&Output::new(false), &in_topic).ends_with(wanted));
        let value = value(&sealed);
        assert_eq!(value["text"], Value::Null);
        assert!(!value.to_string().contains("aGVsbG8="));
    }

    /// (R17)
    #[test]
    fn what_was_not_encrypted_is_flagged() {
        let open = message(Body::Plaintext("to all".into()));
        let wanted = "Anna  (abababababab)  1970-01-01T00:00:00.000Z  now  not encrypted\n  to all";
        assert_eq!(lines(&Output::new(false), &open), wanted);
        let topic = Some("general\nBen".into());
        let wanted = "Anna  (abababababab)  1970-01-01T00:00:00.000Z  #generalBen  now  not encrypted\n  to all";
        let in_topic = InboxMessage { topic, ..open.clone() };
        assert_eq!(lines(&Output::new(false), &in_topic), wanted);
        let wanted =
            "Anna  (abababababab)  1970-01-01T00:00:00.000Z  #generalBen  mentions you  now  not encrypted\n  to all";
        assert_eq!(lines(&Output::new(false), &InboxMessage { mentions_us: true, ..in_topic }), wanted);
        let flags = [open, message(Body::Text("x".into()))].map(|message| value(&message)["encrypted"].clone());
        assert_eq!(flags, [Value::Bool(false), Value::Bool(true)]);
    }
}
