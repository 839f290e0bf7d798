//! `claudemesh topic tail`
//!
//! - An API key for the topic is made, and made anew before it ends.
//! - The topic's key is waited for, if nobody has shared it yet.
//! - The stream is opened, then what was written last is shown, then what comes: by the numbers of the messages each is shown once,
//!   also after the stream was lost and taken up again.
//! - Meanwhile the topic's key is shared with newcomers.

use std::pin::pin;
use std::time::Duration;

use clap::{Args, value_parser};
use claudemesh_client::{
    Backoff, Error, Held, Membership, Passing, PassingKey, TopicEvent, TopicKey, TopicStream, now, open_post,
};
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::topic::{ListedTopic, TopicMessage};
use claudemesh_proto::{MessageId, Timestamp};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::message::Shown;
use super::{Named, find, key};
use crate::cmd::inbox::interrupted;
use crate::context::Context;

/// Read along: show what was written last, and go on with what comes
#[derive(Debug, Args)]
#[command(
    after_help = "It goes on until interrupted, also across lost connections, and shares the topic's key with newcomers meanwhile. Who has \
    no copy of the key yet waits for somebody to share it; a topic that has no key is given one.\n\n\
    Example: claudemesh topic tail deploys\n\nJSON: as topic history, one line per message"
)]
pub(crate) struct ReadAlong {
    #[command(flatten)]
    pub(crate) topic: Named,
    /// How many earlier messages to show first
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(0..=200))]
    pub(crate) limit: u32,
}

struct Tail<'a> {
    context: &'a Context,
    mesh: &'a Membership,
    topic: ListedTopic,
    own_name: String,
    api_key: PassingKey,
    api_key_until: Timestamp,
    topic_key: Option<TopicKey>,
    /// How many earlier messages are still to be shown; none once they are.
    earlier: Option<u32>,
    last: Option<(i64, MessageId)>,
}

pub(crate) async fn run(context: &Context, asked: &ReadAlong) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let mut tail = Tail::start(context, &mesh, asked).await?;
    let outcome = {
        let (mut stop, mut go) = (pin!(interrupted()), pin!(tail.go()));
        tokio::select! {
            outcome = &mut go => outcome,
            () = &mut stop => Ok(()),
        }
    };
    tail.end().await;
    outcome
}

impl<'a> Tail<'a> {
    async fn start(context: &'a Context, mesh: &'a Membership, asked: &ReadAlong) -> anyhow::Result<Self> {
        let started = context.on_line_of_topics(mesh, async |line| {
            let topic = find(&line.connection().topics().await?, &asked.topic.topic)?;
            let own_name = line.connection().welcome().member_display_name.to_string();
            let api_key = line.connection().passing_key(&mesh.broker_url, passing(&topic)).await?;
            Ok((topic, own_name, api_key))
        });
        let (topic, own_name, api_key) = started.await?;
        let earlier = Some(asked.limit);
        let (api_key_until, topic_key) = (now().plus(API_KEY_USE), None);
        Ok(Self { context, mesh, topic, own_name, api_key, api_key_until, topic_key, earlier, last: None })
    }

