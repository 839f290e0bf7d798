//! How many connections there may be.

use std::time::Duration;

use claudemesh_broker::Config;
use claudemesh_testkit::{Member, Request, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::hello::refused;
use crate::rest::{self, is_problem, key_of};

const TOO_OFTEN: (&str, &str) = ("rate_limit", "too many connections in a minute, slow down");
const CAPACITY: (&str, &str) = ("capacity", "mesh at connection capacity");

fn of(mesh: &str, member: &Member) -> Value {
    merged(member.hello(), json!({"sessionId": mesh}))
}

/// websocket 1.7 ▶: capacity is checked after reattach.
#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_has_only_so_many_connections_and_reattaching_is_none_more() {
    let mesh = Setup::sqlite().with(|config| config.max_connections_per_mesh = 3).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, eve) = mesh.mesh("other").await;
    let session = ann.session();
    let first = mesh.connect(&session.hello()).await;
    let second = mesh.connect(&of("mine", &ann)).await;
    let third = mesh.connect(&bob.hello()).await;
    refused(&mesh, &bob.hello(), CAPACITY).await;
    refused(&mesh, &ann.session().hello(), CAPACITY).await;
    mesh.connect(&eve.hello()).await;
    let again = mesh.connect(&session.hello()).await;
    let second_again = mesh.connect(&of("mine", &ann)).await;
    refused(&mesh, &bob.hello(), CAPACITY).await;
    third.close(1000).await;
    mesh.connect(&bob.hello()).await;
    drop((first, second, again, second_again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_only_so_many_connections_and_others_have_theirs() {
    let mesh = Setup::sqlite().with(|config| config.max_connections_per_member = 2).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session();
    let wires = [mesh.connect(&session.hello()).await, mesh.connect(&ann.hello()).await];
    refused(&mesh, &ann.cold(), CAPACITY).await;
    mesh.connect(&bob.hello()).await;
    let again = mesh.connect(&session.hello()).await;
    refused(&mesh, &ann.cold(), CAPACITY).await;
    drop((wires, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_only_so_many_connections() {
    let mesh = Setup::sqlite().with(|config| config.max_connections = 2).start().await;
    let (_, ann) = mesh.mesh("one").await;
    let (_, eve) = mesh.mesh("two").await;
    let wires = [mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await];
    refused(&mesh, &eve.hello(), CAPACITY).await;
    drop(wires);
}

/// Whoever makes and joins meshes is counted by address: nobody is asked who it is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_makes_and_joins_only_so_many_meshes_in_a_minute() {
    let limits = |config: &mut Config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.creation_rate_per_min = 3;
    };
    let mesh = Setup::sqlite().with(limits).start().await;
    let ask = |path: &'static str, from: &'static str| {
        let request = Request::post(path, &json!({})).header("X-Forwarded-For", from);
        let mesh = &mesh;
        async move { mesh.http(&request).await }
    };
    for _ in 0..3 {
        assert_eq!(ask("/join", "203.0.113.7").await.status, 400);
    }
    let refused = ask("/join", "203.0.113.7").await;
    assert_eq!((refused.status, refused.json()), (429, json!({"ok": false, "error": "rate limited"})));
    assert_eq!(ask("/join", "203.0.113.8").await.status, 400);
    mesh.clock.pass(Duration::from_secs(20));
    assert_eq!(ask("/join", "203.0.113.7").await.status, 400);
}

/// R5: whoever presents keys that are none is asked no more for a while, and who presents none at all is only told so.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_presents_only_so_many_wrong_keys_in_a_minute() {
    let limits = |config: &mut Config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.failed_keys_per_min = 3;
    };
    let mesh = Setup::sqlite().with(limits).start().await;
    let (_, ann) = mesh.mesh("keys").await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let ask = async |key: &str, from: &str| {
        let request = Request::get("/v1/members").header("X-Forwarded-For", from);
        mesh.http(&request.header("Authorization", &format!("Bearer {key}"))).await
    };
    for _ in 0..10 {
        assert_eq!(ask(&key, "203.0.113.7").await.status, 200);
        let keyless = mesh.http(&Request::get("/v1/members").header("X-Forwarded-For", "203.0.113.7")).await;
        assert_eq!(keyless.status, 401);
    }
    for wrong in ["cm_x", &format!("cm_{}", "A".repeat(43)), "x"] {
        is_problem(&ask(wrong, "203.0.113.7").await, 401, "error.api_key_invalid");
    }
    for key in ["cm_x", &key] {
        is_problem(&ask(key, "203.0.113.7").await, 429, "error.rate_limited");
    }
    assert_eq!(ask(&key, "203.0.113.8").await.status, 200);
    mesh.clock.pass(Duration::from_secs(20));
    assert_eq!(ask(&key, "203.0.113.7").await.status, 200);
    for _ in 0..10 {
        is_problem(&rest::get(&mesh, "/v1/members", "cm_x").await, 401, "error.api_key_invalid");
    }
}

/// How many arrivals the log has, and how many handshakes are remembered.
async fn traces(mesh: &TestMesh) -> (i64, i64) {
    let arrivals = "select count(*) from audit_log where event_type = 'peer_joined'";
    (mesh.database.number(arrivals).await, mesh.database.number("select count(*) from handshake").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_no_more_has_changed_nothing() {
    let setup = Setup::sqlite().with(|config| {
        (config.max_connections_per_mesh, config.max_connections_per_member) = (6, 3);
        (config.hello_rate_per_min, config.hello_burst) = (1, 8);
        config.failed_hellos_per_min = 0;
    });
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let kicked = bob.session();
    let _sent_away = mesh.connect(&kicked.hello()).await;
    admin.ask(json!({"type": "kick", "target": kicked.key()})).await;
    let wires =
        [mesh.connect(&bob.hello()).await, mesh.connect(&bob.cold()).await, mesh.connect(&bob.session().hello()).await];
    let before = traces(&mesh).await;
    let with_groups = |hello: Value| merged(hello, json!({"groups": [{"name": "intruders"}]}));
    let refusal = mesh.refusal(&with_groups(kicked.hello())).await;
    assert_eq!((refusal.0.as_str(), refusal.2), ("forbidden", 4001), "{}", refusal.1);
    for _ in 0..3 {
        refused(&mesh, &with_groups(bob.session().hello()), CAPACITY).await;
    }
    for _ in 0..3 {
        refused(&mesh, &with_groups(bob.session().hello()), TOO_OFTEN).await;
    }
    assert_eq!(traces(&mesh).await, before);
    drop(wires);
}

/// A few keys with many connections each do not keep out who has none, and nobody keeps out an admin.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_places_are_for_who_has_none_and_for_admins() {
    let setup = Setup::sqlite().with(|config| (config.max_connections_per_mesh, config.hello_rate_per_min) = (40, 0));
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let dan = mesh.join(&mesh_of_ann, &ann, "Dan").await;
    let mut wires = Vec::new();
    for _ in 0..38 {
        wires.push(mesh.connect(&bob.session().hello()).await);
    }
    refused(&mesh, &bob.session().hello(), CAPACITY).await;
    wires.push(mesh.connect(&cid.session().hello()).await);
    refused(&mesh, &dan.session().hello(), CAPACITY).await;
    let mut admin = mesh.connect(&ann.hello()).await;
    refused(&mesh, &ann.session().hello(), CAPACITY).await;
    admin.ask(json!({"type": "disconnect", "target": "Bob"})).await;
    wires.push(mesh.connect(&dan.session().hello()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_no_room_a_stranger_does_not_learn_who_is_here() {
    let mesh = Setup::sqlite().with(|config| config.max_connections_per_mesh = 2).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    let wires = [mesh.connect(&ann.hello()).await, mesh.connect(&session.hello()).await];
    let forged = json!({"signature": "00".repeat(64)});
    for hello in [session.hello(), bob.session().hello(), ann.hello(), of("elsewhere", &ann)] {
        refused(&mesh, &merged(hello, forged.clone()), CAPACITY).await;
    }
    let again = mesh.connect(&session.hello()).await;
    drop((wires, again));
}

/// A lease in grace is no open socket.
/// websocket 1.7 ▶: limits count open sockets only.
#[tokio::test(flavor = "multi_thread")]
async fn leases_in_grace_do_not_count() {
    let mesh = Setup::sqlite().with(|config| config.max_connections_per_mesh = 1).start().await;
    let (_, ann) = mesh.mesh("grace").await;
    for _ in 0..20 {
        let mut wire = mesh.connect(&ann.cold()).await;
        wire.fence().await;
        wire.break_off();
        claudemesh_testkit::eventually("the line is seen to be broken", async || {
            mesh.metric("broker_connections_active").await == Some(0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_only_fifty_sockets_that_have_not_said_hello() {
    let trusting = Setup::sqlite().with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    let mesh = trusting.start().await;
    let (_, ann) = mesh.mesh("strangers").await;
    let from = [("X-Forwarded-For", "203.0.113.7")];
    let mut strangers = Vec::new();
    for _ in 0..50 {
        strangers.push(Wire::open_with(mesh.address, &from).await.unwrap());
    }
    assert_eq!(Wire::open_with(mesh.address, &from).await.unwrap_err(), 429);
    Wire::open_with(mesh.address, &[("X-Forwarded-For", "203.0.113.8")]).await.unwrap();
    // Whoever has said hello is no stranger any more.
    strangers[0].greet(&ann.hello()).await;
    let fiftieth = Wire::open_with(mesh.address, &from).await.unwrap();
    assert_eq!(Wire::open_with(mesh.address, &from).await.unwrap_err(), 429);
    fiftieth.close(1000).await;
    claudemesh_testkit::eventually("there is room again", async || Wire::open_with(mesh.address, &from).await.is_ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_exempt() {
    let mesh = TestMesh::start().await;
    let mut strangers = Vec::new();
    for _ in 0..60 {
        strangers.push(Wire::open(mesh.address).await);
    }
}
