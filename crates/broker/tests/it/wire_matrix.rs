//! T20: every message of the WebSocket from everybody who could say it.

use claudemesh_proto::ClientFrame;
use claudemesh_testkit::{Member, Mesh, Setup, TestMesh, Wire, merged, send_frame, stranger};
use serde_json::{Value, json};

use crate::{api_key, topic};

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A socket that said no hello.
    Nobody,
    /// A connection of somebody who was removed meanwhile.
    Removed,
    /// A member who is in no topic but `general`.
    Outsider,
    /// A member who is in the topic.
    Member,
    /// A session of that member, with a key of its own.
    Session,
    /// Whoever leads the topic, a member otherwise.
    Lead,
    /// An admin who is in no topic but `general`.
    Admin,
    /// The owner of the mesh, likewise.
    Owner,
    /// The owner of another mesh.
    Elsewhere,
}

use Who::{Admin, Elsewhere, Lead, Member as Insider, Nobody, Outsider, Owner, Removed, Session};

const EVERYBODY: [Who; 9] = [Nobody, Removed, Outsider, Insider, Session, Lead, Admin, Owner, Elsewhere];

/// A message, and what it is answered: the type of the answer, the code of the refusal, or `-` where nothing is answered.
struct Row {
    request: Value,
    answer: &'static str,
    /// Who is answered otherwise.
    others: Vec<(&'static [Who], &'static str)>,
    /// Whether it takes away what the next ones need.
    uses_up: bool,
}

impl Row {
    fn but(mut self, who: &'static [Who], answer: &'static str) -> Self {
        self.others.push((who, answer));
        self
    }

    fn using_up(self) -> Self {
        Self { uses_up: true, ..self }
    }

    fn expected(&self, who: Who) -> &'static str {
        let other = self.others.iter().find(|(those, _)| those.contains(&who)).map(|(_, answer)| *answer);
        other.unwrap_or(if who == Nobody { "no_hello" } else { self.answer })
    }
}

/// A message that whoever is connected may say.
fn row(kind: &str, fields: Value, answer: &'static str) -> Row {
    Row { request: merged(json!({"type": kind}), fields), answer, others: Vec::new(), uses_up: false }
}

/// One for the owner and admins.
fn of_admins(kind: &str, fields: Value, answer: &'static str) -> Row {
    row(kind, fields, answer).but(&[Outsider, Insider, Session, Lead], "forbidden")
}

/// One about a private topic, for those who are in it.
fn of_topic(kind: &str, topic: &str, answer: &'static str) -> Row {
    row(kind, json!({"topic": topic}), answer)
        .but(&[Outsider, Elsewhere], "topic_not_found")
        .but(&[Admin, Owner], "forbidden")
}

/// Everybody, and what there is to ask about.
struct World {
    mesh: Mesh,
    owner: Member,
    admin: Member,
    lead: Member,
    insider: Member,
    outsider: Member,
    removed: Member,
    /// Whom the messages are about: a member in no topic but `general`.
    target: Member,
    /// The private topic.
    topic: String,
    /// From the member to the target.
    message: String,
    invite: String,
    /// The member's.
    api_key: String,
}

