//! T1: a small model of the store, and random lives led on both: D2 to D7 and D10 without a broker around them.
//!
//! `CLAUDEMESH_PROVE_T1` sets how many lives are tried.

use std::time::Duration;

use claudemesh_proto::{ConnectionId, DeliveryState, MessageId, Priority};
use claudemesh_store::{Appended, Claim, Claimed, NewMessage, Settled, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::ground::{Ground, TTL};
use crate::people::{LEASE, Person, Town, fresh_connection, kept, texts};

const CONNECTIONS: usize = 3;
const DEFAULT_CASES: u32 = 500;

#[derive(Debug, Clone)]
enum Step {
    Append { to: usize, client_id: Option<u8>, fingerprint: Option<u8>, urgent: bool, bytes: usize },
    Claim { whose: usize, connection: usize, urgent_only: bool, max_rows: usize, max_bytes: i64 },
    SettleHeld { connection: usize },
    SettleMessage { nth: usize, by: usize },
    Release { connection: usize },
    Pass,
    Expire,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let small = || proptest::option::of(0..3_u8);
    prop_oneof![
        6 => (0..2_usize, small(), small(), any::<bool>(), 0..400_usize)
            .prop_map(|(to, client_id, fingerprint, urgent, bytes)| Step::Append { to, client_id, fingerprint, urgent, bytes }),
        5 => (0..2_usize, 0..CONNECTIONS, any::<bool>(), 1..4_usize, 0..800_i64)
            .prop_map(|(whose, connection, urgent_only, max_rows, max_bytes)| {
                Step::Claim { whose, connection, urgent_only, max_rows, max_bytes }
            }),
        2 => (0..CONNECTIONS).prop_map(|connection| Step::SettleHeld { connection }),
        2 => (0..20_usize, 0..2_usize).prop_map(|(nth, by)| Step::SettleMessage { nth, by }),
        2 => (0..CONNECTIONS).prop_map(|connection| Step::Release { connection }),
        1 => Just(Step::Pass),
        1 => Just(Step::Expire),
        1 => Just(Step::Restart),
    ]
}

/// What has to be true of one message.
struct Expected {
    id: MessageId,
    to: usize,
    text: String,
    urgent: bool,
    client: Option<(u8, Option<u8>)>,
    state: DeliveryState,
    holder: Option<usize>,
    /// It has been through one expiry.
    is_old: bool,
}

struct Life<'a> {
    ground: &'a Ground,
    town: Town,
    connections: [ConnectionId; CONNECTIONS],
    held: [Vec<Claimed>; CONNECTIONS],
    expected: Vec<Expected>,
}

