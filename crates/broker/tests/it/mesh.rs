//! `POST /v1/meshes`: a mesh whose owner keeps the key.

use std::sync::Arc;

use claudemesh_broker::MeshCreation;
use claudemesh_keys::Identity;
use claudemesh_testkit::{Answer, Request, Setup, TestMesh, merged, mesh_request};
use serde_json::{Value, json};

on_both!(a_slug_is_taken_once, the_creator_is_an_admin);

struct Maker {
    owner: Arc<Identity>,
    member: Arc<Identity>,
}

fn maker() -> Maker {
    Maker { owner: Arc::new(Identity::generate().unwrap()), member: Arc::new(Identity::generate().unwrap()) }
}

impl Maker {
    fn request(&self, mesh: &TestMesh, slug: &str) -> Value {
        mesh_request(slug, &self.owner, &self.member, ("Ann", mesh.clock.tick()))
    }
}

async fn post(mesh: &TestMesh, body: &Value) -> Answer {
    mesh.http(&Request::post("/v1/meshes", body)).await
}

fn is(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.json()), (status, json!({"error": error})));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

async fn a_slug_is_taken_once(setup: Setup) {
    let mesh = setup.start().await;
    let first = maker();
    let made = post(&mesh, &first.request(&mesh, "mine")).await;
    assert_eq!((made.status, &made.json()["slug"]), (201, &json!("mine")));
    is(&post(&mesh, &maker().request(&mesh, "mine")).await, 409, "slug_taken");
    let other_owner = Maker { owner: maker().owner, ..first };
    is(&post(&mesh, &other_owner.request(&mesh, "mine")).await, 409, "slug_taken");
}

async fn the_creator_is_an_admin(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("mine").await;
    let members = mesh.connect(&ann.hello()).await.ask(json!({"type": "member_list"})).await["members"].clone();
    assert_eq!((members.as_array().unwrap().len(), &members[0]["role"]), (1, &json!("admin")));
    assert_eq!((&members[0]["displayName"], &members[0]["memberId"]), (&json!("Ann"), &json!(ann.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_status_and_word() {
    let mesh = TestMesh::start().await;
    let maker = maker();
    let good = || maker.request(&mesh, "good");
    for slug in ["", "a", "-ab", "Ab", "a_b", "ä-b", &"a".repeat(33)] {
        is(&post(&mesh, &maker.request(&mesh, slug)).await, 422, "invalid_slug");
    }
    let weak = format!("01{}", "00".repeat(31));
    for change in [
        json!({"owner_pubkey": "zz"}),
        json!({"owner_pubkey": weak}),
        json!({"owner_pubkey": maker.owner.public().to_string().to_uppercase()}),
        json!({"member": {"pubkey": "zz", "display_name": "Ann"}}),
        json!({"member": {"pubkey": weak, "display_name": "Ann"}}),
        json!({"member": {"pubkey": maker.member.public(), "display_name": "\u{200B}"}}),
        json!({"member": {"pubkey": maker.member.public(), "display_name": "x".repeat(65)}}),
        json!({"member": 5}),
        json!({"signature": "00"}),
        json!({"member_signature": "zz".repeat(64)}),
        json!({"timestamp": "now"}),
        json!({"timestamp": null}),
        json!({"slug": 5}),
    ] {
        is(&post(&mesh, &merged(good(), change)).await, 400, "malformed");
    }
    for body in ["", "{", "[]", "null"] {
        let answer = mesh.http(&Request::post_bytes("/v1/meshes", body.as_bytes().to_vec())).await;
        is(&answer, 400, "malformed");
    }
    for seconds in [-61, 61] {
        let late = mesh.clock.tick() + seconds * 1000;
        is(
            &post(&mesh, &mesh_request("good", &maker.owner, &maker.member, ("Ann", late))).await,
            400,
            "timestamp_skew",
        );
    }
    let (mine, other) = (good(), maker.request(&mesh, "other"));
    for change in [
        json!({"slug": "bad"}),
        json!({"timestamp": mine["timestamp"].as_i64().unwrap() + 1}),
        json!({"member": {"pubkey": maker.member.public(), "display_name": "Eve"}}),
        json!({"signature": other["signature"]}),
        json!({"member_signature": other["member_signature"]}),
        json!({"signature": mine["member_signature"]}),
        json!({"signature": mine["member_signature"], "member_signature": mine["signature"]}),
    ] {
        is(&post(&mesh, &merged(mine.clone(), change)).await, 400, "bad_signature");
    }
    let answer = mesh.http(&Request::post_bytes("/v1/meshes", vec![b' '; 65_537])).await;
    assert_eq!(answer.status, 413);
    assert_eq!(post(&mesh, &good()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_make_meshes_is_what_was_configured() {
    for creation in [MeshCreation::Loopback, MeshCreation::Token, MeshCreation::Open, MeshCreation::Closed] {
        let mesh = Setup::sqlite().with(|config| config.mesh_creation = Some(creation)).start().await;
        let token = std::fs::read_to_string(mesh.data_dir().join("setup-token")).unwrap();
        let bearer = format!("Bearer {token}");
        let ways = [
            ("from here", vec![]),
            ("through a proxy", vec![("X-Forwarded-For", "127.0.0.1")]),
            ("through a proxy", vec![("Forwarded", "for=127.0.0.1")]),
            ("through a proxy", vec![("X-Real-IP", "127.0.0.1")]),
            ("through a proxy", vec![("Via", "1.1 proxy")]),
            ("with a wrong token", vec![("Via", "1.1 proxy"), ("Authorization", "Bearer wrong")]),
            ("with a wrong scheme", vec![("Via", "1.1 proxy"), ("Authorization", token.as_str())]),
            ("with the token", vec![("Via", "1.1 proxy"), ("Authorization", bearer.as_str())]),
        ];
        for (number, (way, headers)) in ways.into_iter().enumerate() {
            let may = match creation {
                MeshCreation::Loopback => ["from here", "with the token"].contains(&way),
                MeshCreation::Token => way == "with the token",
                MeshCreation::Open => true,
                MeshCreation::Closed => false,
            };
            let mut request = Request::post("/v1/meshes", &maker().request(&mesh, &format!("mesh-{number}")));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let answer = mesh.http(&request).await;
            if may {
                assert_eq!(answer.status, 201, "{creation:?} {way}");
            } else {
                is(&answer, 403, "creation_not_allowed");
            }
        }
    }
}
