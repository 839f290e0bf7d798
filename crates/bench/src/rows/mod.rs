//! What is measured. A new row is a function from a [`Stage`] to [`Figure`]s in a file of its own, and a line in [`ROWS`].

mod broadcast;
mod burst;
mod crowd;
mod growth;
mod handshakes;
mod history;
mod hooks;
mod newcomers;
mod peers;
mod ping_pong;
mod sends;
mod size;
mod start;
mod streams;
mod whole_life;

use std::pin::Pin;

use crate::figure::Figure;
use crate::stage::Stage;

/// A row of the benchmarks.
pub(crate) struct Row {
    /// By which `--only` names it.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whether it is measured several times.
    pub(crate) is_headline: bool,
    pub(crate) run: for<'a> fn(&'a Stage) -> Measuring<'a>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Vec<Figure>>> + 'a>>;

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "sends-1",
        about: "durable sends to members who are away, one at a time",
        is_headline: true,
        run: |stage| Box::pin(sends::run(stage, sends::Flight { senders: 1, window: 1, target: None })),
    },
    Row {
        name: "sends-32",
        about: "the same with 32 in flight",
        is_headline: true,
        run: |stage| Box::pin(sends::run(stage, sends::Flight { senders: 8, window: 4, target: None })),
    },
    Row {
        name: "sends-256",
        about: "the same with 256 in flight",
        is_headline: true,
        run: |stage| Box::pin(sends::run(stage, sends::Flight { senders: 16, window: 16, target: Some(20_000.0) })),
    },
    Row {
        name: "sends-2000",
        about: "the same with 2,000 in flight",
        is_headline: true,
        run: |stage| Box::pin(sends::run(stage, sends::Flight { senders: 40, window: 50, target: None })),
    },
    Row {
        name: "life",
        about: "peers who write to each other: accepted, delivered, acknowledged, settled",
        is_headline: true,
        run: |stage| Box::pin(whole_life::run(stage)),
    },
    Row {
        name: "ping-pong",
        about: "two peers, one message at a time, end to end",
        is_headline: true,
        run: |stage| Box::pin(ping_pong::run(stage)),
    },
    Row {
        name: "burst",
        about: "100 peers, 1,000 messages each, as fast as acks allow",
        is_headline: true,
        run: |stage| Box::pin(burst::run(stage)),
    },
    Row {
        name: "broadcast",
        about: "one writes to 200 members who are here: accepted, delivered, acknowledged, settled",
        is_headline: true,
        run: |stage| Box::pin(broadcast::run(stage, broadcast::Audience::Everybody)),
    },
    Row {
        name: "topic",
        about: "one writes into a topic that 200 members read over the WebSocket: accepted, delivered, acknowledged, settled",
        is_headline: true,
        run: |stage| Box::pin(broadcast::run(stage, broadcast::Audience::Topic)),
    },
    Row {
        name: "streams",
        about: "one writes 100 posts a second into a topic that 500 read over server-sent events",
        is_headline: false,
        run: |stage| Box::pin(streams::run(stage)),
    },
    Row {
        name: "history",
        about: "pages of a topic's history as it grows",
        is_headline: false,
        run: |stage| Box::pin(history::run(stage)),
    },
    Row {
        name: "newcomers",
        about: "the key of a topic is sealed for 200 newcomers",
        is_headline: true,
        run: |stage| Box::pin(newcomers::run(stage)),
    },
    Row {
        name: "handshakes",
        about: "signed hellos, all let in",
        is_headline: true,
        run: |stage| Box::pin(handshakes::run(stage)),
    },
    Row {
        name: "hooks",
        about: "reports of status hooks, one HTTP request each",
        is_headline: true,
        run: |stage| Box::pin(hooks::run(stage)),
    },
    Row {
        name: "growth",
        about: "what a send costs with more and more that waits",
        is_headline: false,
        run: |stage| Box::pin(growth::queued(stage)),
    },
    Row {
        name: "members",
        about: "what a send costs in meshes of more and more members",
        is_headline: false,
        run: |stage| Box::pin(growth::members(stage)),
    },
    Row {
        name: "idle",
        about: "memory and CPU of idle connections",
        is_headline: false,
        run: |stage| Box::pin(crowd::run(stage, stage.sizes.idle)),
    },
    Row {
        name: "crowd",
        about: "a large mesh connects and idles",
        is_headline: false,
        run: |stage| Box::pin(crowd::run(stage, stage.sizes.crowd)),
    },
    Row {
        name: "start",
        about: "from the start of the process to ready, empty and after a kill with messages queued",
        is_headline: false,
        run: |stage| Box::pin(start::run(stage)),
    },
    Row { name: "size", about: "the program", is_headline: false, run: |stage| Box::pin(size::run(stage)) },
];
