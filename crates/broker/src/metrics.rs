//! Counters, in the text format of Prometheus. Labels are from fixed lists: nothing of a mesh is ever one (D8).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use claudemesh_proto::{Priority, Timestamp};
use claudemesh_store::{Claimed, Histogram, Meters};

/// An enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($variant,)*
        }

        impl $name {
            const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            #[expect(clippy::as_conversions, reason = "its place in ALL")]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Why a connection was refused.
    Reason {
        AttestationBadSignature = "attestation_bad_signature",
        AttestationExpired = "attestation_expired",
        AttestationMalformed = "attestation_malformed",
        AttestationMismatch = "attestation_mismatch",
        AttestationTtlTooLong = "attestation_ttl_too_long",
        BadParentPubkey = "bad_parent_pubkey",
        BadSessionPubkey = "bad_session_pubkey",
        BadSignature = "bad_signature",
        Capacity = "capacity",
        InvalidArgument = "invalid_argument",
        Kicked = "kicked",
        Malformed = "malformed",
        ParentMemberIdMismatch = "parent_member_id_mismatch",
        RateLimit = "rate_limit",
        Replayed = "replayed",
        Revoked = "revoked",
        SessionBadSignature = "session_bad_signature",
        SessionMalformed = "session_malformed",
        SessionTimestampSkew = "session_timestamp_skew",
        TimestampSkew = "timestamp_skew",
        Unauthorized = "unauthorized",
    }
}

label! {
    /// Why a message was refused.
    Refused {
        RateLimit = "rate_limit",
        TooLarge = "too_large",
        NoRecipient = "no_recipient",
        QueueFull = "queue_full",
        Invalid = "parse_or_handler",
        Unavailable = "unavailable",
        Forbidden = "forbidden",
    }
}

const PRIORITIES: [&str; 3] = ["low", "next", "now"];

/// What the broker has done so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    connections: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    routed: [AtomicU64; PRIORITIES.len()],
    refused: [AtomicU64; Refused::ALL.len()],
    dropped_by_grant: AtomicU64,
    pushed: AtomicU64,
    queue_age: Histogram,
    wake_to_push: Histogram,
    delivered: AtomicU64,
    hooks: AtomicU64,
    hooks_refused: AtomicU64,
    rested: AtomicU64,
}

/// What is read when somebody asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) connections_active: usize,
    pub(crate) streams_active: usize,
    pub(crate) queue_depth: i64,
    pub(crate) is_db_healthy: bool,
}

impl Metrics {
    pub(crate) fn connected(&self) {
        add(&self.connections);
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejected.get(reason.index()).into_iter().for_each(add);
    }

    pub(crate) fn routed(&self, priority: Priority) {
        let label = priority.as_str();
        PRIORITIES.iter().zip(&self.routed).filter(|(word, _)| **word == label).for_each(|(_, count)| add(count));
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get(why.index()).into_iter().for_each(add);
    }

    /// A direct message that its recipient does not want.
    pub(crate) fn dropped_by_grant(&self) {
        add(&self.dropped_by_grant);
    }

    pub(crate) fn pushed(&self, row: &Claimed, (now, instant): (Timestamp, Instant)) {
        add(&self.pushed);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.queue_age.observe(micros(row.created_at.distance(now)));
        if let Some(at) = row.committed_at {
            self.wake_to_push.observe(micros(instant.saturating_duration_since(at)));
        }
    }

    pub(crate) fn delivered(&self) {
        add(&self.delivered);
    }

    /// A status hook was called.
    pub(crate) fn hook_called(&self) {
        add(&self.hooks);
    }

    /// It was called too often.
    pub(crate) fn hook_refused(&self) {
        add(&self.hooks_refused);
    }