impl World {
    async fn new(site: &TestMesh, number: usize) -> Self {
        let (mesh, owner) = site.mesh(&format!("world-{number}")).await;
        let join = async |name: &str| site.join(&mesh, &owner, name).await;
        let admin = join("Ada").await;
        let mut of_owner = site.connect(&owner.hello()).await;
        let promoted = json!({"type": "member_update", "memberId": admin.id, "role": "admin"});
        assert_eq!(of_owner.ask(promoted).await["type"], "member_updated");
        let invite = json!({"type": "invite_create", "token": mesh.token("member").1});
        let invited = of_owner.ask(invite).await;
        let (lead, insider, outsider) = (join("Lea").await, join("Ina").await, join("Otto").await);
        let (removed, target) = (join("Rem").await, join("Tom").await);
        let mut of_lead = site.connect(&lead.hello()).await;
        let made = topic::create(&mut of_lead, json!({"name": "crew", "visibility": "private"})).await;
        let add = json!({"type": "topic_add_member", "topic": "crew", "memberId": insider.id});
        assert_eq!(of_lead.ask(add).await["type"], "topic_member_added");
        let mut of_insider = site.connect(&insider.hello()).await;
        let message = of_insider.deliver(&target.key(), "text").await;
        let (api_key, _) = api_key::key(&mut of_insider, json!({})).await;
        for wire in [of_owner, of_lead, of_insider] {
            wire.close(1000).await;
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (topic, invite) = (text(&made["topic"]["id"]), text(&invited["id"]));
        Self { mesh, owner, admin, lead, insider, outsider, removed, target, topic, message, invite, api_key }
    }

    fn rows(&self) -> Vec<Row> {
        [self.about_oneself(), self.messages(), self.about_others(), self.topics()].into_iter().flatten().collect()
    }

    fn about_oneself(&self) -> Vec<Row> {
        let (hello, session) = (self.outsider.hello(), self.outsider.session().hello());
        let again = |hello| row("", hello, "invalid_argument").but(&[Nobody], "hello_ack");
        vec![
            again(hello),
            again(session),
            row("list_peers", json!({}), "peers_list"),
            row("set_status", json!({"status": "working"}), "-"),
            row("set_summary", json!({"summary": "a line"}), "-"),
            row("set_visible", json!({"visible": true}), "ack"),
            row("set_profile", json!({"title": "a"}), "ack"),
            row("set_stats", json!({"stats": {"toolCalls": 1}}), "-"),
            row("join_group", json!({"name": "a"}), "-"),
            row("leave_group", json!({"name": "a"}), "-"),
            row("grant_set", json!({"grants": {stranger().to_string(): []}}), "grant_set_response"),
            row("grant_list", json!({}), "grant_list_response"),
        ]
    }

    fn messages(&self) -> Vec<Row> {
        let send = |target: &str| row("send", send_frame(target, "text"), "ack");
        vec![
            send(&self.target.key()).but(&[Elsewhere], "not queued"),
            send("*"),
            send("@all"),
            send("@nobodys"),
            send(&format!("#{}", self.topic)).but(&[Outsider, Admin, Owner, Elsewhere], "not queued"),
            // It is the target's to acknowledge.
            row("client_ack", json!({"brokerMessageId": self.message}), "-"),
            row("message_status", json!({"messageId": self.message}), "message_status_result")
                .but(&[Outsider, Lead, Elsewhere], "not_found"),
        ]
    }

    fn about_others(&self) -> Vec<Row> {
        let target = json!({"target": self.target.key()});
        let (owner, token) = (json!({"target": self.owner.key()}), json!({"token": self.mesh.token("member").1}));
        let not_theirs = |row: Row| row.but(&[Outsider, Lead], "not_found");
        vec![
            row("member_list", json!({}), "member_list_response"),
            row("member_update", json!({"roleTag": "x"}), "member_updated"),
            of_admins("member_update", json!({"memberId": self.target.id, "role": "admin"}), "member_updated")
                .but(&[Elsewhere], "not_found")
                .using_up(),
            of_admins("kick", target.clone(), "kick_ack").but(&[Elsewhere], "nobody"),
            of_admins("disconnect", target.clone(), "disconnect_ack").but(&[Elsewhere], "nobody"),
            of_admins("ban", target.clone(), "ban_ack").but(&[Elsewhere], "not_found").using_up(),
            of_admins("ban", owner, "forbidden").but(&[Owner], "invalid").but(&[Elsewhere], "not_found"),
            of_admins("unban", json!({"target": self.removed.key()}), "unban_ack")
                .but(&[Elsewhere], "not_found")
                .using_up(),
            row("list_bans", json!({}), "list_bans_result"),
            of_admins("audit_query", json!({}), "audit_result"),
            of_admins("audit_verify", json!({}), "audit_verify_result"),
            of_admins("invite_create", token, "invite_created").but(&[Elsewhere], "invalid_invite"),
            of_admins("invite_list", json!({}), "invite_list_response"),
            of_admins("invite_revoke", json!({"id": self.invite}), "invite_revoke_response")
                .but(&[Elsewhere], "not_found")
                .using_up(),
            row("apikey_create", json!({"label": "x", "capabilities": ["read"]}), "apikey_created"),
            of_admins("apikey_create", json!({"label": "x", "capabilities": ["admin"]}), "apikey_created"),
            row("apikey_list", json!({}), "apikey_list_response"),
            not_theirs(row("apikey_revoke", json!({"id": self.api_key}), "apikey_revoke_response"))
                .but(&[Elsewhere], "not_found")
                .using_up(),
        ]
    }

    fn topics(&self) -> Vec<Row> {
        let topic = self.topic.as_str();
        let add = json!({"topic": topic, "memberId": self.target.id});
        vec![
            row("topic_create", json!({"name": "new"}), "topic_created"),
            row("topic_create", json!({"name": "crew"}), "topic_created").but(&[Outsider, Admin, Owner], "forbidden"),
            row("topic_list", json!({}), "topic_list_response"),
            of_topic("topic_join", topic, "-"),
            of_topic("topic_members", topic, "topic_members_response"),
            of_topic("topic_history", topic, "topic_history_response"),
            of_topic("topic_mark_read", topic, "-"),
            row("topic_add_member", add, "topic_member_added")
                .but(&[Outsider, Elsewhere], "topic_not_found")
                .but(&[Insider, Session], "forbidden")
                .using_up(),
            row("topic_leave", json!({"topic": topic}), "-").but(&[Outsider, Elsewhere], "topic_not_found").using_up(),
        ]
    }

    /// A connection of somebody's.
    async fn wire(&self, site: &TestMesh, (who, elsewhere): (Who, &Member)) -> Wire {
        let member = match who {
            Nobody => return Wire::open(site.address).await,
            Session => return site.connect(&self.insider.session().hello()).await,
            Removed => &self.removed,
            Outsider => &self.outsider,
            Insider => &self.insider,
            Lead => &self.lead,
            Admin => &self.admin,
            Owner => &self.owner,
            Elsewhere => elsewhere,
        };
        site.connect(&member.hello()).await
    }
}

/// How a message was answered.
async fn answer(wire: &mut Wire, row: &Row) -> String {
    let silent = row.answer == "-";
    let request = merged(row.request.clone(), json!({"_reqId": "cell"}));
    wire.say(&request).await;
    if silent {
        // Whatever is said about it is said before this is answered.
        wire.say(&json!({"type": "list_peers", "_reqId": "after"})).await;
    }
    loop {
        let frame = wire.next().await;
        let text = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
        let is_after = frame["_reqId"] == "after";
        if is_after || frame["type"] == "hello_ack" || frame["_reqId"] == "cell" || frame["type"] == "ack" {
            return match text("type").as_str() {
                _ if is_after => "-".to_owned(),
                "error" => text("code"),
                "ack" if frame["error"].is_string() => "not queued".to_owned(),
                "kick_ack" | "disconnect_ack" if frame["affected"] == json!([]) => "nobody".to_owned(),
                _ if frame["status"] == "not_found" => "not_found".to_owned(),
                kind => kind.to_owned(),
            };
        }
    }
}

/// How much is stored, in one sum: what is refused changes none of it. Comings and goings are left out, which are logged a moment later.
async fn stored(site: &TestMesh) -> i64 {
    let counts = [
        "member",
        "member where revoked_at is not null",
        "member where role = 'admin'",
        "invite",
        "invite where revoked_at is not null",
        "message",
        "delivery where state <> 'queued'",
        "member_grant",
        "member_group",
        "topic",
        "topic_member",
        "topic_message",
        "notification",
        "api_key",
        "api_key where revoked_at is not null",
        "audit_log where event_type not like 'peer_%'",
    ]
    .map(|what| format!("(select count(*) from {what})"));
    site.database.number(&format!("select {}", counts.join(" + "))).await
}

/// T20, R5, R6, R7, R10: each message from each of them.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_refused_to_whoever_may_not() {
    let site = Setup::sqlite().with(|config| {
        config.hello_rate_per_min = 0;
        config.request_rate_per_min = 0;
    });
    let site = site.start().await;
    let (_, elsewhere) = site.mesh("elsewhere").await;
    let (mut worlds, mut world) = (1, World::new(&site, 0).await);
    let mut wrong = Vec::new();
    let rows = world.rows();
    for kind in ClientFrame::TYPES {
        assert!(rows.iter().any(|row| row.request["type"] == *kind), "{kind} has no row");
    }
    for (index, who) in (0..rows.len()).flat_map(|index| EVERYBODY.map(|who| (index, who))) {
        let mut wire = world.wire(&site, (who, &elsewhere)).await;
        let row = world.rows().swap_remove(index);
        let expected = row.expected(who);
        let cell = format!("{} from {who:?}", row.request);
        if who == Removed {
            ban(&site, &world).await;
            let before = stored(&site).await;
            // The socket may be closed by now.
            wire.try_say(&merged(row.request, json!({"_reqId": "cell"})).to_string()).await;
            while let Ok(frame) = wire.next_or_end().await {
                assert_ne!(frame["_reqId"], "cell", "{cell}: {frame}");
                assert_ne!(frame["type"], "ack", "{cell}: {frame}");
            }
            assert_eq!(stored(&site).await, before, "something was stored: {cell}");
            let mut of_owner = site.connect(&world.owner.hello()).await;
            let unban = json!({"type": "unban", "target": world.removed.key()});
            assert_eq!(of_owner.ask(unban).await["type"], "unban_ack");
            of_owner.close(1000).await;
            continue;
        }
        if row.request["type"] == "unban" {
            ban(&site, &world).await;
        }
        let _here = site.connect(&world.target.session().hello()).await;
        let before = stored(&site).await;
        let answer = answer(&mut wire, &row).await;
        if answer != expected {
            wrong.push(format!("{cell}: {answer}, not {expected}"));
        }
        let is_done = answer == row.answer;
        if !is_done || expected == "invalid_argument" || row.request["type"] == "client_ack" {
            assert_eq!(stored(&site).await, before, "something was stored: {cell}");
        }
        wire.close(1000).await;
        if row.uses_up && (is_done || row.request["type"] == "unban") {
            world = World::new(&site, worlds).await;
            worlds += 1;
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The owner removes whom the world has for that.
async fn ban(site: &TestMesh, world: &World) {
    let mut of_owner = site.connect(&world.owner.hello()).await;
    let ban = json!({"type": "ban", "target": world.removed.key()});
    assert_eq!(of_owner.ask(ban).await["type"], "ban_ack");
    of_owner.close(1000).await;
}
