//! As much HTTP as the broker's small answers need.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks for a page; its status and its text.
pub(crate) async fn get(address: SocketAddr, route: &str) -> anyhow::Result<(u16, String)> {
    exchange(address, &format!("GET {route} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")).await
}

/// Posts JSON and reads the answer, which must be a good one.
pub(crate) async fn post<T: DeserializeOwned>(
    address: SocketAddr,
    route: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    let body = serde_json::to_string(body)?;
    let length = body.len();
    let head = format!("POST {route} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    let (status, text) = exchange(address, &format!("{head}content-type: application/json\r\n\r\n{body}"))
        .await
        .context(route.to_owned())?;
    ensure!((200..300).contains(&status), "{route} was answered {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// One number of the broker's metrics.
pub(crate) async fn metric(address: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let [value] = metrics(address, [name]).await?;
    Ok(value)
}

/// Several numbers of the broker's metrics, of one moment.
pub(crate) async fn metrics<const N: usize>(address: SocketAddr, names: [&str; N]) -> anyhow::Result<[u64; N]> {
    let (_, page) = get(address, "/metrics").await?;
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        let found = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        *value = found.with_context(|| format!("the broker shows no {name}"))?;
    }
    Ok(values)
}

async fn exchange(address: SocketAddr, request: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer ends in its head")?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}