    /// So many were taken to be working and are idle now.
    pub(crate) fn rested(&self, presences: usize) {
        self.rested.fetch_add(u64::try_from(presences).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The page that `/metrics` answers.
    pub(crate) fn render(&self, gauges: Gauges, journal: &Meters) -> String {
        let mut page = Page::default();
        page.counter("broker_connections_total", "Connections admitted", read(&self.connections));
        page.labelled(
            "broker_connections_rejected_total",
            "Handshakes refused",
            "reason",
            Reason::ALL.iter().map(|reason| reason.as_str()).zip(&self.rejected),
        );
        page.labelled(
            "broker_messages_routed_total",
            "Messages accepted",
            "priority",
            PRIORITIES.into_iter().zip(&self.routed),
        );
        page.labelled(
            "broker_messages_rejected_total",
            "Messages refused",
            "reason",
            Refused::ALL.iter().map(|why| why.as_str()).zip(&self.refused),
        );
        page.labelled(
            "broker_messages_dropped_by_grant_total",
            "Messages that their recipients do not want",
            "cap",
            [("dm", &self.dropped_by_grant)].into_iter(),
        );
        page.counter(
            "broker_messages_pushed_total",
            "Messages handed to a connection, redeliveries included",
            read(&self.pushed),
        );
        page.counter("broker_messages_acknowledged_total", "Acknowledgements received", read(&self.delivered));
        page.counter("broker_hook_requests_total", "Calls of the status hook", read(&self.hooks));
        page.counter(
            "broker_hook_requests_rate_limited_total",
            "Calls of it that came too often",
            read(&self.hooks_refused),
        );
        page.counter(
            "broker_ttl_sweeps_total",
            "Presences that are idle because nothing said for too long that they work",
            read(&self.rested),
        );
        page.gauge(
            "broker_connections_active",
            "Open connections",
            u64::try_from(gauges.connections_active).unwrap_or(0),
        );
        page.gauge(
            "broker_streams_active",
            "Open streams of topics",
            u64::try_from(gauges.streams_active).unwrap_or(0),
        );
        page.gauge("broker_queue_depth", "Deliveries waiting", u64::try_from(gauges.queue_depth).unwrap_or(0));
        page.gauge("broker_db_healthy", "Whether the database answers", u64::from(gauges.is_db_healthy));
        self.waits(&mut page);
        journal_page(&mut page, journal);
        page.0
    }

    /// How long messages wait.
    fn waits(&self, page: &mut Page) {
        page.histogram("broker_queue_age_seconds", "Age of messages when they are pushed", &self.queue_age, SECONDS);
        page.histogram(
            "broker_wake_to_push_seconds",
            "From the commit that claims a message to its push",
            &self.wake_to_push,
            SECONDS,
        );
    }
}

/// What is measured in microseconds is shown in seconds.
const SECONDS: f64 = 1e-6;

fn journal_page(page: &mut Page, journal: &Meters) {
    page.counter("broker_journal_batches_total", "Transactions of the journal", read(&journal.batches));
    page.counter("broker_journal_requests_total", "Requests in them", read(&journal.requests));
    page.counter("broker_journal_commit_microseconds_total", "Time spent in them", read(&journal.commit_micros));
    page.counter("broker_journal_refused_total", "Requests that the database refused", read(&journal.refused));
    page.counter(
        "broker_journal_unavailable_total",
        "Batches that the database could not take",
        read(&journal.unavailable),
    );
    page.histogram("broker_journal_batch_requests", "Requests of a transaction", &journal.batch_sizes, 1.0);
    page.histogram("broker_journal_commit_seconds", "How long transactions take", &journal.commits, SECONDS);
    page.gauge("broker_wal_bytes", "Size of the SQLite WAL", read(&journal.wal_bytes));
    page.gauge(
        "broker_wal_longest_pause_microseconds",
        "Longest pause for a full checkpoint",
        read(&journal.longest_pause_micros),
    );
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    /// A counter that was never touched is one line `name 0`, without a label.
    fn labelled<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, &'a AtomicU64)>,
    ) {
        self.head(name, help, "counter");
        let touched: Vec<_> = values.map(|(word, value)| (word, read(value))).filter(|(_, value)| *value > 0).collect();
        if touched.is_empty() {
            self.line(name, "", 0);
        }
        for (word, value) in touched {
            self.line(name, &format!("{{{label}=\"{word}\"}}"), value);
        }
    }

    /// Values are counted as whole numbers and shown times `unit`.
    fn histogram(&mut self, name: &str, help: &str, values: &Histogram, unit: f64) {
        self.head(name, help, "histogram");
        let shown = |value: u64| value.to_string().parse::<f64>().unwrap_or(0.0) * unit;
        let mut total = 0;
        for (bound, count) in values.cumulative() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| shown(bound).to_string());
            self.line(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), count);
            total = count;
        }
        let _ = writeln!(self.0, "{name}_sum {}", shown(values.sum()));
        self.line(&format!("{name}_count"), "", total);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
