//! Many readers of one topic over server-sent events, and a steady writer: how long from the post to each reader's event?

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use claudemesh_proto::api_key::{ApiKeyCreate, Capability};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::figure::Figure;
use crate::latency::Latencies;
use crate::load::Outbox;
use crate::mesh::{GENERAL, Mesh, general};
use crate::process::Meter;
use crate::stage::Stage;

pub(crate) async fn run(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let (_home, broker) = stage.broker().await?;
    let members = stage.sizes.streams.div_ceil(STREAMS_OF_EACH);
    let mesh = Mesh::create(&broker, members + 1).await?;
    let mut secrets = Vec::new();
    for index in 1..=members {
        let read = Capability::Read.as_str().to_owned();
        let key = ApiKeyCreate { label: "bench".into(), capabilities: vec![read], ..ApiKeyCreate::default() };
        secrets.push(mesh.connect(index).await?.0.create_api_key(key).await?.secret.0);
    }
    let (writer, _pushes) = mesh.connect(0).await?;
    let target = format!("#{}", general(&writer).await?);
    let posts = stage.sizes.posts;
    let mut readers = JoinSet::new();
    let begin = Instant::now();
    for secret in secrets.iter().cycle().take(stage.sizes.streams) {
        let mut stream = Stream::open(broker.address, secret).await?;
        readers.spawn(async move {
            let mut heard = Vec::with_capacity(posts);
            while heard.len() < posts {
                stream.until("event: message").await?;
                heard.push(begin.elapsed());
            }
            anyhow::Ok(heard)
        });
    }
    let meter = Meter::start(&broker).await?;
    let (mut outbox, mut written, mut acks) = (Outbox::new(0)?, Vec::with_capacity(posts), JoinSet::new());
    let mut pace = interval(Duration::from_secs(1) / POSTS_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let writer = Arc::new(writer);
    for _ in 0..posts {
        pace.tick().await;
        written.push(begin.elapsed());
        let sent = writer.submit(outbox.to(&target)).await?;
        acks.spawn(async move { sent.ack().await });
    }
    let mut times = Vec::with_capacity(posts * stage.sizes.streams);
    while let Some(heard) = timeout(PATIENCE, readers.join_next()).await.context("events are missing")? {
        let heard = heard.context("a reader panicked")??;
        times.extend(heard.iter().zip(&written).map(|(heard, written)| heard.saturating_sub(*written)));
    }
    let spent = meter.stop().await?;
    while let Some(ack) = acks.join_next().await {
        ensure!(ack.context("a task panicked")??.queued, "a message was not accepted");
    }
    let count = u64::try_from(times.len())?;
    let times = Latencies::new(times);
    let millis = |percent| times.percentile(percent).as_secs_f64() * 1e3;
    let streams = stage.sizes.streams;
    let name = |which| format!("post to event, {streams} streams, {POSTS_PER_SECOND} posts/s, {which}");
    Ok(vec![
        Figure::cost(name("p50"), millis(50), "ms").spent(&spent, count),
        Figure::cost(name("p99"), millis(99), "ms").target_on(&stage.database, 50.0),
    ])
}

/// A stream that is being read, line by line.
struct Stream {
    lines: BufReader<TcpStream>,
}

impl Stream {
    /// Opens it; from then on whatever is written comes.
    async fn open(broker: SocketAddr, secret: &str) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(broker).await?;
        let head = format!("GET /v1/topics/{GENERAL}/stream HTTP/1.1\r\nhost: {broker}\r\n");
        socket.write_all(format!("{head}authorization: Bearer {secret}\r\n\r\n").as_bytes()).await?;
        let mut stream = Self { lines: BufReader::new(socket) };
        timeout(PATIENCE, stream.until("event: ready")).await.context("a stream does not begin")??;
        Ok(stream)
    }

    /// Reads on to a line.
    async fn until(&mut self, wanted: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.lines.read_line(&mut line).await? > 0, "a stream ended");
            if line.trim_end() == wanted {
                return Ok(());
            }
        }
    }
}

const POSTS_PER_SECOND: u32 = 100;

/// A member may have so many.
const STREAMS_OF_EACH: usize = 100;

/// How long the next stream, or the next to be done, may take.
const PATIENCE: Duration = Duration::from_mins(2);