impl Life<'_> {
    fn person(&self, index: usize) -> &Person {
        if index == 0 { &self.town.ada } else { &self.town.bob }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { to, client_id, fingerprint, urgent, bytes } => {
                self.append(to, client_id.map(|id| (id, fingerprint)), urgent, bytes).await;
            }
            Step::Claim { whose, connection, urgent_only, max_rows, max_bytes } => {
                let wish = self.town.wish(self.person(whose).recipient(), &self.connections[connection]);
                self.claim(whose, connection, Claim { urgent_only, max_rows, max_bytes, ..wish }).await;
            }
            Step::SettleHeld { connection } => {
                let Some(row) = self.held[connection].pop() else { return };
                let whose = usize::from(row.recipient == self.town.bob.recipient());
                self.town.settle_by(self.person(whose), Settled::Held(row.delivery)).await;
                self.end(&row.message_id);
            }
            Step::SettleMessage { nth, by } => {
                let Some(Expected { id, to, .. }) = self.expected.get(nth) else { return };
                let (id, is_for_them) = (id.clone(), *to == by);
                let which = Settled::Message(id.clone(), vec![self.person(by).recipient()]);
                self.town.settle_by(self.person(by), which).await;
                if is_for_them {
                    self.end(&id);
                }
            }
            Step::Release { connection } => {
                let rows = std::mem::take(&mut self.held[connection]);
                self.town.release(&self.connections[connection], &rows).await;
                let released: Vec<_> = rows.iter().map(|row| &row.message_id).collect();
                let held = self.expected.iter_mut().filter(|one| one.holder == Some(connection));
                held.filter(|one| released.contains(&&one.id)).for_each(|one| one.holder = None);
            }
            Step::Pass => {
                self.ground.pass(LEASE).await;
                self.expected.iter_mut().for_each(|one| one.holder = None);
            }
            Step::Expire => {
                self.ground.pass(TTL + Duration::from_secs(1)).await;
                self.town.store.sweep().await.unwrap();
                // Twice this time is more than a message outlives its deliveries.
                self.expected.retain(|one| !one.is_old);
                self.expected.iter_mut().for_each(|one| one.is_old = true);
                for one in self.expected.iter_mut().filter(|one| one.state == DeliveryState::Queued) {
                    (one.state, one.holder) = (DeliveryState::Expired, None);
                }
            }
            Step::Restart => {
                self.town.store.clone().close().await;
                self.town.store = self.ground.open().await;
                self.expected.iter_mut().for_each(|one| one.holder = None);
            }
        }
    }

    fn end(&mut self, id: &MessageId) {
        let ended = self.expected.iter_mut().find(|one| one.id == *id && one.state == DeliveryState::Queued);
        if let Some(one) = ended {
            (one.state, one.holder) = (DeliveryState::Delivered, None);
        }
    }

    async fn append(&mut self, to: usize, client: Option<(u8, Option<u8>)>, urgent: bool, bytes: usize) {
        let text = "x".repeat(bytes);
        let target = self.person(to).key;
        let letter = NewMessage {
            client_message_id: client.map(|(id, _)| id.to_string()),
            request_fingerprint: client.and_then(|(_, fingerprint)| fingerprint).map(|number| number.to_string()),
            priority: if urgent { Priority::Now } else { Priority::Low },
            ..self.town.letter(&self.town.ada, target, &text)
        };
        let outcome = self.town.append(letter).await.unwrap();
        let first =
            self.expected.iter().find(|one| client.is_some() && one.client.map(|it| it.0) == client.map(|it| it.0));
        let Some(first) = first else {
            let id = kept(outcome);
            let state = DeliveryState::Queued;
            self.expected.push(Expected { id, to, text, urgent, client, state, holder: None, is_old: false });
            return;
        };
        let fingerprint = client.and_then(|it| it.1);
        let same = first.client.and_then(|it| it.1) == fingerprint
            && (fingerprint.is_some() || (first.to == to && first.text == text));
        assert_eq!(outcome, if same { Appended::Kept(first.id.clone()) } else { Appended::Reused });
    }

    async fn claim(&mut self, whose: usize, connection: usize, claim: Claim) {
        let mut expected = Vec::new();
        let mut bytes = 0;
        let free = |one: &&mut Expected| {
            one.to == whose
                && one.state == DeliveryState::Queued
                && one.holder.is_none()
                && (one.urgent || !claim.urgent_only)
        };
        for one in self.expected.iter_mut().filter(free) {
            let size = i64::try_from(one.text.len() + 8).unwrap();
            if expected.len() == claim.max_rows || !expected.is_empty() && bytes + size > claim.max_bytes {
                break;
            }
            bytes += size;
            one.holder = Some(connection);
            expected.push(one.id.clone());
        }
        let rows = self.town.store.claim(claim).await.await.unwrap();
        assert_eq!(rows.iter().map(|row| row.message_id.clone()).collect::<Vec<_>>(), expected);
        self.held[connection].extend(rows);
    }

    /// Everything the model knows is what the store says, and what is free can be claimed.
    async fn agree(mut self) -> Store {
        let mut queued = 0;
        for one in &self.expected {
            let path = self.town.store.message_path(&self.town.mesh, one.id.as_str()).await.unwrap().unwrap();
            let claimed = one.holder.map(|_| DeliveryState::Claimed);
            assert_eq!(path.steps[0].state, claimed.unwrap_or(one.state));
            queued += i64::from(one.state == DeliveryState::Queued);
        }
        let count = format!(
            "select cast(coalesce(sum(queued_rows), 0) as bigint) from backlog where mesh_id = '{}'",
            self.town.mesh
        );
        assert_eq!(self.ground.number(&count).await, queued);
        self.ground.pass(LEASE).await;
        for whose in 0..2 {
            let rows = self.town.claim(self.person(whose).recipient(), &fresh_connection()).await;
            let left = self.expected.iter_mut().filter(|one| one.to == whose && one.state == DeliveryState::Queued);
            assert_eq!(texts(&rows), left.map(|one| one.text.clone()).collect::<Vec<_>>());
        }
        self.town.store
    }
}

/// Many lives on one database, each in a mesh of its own.
fn lives_agree_with_the_model(runtime: &tokio::runtime::Runtime, ground: &Ground) {
    let cases = std::env::var("CLAUDEMESH_PROVE_T1").ok().and_then(|text| text.parse().ok());
    let config = Config { cases: cases.unwrap_or(DEFAULT_CASES), failure_persistence: None, ..Config::default() };
    let store = std::cell::RefCell::new(Some(runtime.block_on(ground.open())));
    let outcome = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..40), |steps| {
        let open = store.take();
        let led = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let open = match open {
                    Some(open) => open,
                    // The life before failed, and left no store.
                    None => ground.open().await,
                };
                let town = Town::found(&open).await;
                let connections = std::array::from_fn(|_| fresh_connection());
                let mut life = Life { ground, town, connections, held: Default::default(), expected: Vec::new() };
                for step in steps {
                    life.take(step).await;
                }
                life.agree().await
            })
        }));
        let open = led.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map_or("the model and the store differ", String::as_str);
            TestCaseError::fail(text.to_owned())
        })?;
        store.replace(Some(open));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    if let Some(store) = store.take() {
        runtime.block_on(store.close());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

mod sqlite {
    #[test]
    fn lives_agree_with_the_model() {
        super::lives_agree_with_the_model(&super::runtime(), &crate::ground::Ground::sqlite());
    }
}

mod postgres {
    #[test]
    fn lives_agree_with_the_model() {
        let runtime = super::runtime();
        let ground = runtime.block_on(crate::ground::Ground::postgres());
        super::lives_agree_with_the_model(&runtime, &ground);
    }
}
