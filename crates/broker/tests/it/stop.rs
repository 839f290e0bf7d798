//! D16: SIGTERM loses nothing that was acked.

use std::collections::HashSet;

use claudemesh_testkit::{Setup, Wire, send_frame};
use serde_json::json;
use tokio::task::JoinSet;

on_both!(everything_acked_while_the_broker_stops_is_there_after_it, every_socket_is_told_that_the_broker_stops);

/// Sends until the broker goes away; what was acked, and how the line ended.
async fn send_until_closed(mut wire: Wire, to: String, name: usize) -> Vec<String> {
    let mut acked = Vec::new();
    for number in 0.. {
        let text = format!("{name}.{number}");
        if !wire.try_say(&send_frame(&to, &text).to_string()).await {
            break;
        }
        match wire.ack_or_close().await {
            Ok(ack) if ack["queued"] == true => acked.push(text),
            Ok(ack) => assert_eq!(ack["error"], "temporarily unavailable, try again"),
            Err(close) => {
                assert_eq!(close, Some((1001, "shutting down".to_owned())));
                break;
            }
        }
    }
    acked
}

/// D16, websocket 1.9 ▶: what was acknowledged is written before the end.
async fn everything_acked_while_the_broker_stops_is_there_after_it(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut expected = HashSet::new();
    for round in 0..3 {
        let mut senders = JoinSet::new();
        for number in 0..8 {
            let wire = mesh.connect(&ann.session().hello()).await;
            senders.spawn(send_until_closed(wire, bob.key(), round * 8 + number));
        }
        // Until sends are under way.
        let before = i64::try_from(expected.len()).unwrap();
        claudemesh_testkit::eventually("sends are under way", async || {
            mesh.database.number("select count(*) from message").await > before + 50
        })
        .await;
        mesh.stop().await;
        while let Some(acked) = senders.join_next().await {
            expected.extend(acked.unwrap());
        }
        mesh.resume().await;
    }
    let mut receiver = mesh.connect(&bob.hello()).await;
    let mut missing = expected.clone();
    let mut seen = HashSet::new();
    while !missing.is_empty() {
        let text = receiver.receive().await;
        missing.remove(&text);
        assert!(seen.insert(text), "once");
    }
    assert!(expected.len() > 150);
}

/// D16, websocket 1.9 ▶: clients get their answers, and then a Close.
async fn every_socket_is_told_that_the_broker_stops(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann) = mesh.mesh("stop").await;
    let mut wires = vec![
        mesh.connect(&ann.hello()).await,
        mesh.connect(&ann.session().hello()).await,
        mesh.connect(&ann.cold()).await,
        Wire::open(mesh.address).await,
    ];
    for wire in &mut wires[..3] {
        // Asked before the Close, answered before the Close.
        wire.say(&json!({"type": "member_list"})).await;
    }
    let closing = async {
        for wire in &mut wires {
            assert_eq!(wire.closed().await, (1001, "shutting down".to_owned()));
        }
    };
    tokio::join!(mesh.stop(), closing);
    mesh.resume().await;
    mesh.connect(&ann.hello()).await.fence().await;
}