    async fn go(&mut self) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        loop {
            let before = self.last.clone();
            let Err(failure) = self.follow().await else { continue };
            let known = failure.downcast_ref::<Error>();
            if known.is_some_and(is_of_key) {
                // Whether we are still a member is seen when another is asked for.
                self.api_key_until = now();
            } else if !known.is_some_and(|error| error.is_transient() || is_busy(error)) {
                return Err(failure);
            }
            if self.last != before {
                backoff = Backoff::default();
            }
            let wait = backoff.next(u64::from(std::process::id()));
            self.say(&format!("{failure}; trying again in {} s", wait.as_secs_f32().ceil()));
            sleep(wait).await;
        }
    }

    /// Shows what comes on one stream, until that is over or another is to be opened.
    async fn follow(&mut self) -> anyhow::Result<()> {
        self.renew_in_time().await?;
        if self.topic_key.is_none() {
            self.wait_for_key().await?;
        }
        let after = self.last.as_ref().map(|(_, id)| id);
        let mut stream = TopicStream::open(&self.api_key.bearer, &self.topic.name, after).await?;
        self.catch_up().await?;
        let mut newcomers = interval(SHARED_EVERY);
        newcomers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = stream.next() => match event? {
                    Some(TopicEvent::Message(message)) => self.show(&message)?,
                    Some(TopicEvent::Failed(why)) => self.say(&format!("the broker says: {why}")),
                    Some(TopicEvent::Ready) => {}
                    None => {
                        sleep(PAUSE).await;
                        return Ok(());
                    }
                },
                _ = newcomers.tick() => {
                    self.share().await?;
                    if now() >= self.api_key_until {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Shows what was written before the stream was opened and was not shown. The stream itself takes up after a message that is known.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let limit = match (self.earlier, &self.last) {
            (Some(limit), _) => limit,
            (None, None) => MOST_EARLIER,
            (None, Some(_)) => return Ok(()),
        };
        let mut messages = self.api_key.bearer.topic_messages(&self.topic.name, limit.max(1)).await?;
        if limit == 0 {
            // Only where the topic stands is wanted.
            self.last = messages.first().map(|newest| (newest.seq, newest.id.clone()));
            messages.clear();
        }
        self.earlier = None;
        for message in messages.iter().rev() {
            self.show(message)?;
        }
        Ok(())
    }

    /// Shows a message that was not shown yet.
    fn show(&mut self, message: &TopicMessage) -> anyhow::Result<()> {
        if self.last.as_ref().is_some_and(|(seq, _)| message.seq <= *seq) {
            return Ok(());
        }
        let body = open_post(self.topic_key.as_ref(), message);
        let has_key = self.topic_key.is_some();
        Shown { topic: &self.topic, message, body, has_key, own_name: &self.own_name }.print(&self.context.output)?;
        self.last = Some((message.seq, message.id.clone()));
        Ok(())
    }

    async fn wait_for_key(&mut self) -> anyhow::Result<()> {
        let since = now();
        let mut said: Option<Timestamp> = None;
        loop {
            let pin = key::pin(self.context, self.mesh, &self.topic);
            match self.api_key.bearer.topic_key_or_claim(pin).await? {
                Held::Awaited { was_bad } => {
                    if was_bad {
                        self.say("A copy of the topic's key could not be opened, and was given back.");
                    }
                    if said.is_none_or(|said| said.distance(now()) >= SAID_EVERY) {
                        said = Some(now());
                        self.say(&format!("Waiting for a peer to share the topic key, since {since}."));
                    }
                }
                held => {
                    self.topic_key = Some(key::held(self.context, &self.topic, held)?);
                    if said.is_some() {
                        self.say("The topic's key is here.");
                    }
                    return Ok(());
                }
            }
            sleep(ASKED_EVERY).await;
            self.renew_in_time().await?;
        }
    }

    /// Shares the topic's key with those who wait for it. That others cannot be helped just now ends nothing, but a key that is none
    /// any more does.
    async fn share(&self) -> anyhow::Result<()> {
        let Some(key) = &self.topic_key else { return Ok(()) };
        match key::share_on_the_way(self.context, (&self.api_key.bearer, key), (self.mesh, &self.topic)).await {
            Err(error) if is_of_key(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Another API key in place of one that ends.
    async fn renew_in_time(&mut self) -> anyhow::Result<()> {
        if now() < self.api_key_until {
            return Ok(());
        }
        let (topic, old) = (&self.topic, &self.api_key.id);
        let renewed = self.context.on_line_of_topics(self.mesh, async |line| {
            let new = line.connection().passing_key(&self.mesh.broker_url, passing(topic)).await?;
            line.connection().end_api_key(old).await;
            Ok(new)
        });
        self.api_key = renewed.await?;
        self.api_key_until = now().plus(API_KEY_USE);
        Ok(())
    }

    /// Ends the API key, which ends by itself when this takes too long.
    async fn end(self) {
        let ending = self.context.on_line_of_topics(self.mesh, async |line| {
            line.connection().end_api_key(&self.api_key.id).await;
            Ok(())
        });
        let _ = timeout(LONGEST_END, ending).await;
    }

    fn say(&self, text: &str) {
        self.context.output.notice(text);
    }
}

/// Whether the API key is none any more.
fn is_of_key(error: &Error) -> bool {
    matches!(error, Error::HttpRefused { status: 401, .. })
}

/// Whether the broker has too much to do.
fn is_busy(error: &Error) -> bool {
    matches!(error, Error::HttpRefused { status: 429 | 503, .. })
}

fn passing(topic: &ListedTopic) -> Passing<'_> {
    let capabilities = &[Capability::Read, Capability::Send];
    Passing { purpose: "topic-tail", capabilities, topic: Some(&topic.name), life: API_KEY_LIFE }
}

/// How long an API key lives, and for how long it is used: one for five minutes, as other verbs have, would fill the list of keys.
const API_KEY_LIFE: Duration = Duration::from_hours(1);
const API_KEY_USE: Duration = Duration::from_mins(55);

/// How often newcomers are looked for.
const SHARED_EVERY: Duration = Duration::from_secs(30);

/// How often the topic's key is asked for, and how often it is said that it is not there.
const ASKED_EVERY: Duration = Duration::from_secs(2);
const SAID_EVERY: Duration = Duration::from_mins(1);

/// A stream that ends at once again and again must not be asked for without pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages that were written unseen between a first look at an empty topic and the stream.
const MOST_EARLIER: u32 = 200;

const LONGEST_END: Duration = Duration::from_secs(3);
