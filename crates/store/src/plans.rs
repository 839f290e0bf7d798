//! Test only: every statement of the store reaches its rows by an index (docs/decisions/0001).
//!
//! A life is led on a store, each statement it runs is noted, and the database is asked how it would run it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::api_key::ApiKeyCreate;
use claudemesh_proto::audit::Checkpoint;
use claudemesh_proto::ban::Sought;
use claudemesh_proto::grant::Capability;
use claudemesh_proto::hello::Group;
use claudemesh_proto::post::Post;
use claudemesh_proto::{
    ConnectionId, GroupSet, MemberId, MemberRole, MeshId, MessageId, Priority, PublicKey, Signature, Timestamp,
    TopicId, TopicRole, TopicSought, Visibility,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use crate::db::Reader;
use crate::sql::{Sql, sql};
use crate::{
    Admission, ApiKeyMade, ApiKeyRevoked, Appended, Banned, Claim, Clock, DatabaseUrl, DeliveryId, Front, GrantsSet,
    HistoryPage, KeyChange, KeyChanged, MemberChange, MemberChanged, NewApiKey, NewInvite, NewMesh, NewMessage,
    NewTopic, NotificationPage, Options, OwnCopy, ReadNow, Recipient, Reclaim, Redeemed, Redemption, Regrouped,
    Release, SaidGroups, SessionClaim, Settle, Settled, Store, TopicKeyClaimed, TopicKeyFound, TopicMade,
};

thread_local! {
    static RUN: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Remembers a statement. The test's runtime has one thread, so the store's tasks note on it too.
pub(crate) fn note(sql: Sql) {
    RUN.with_borrow_mut(|run| run.insert((sql.sqlite, sql.postgres)));
}

async fn open(url: DatabaseUrl, clock: Clock) -> Store {
    let message_ttl = Duration::from_hours(1);
    Store::open(Options { url, node: "plans".into(), message_ttl, clock, bell: Arc::new(|_| ()) }).await.unwrap()
}

/// Does everything that a store can do.
async fn live(store: &Store) {
    let (ada_key, bob_key, session) =
        (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]), PublicKey::from_bytes([3; 32]));
    let name = || "Ada".parse().unwrap();
    let mesh =
        NewMesh { slug: "plans".parse().unwrap(), owner_pubkey: ada_key, member_pubkey: ada_key, display_name: name() };
    let made = store.create_mesh(&mesh).await.unwrap().unwrap();
    let (mesh_id, ada) = (made.mesh_id, made.member_id);
    let invite = NewInvite {
        mesh_id: mesh_id.clone(),
        token: "token".into(),
        signature: claudemesh_proto::Signature::from_bytes([7; 64]),
        role: MemberRole::Member,
        max_uses: 1,
        expires_at: Timestamp::from_millis(i64::MAX),
        created_by: ada.clone(),
    };
    let invite_id = store.create_invite(&invite).await.unwrap().unwrap().id;
    let redemption = Redemption {
        mesh_id: mesh_id.clone(),
        token: "token".into(),
        role: MemberRole::Member,
        is_what_the_token_says: true,
        pubkey: bob_key,
        display_name: name(),
    };
    let Redeemed::Joined(bob) = store.redeem_invite(&redemption).await.unwrap() else { panic!("did not join") };
    store.revoke_invite(&mesh_id, &invite_id, &ada).await.unwrap();
    let groups = GroupSet::read(vec![Group { name: "dev".into(), role: None }]).unwrap();
    for (number, pubkey, proven) in [(1, bob_key, false), (2, ada_key, true)] {
        let admission = Admission {
            mesh_id: mesh_id.clone(),
            member_pubkey: pubkey,
            expected_member_id: None,
            signature: Signature::from_bytes([number; 64]),
            session: Some(SessionClaim { pubkey: session, proven }),
            groups: SaidGroups::Own(groups.clone()),
            is_arrival: true,
        };
        store.admit(admission).await.await.unwrap();
    }
    change(store, &mesh_id, &ada).await;
    write(store, &mesh_id, (&ada, ada_key), (&bob, bob_key)).await;
    talk(store, &mesh_id, (&ada, &bob)).await;
    post(store, &mesh_id, (&ada, ada_key), &bob).await;
    remove(store, &mesh_id, &ada, bob_key).await;
    audit(store, &mesh_id).await;
    store.append(direct(&mesh_id, (&ada, ada_key), bob_key, 9)).await.await.unwrap();
    api_key(store, &mesh_id, (&ada, &bob)).await;
    assert!(!store.unread(&mesh_id, &ada).await.unwrap().is_empty());
    assert_eq!(store.pubkeys_of(&mesh_id, [&ada, &bob]).await.unwrap().len(), 2);
    store.refresh_sessions(&[(mesh_id.clone(), session)]).await.unwrap();
    store.members(&mesh_id).await.unwrap();
    store.mesh(&mesh_id).await.unwrap();
    store.invites(&mesh_id).await.unwrap();
    store.queue_depth().await.unwrap();
    assert!(store.is_up().await);
}

/// Says everything that a member can say about itself.
async fn change(store: &Store, mesh_id: &MeshId, ada: &MemberId) {
    let name = "ops".parse().unwrap();
    assert!(matches!(store.join_group((mesh_id, ada), &name, None).await.unwrap(), Regrouped::Changed(_)));
    store.leave_group((mesh_id, ada), &name).await.unwrap();
    let grants = [(PublicKey::from_bytes([9; 32]), Some([Capability::Dm].into()))].into();
    assert!(matches!(store.set_grants((mesh_id, ada), &grants).await.unwrap(), GrantsSet::Done(_)));
    store.grants(mesh_id, ada).await.unwrap();
    let change = MemberChange { default_groups: Some(GroupSet::default()), ..MemberChange::default() };
    let change = MemberChange { role_tag: Some("cook".into()), ..change };
    assert!(matches!(store.change_member((mesh_id, ada), ada, &change).await.unwrap(), MemberChanged::Done(_)));
    store.set_visible(mesh_id, ada, false).await.unwrap();
}

fn direct(mesh_id: &MeshId, (ada, ada_key): (&MemberId, PublicKey), to: PublicKey, number: u8) -> NewMessage {
    NewMessage {
        mesh_id: mesh_id.clone(),
        sender_member_id: ada.clone(),
        sender_member_pubkey: ada_key,
        sender_pubkey: ada_key,
        sender_name: "Ada".parse().unwrap(),
        target: claudemesh_proto::Target::Key(to),
        target_is_open: false,
        priority: Priority::Now,
        nonce: String::new(),
        ciphertext: String::new(),
        ext: None,
        client_message_id: Some(format!("{number}")),
        request_fingerprint: None,
        post: None,
        knows_topics: true,
    }
}

/// Makes topics, passes their keys on, reads them and leaves.
async fn talk(store: &Store, mesh_id: &MeshId, (ada, bob): (&MemberId, &MemberId)) {
    let (of_ada, of_bob) = ((mesh_id, ada), (mesh_id, bob));
    let key = OwnCopy { encrypted_key_pubkey: "k".into(), encrypted_key: "e".into(), nonce: "n".into() };
    let new = NewTopic {
        name: "plans".parse().unwrap(),
        description: None,
        visibility: Visibility::Public,
        key: key.clone(),
    };
    let TopicMade::Made(topic) = store.create_topic(of_ada, &new).await.unwrap() else { panic!("not made") };
    store.create_topic(of_bob, &new).await.unwrap();
    store.find_topic(of_bob, &new.name).await.unwrap().unwrap();
    let sought = TopicSought::by_id(topic.id.clone());
    store.leave_topic(of_bob, &sought).await.unwrap();
    store.join_topic(of_bob, &sought, TopicRole::Member).await.unwrap();
    store.add_topic_member(of_ada, &sought, (bob, Some(TopicRole::Observer))).await.unwrap();
    store.topics(mesh_id, ada).await.unwrap();
    store.topic(of_ada, &sought).await.unwrap().unwrap();
    store.topic_members(of_ada, &sought).await.unwrap().unwrap();
    store.mark_topic_read(of_ada, &sought).await.unwrap().unwrap();
    let general = TopicSought::by_name("general");
    assert!(matches!(store.claim_topic_key(of_ada, &general, &key).await.unwrap(), TopicKeyClaimed::Done(_)));
    assert!(matches!(store.replace_topic_key(of_ada, &general, &key).await.unwrap(), TopicKeyClaimed::Done(_)));
    assert_eq!(store.pending_seals(of_ada, &sought).await.unwrap().unwrap().1.len(), 1);
    store.seal_topic_key(of_ada, &sought, (bob, "e", "n")).await.unwrap();
    assert!(matches!(store.topic_key(of_bob, &sought).await.unwrap(), TopicKeyFound::Copy(..)));
    store.reject_topic_key(of_bob, &sought).await.unwrap();
    let id = MessageId::new(1, [1; 24]);
    store.topic_message_seq(mesh_id, &topic.id, id.as_str()).await.unwrap();
    keep(store, (mesh_id, &topic.id), (ada, &id)).await;
    let page = HistoryPage { before: None, limit: 10 };
    assert_eq!(store.topic_history(of_ada, &sought, page).await.unwrap().unwrap().1.unwrap().len(), 1);
    assert_eq!(store.topic_messages_after(of_ada, &sought, (0, 10)).await.unwrap().unwrap().1.len(), 1);
    store.peer_pubkey(mesh_id, bob).await.unwrap();
    for (from, to) in [(2, 22), (22, 2)] {
        let change =
            KeyChange { from: PublicKey::from_bytes([from; 32]), to: PublicKey::from_bytes([to; 32]), is_proven: true };
        assert_eq!(store.change_peer_pubkey(of_bob, &change).await.unwrap(), KeyChanged::Done { changed: true });
    }
}

/// A message of a topic, as it is kept.
async fn keep(store: &Store, (mesh_id, topic_id): (&MeshId, &TopicId), (ada, id): (&MemberId, &MessageId)) {
    const MESSAGE: Sql = sql!(
        "insert into topic_message (mesh_id, topic_id, seq, message_seq, id, sender_member_id, sender_pubkey, sender_name, \
         priority, nonce, ciphertext, body_version, created_at) \
         values ($1, $2, 1, 1, $3, $4, $5, 'Ada', 'next', '', 'eA==', 1, 0)"
    );
    let key = PublicKey::from_bytes([1; 32]).to_string();
    let values =
        [mesh_id.as_str().into(), topic_id.as_str().into(), id.as_str().into(), ada.as_str().into(), (&key).into()];
    let mut tx = store.db().write().await.unwrap();
    tx.connection().execute(MESSAGE, &values).await.unwrap();
    tx.commit().await.unwrap();
}

/// Writes into a topic, and reads there.
async fn post(store: &Store, mesh_id: &MeshId, (ada, ada_key): (&MemberId, PublicKey), bob: &MemberId) {
    let topic = store.topics(mesh_id, ada).await.unwrap().remove(0).id;
    let mut last = None;
    for number in 20..22 {
        let mentions = vec!["ada".to_owned()];
        let post = Some(Post { mentions, reply_to_id: last.as_ref().map(MessageId::to_string), ..Post::default() });
        let target = claudemesh_proto::Target::Topic(topic.clone());
        let message =
            NewMessage { target, post, knows_topics: false, ..direct(mesh_id, (ada, ada_key), ada_key, number) };
        let Appended::Posted(posted) = store.append(message).await.await.unwrap() else { panic!("not posted") };
        last = Some(posted.message_id);
    }
    let connection = ConnectionId::from_random([2; 32]);
    let mut rows = store.claim(claim(mesh_id, bob, &connection)).await.await.unwrap();
    rows.retain(|row| row.post.is_some());
    let held = rows.iter().map(|row| (row.delivery, Duration::from_mins(1))).collect();
    let again = Reclaim { mesh_id: mesh_id.clone(), connection: connection.clone(), rows: held };
    assert_eq!(store.reclaim(again).await.await.unwrap().len(), 2);
    let DeliveryId::Post { cursor, seq } = rows[0].delivery else { panic!("not a post") };
    let front = Front { cursor, seq, connection: connection.clone(), is_done: false };
    let by_message = Settled::Message(rows[1].message_id.clone(), Vec::new());
    for which in [Settled::Posts(front), by_message] {
        store.settle(Settle { mesh_id: mesh_id.clone(), by: bob.clone(), which }).await.await.unwrap();
    }
    store.message_path(mesh_id, last.unwrap().as_str()).await.unwrap().unwrap();
    let long_ago = Timestamp::from_millis(0);
    assert!(!store.recent_messages((mesh_id, bob), long_ago, 10).await.unwrap().is_empty());
    assert!(!store.own_topics(mesh_id, bob).await.unwrap().is_empty());
    for unread_only in [true, false] {
        let page = NotificationPage { since: long_ago, unread_only, limit: 10 };
        store.notifications((mesh_id, bob), page).await.unwrap();
    }
    for which in [ReadNow::These(vec!["n".parse().unwrap()]), ReadNow::Before(long_ago)] {
        store.read_notifications((mesh_id, bob), &which, None).await.unwrap();
    }
}

/// Removes a member with waiting mail, and takes it back.
async fn remove(store: &Store, mesh_id: &MeshId, ada: &MemberId, bob: PublicKey) {
    let target = Sought::new(&bob.to_string()).unwrap();
    let Banned::Done(bob) = store.ban(mesh_id, ada, &target).await.unwrap() else { panic!("not removed") };
    store.authority(mesh_id, ada).await.unwrap().unwrap();
    store.members_called(mesh_id, &target).await.unwrap();
    store.bans(mesh_id).await.unwrap();
    store.removed_within(Duration::from_secs(1)).await.unwrap();
    assert!(!store.end_mail_of(mesh_id, &bob.id).await.unwrap());
    store.unban(mesh_id, ada, &target).await.unwrap();
}

/// Reads and verifies the audit log.
async fn audit(store: &Store, mesh_id: &MeshId) {
    store.audit_entries(mesh_id, (10, 0), None).await.unwrap();
    store.audit_entries(mesh_id, (10, 0), Some("mesh_created")).await.unwrap();
    let head = store.audit_heads_due(1, Duration::ZERO).await.unwrap().remove(0);
    let checkpoint = Checkpoint {
        seq: head.seq,
        hash: head.hash,
        hash2: head.hash2,
        signed_at: Timestamp::from_millis(0),
        pubkey: PublicKey::from_bytes([1; 32]),
        signature: Signature::from_bytes([1; 64]),
    };
    store.keep_checkpoint(mesh_id, &checkpoint).await.unwrap();
    let verified = store.verify_audit_log(mesh_id, &[], |_| true, || true).await.unwrap().unwrap();
    assert_eq!((verified.broken, verified.newest), (None, Some(checkpoint)));
}

/// Sends, claims and gives back in every way.
async fn write(
    store: &Store,
    mesh_id: &MeshId,
    (ada, ada_key): (&MemberId, PublicKey),
    (bob, bob_key): (&MemberId, PublicKey),
) {
    let connection = ConnectionId::from_random([1; 32]);
    let mut last = None;
    for number in 0..3 {
        let message = direct(mesh_id, (ada, ada_key), bob_key, number);
        let Appended::Kept(id) = store.append(message).await.await.unwrap() else { panic!("not kept") };
        last = Some(id);
    }
    let recipient = Recipient::Member(bob.clone());
    let rows = store.claim(claim(mesh_id, bob, &connection)).await.await.unwrap();
    let held = rows.iter().map(|row| (row.delivery, Duration::from_mins(1))).collect();
    store
        .reclaim(Reclaim { mesh_id: mesh_id.clone(), connection: connection.clone(), rows: held })
        .await
        .await
        .unwrap();
    let held = rows.iter().map(|row| (row.delivery, recipient.clone())).collect();
    let unanswered = vec![recipient.clone()];
    store.release(Release { mesh_id: mesh_id.clone(), connection, held, unanswered }).await.await.unwrap();
    let by_message = Settled::Message(last.clone().unwrap(), vec![recipient]);
    for which in [Settled::Held(rows[0].delivery), by_message] {
        store.settle(Settle { mesh_id: mesh_id.clone(), by: bob.clone(), which }).await.await.unwrap();
    }
    store.message_path(mesh_id, last.unwrap().as_str()).await.unwrap().unwrap();
}

/// Makes, uses and ends keys to the REST interface.
async fn api_key(store: &Store, mesh_id: &MeshId, (ada, bob): (&MemberId, &MemberId)) {
    let asked = ApiKeyCreate { label: "ci".into(), capabilities: vec!["read".into()], ..ApiKeyCreate::default() };
    let new = NewApiKey {
        mesh_id: mesh_id.clone(),
        issued_by: bob.clone(),
        wanted: asked.read(Timestamp::from_millis(0)).unwrap(),
        prefix: "cm_AAAAAAAA".into(),
        hash: "hash".into(),
    };
    let ApiKeyMade::Done(key) = store.create_api_key(&new).await.unwrap() else { panic!("not made") };
    store.note_use_of_api_key(mesh_id, &key.id).await.unwrap();
    assert_eq!(store.api_keys_like("cm_AAAAAAAA").await.unwrap().len(), 1);
    assert_eq!(store.members_by_key(mesh_id, Duration::from_mins(5), ada).await.unwrap().len(), 1);
    for member in [ada, bob] {
        assert_eq!(store.api_keys(mesh_id, member).await.unwrap().len(), 1);
    }
    let revoked = store.revoke_api_key((mesh_id, ada), key.id.as_str()).await.unwrap();
    assert_eq!(revoked, ApiKeyRevoked::Done(key.id));
}

fn claim(mesh_id: &MeshId, of: &MemberId, connection: &ConnectionId) -> Claim {
    Claim {
        mesh_id: mesh_id.clone(),
        recipients: vec![Recipient::Member(of.clone())],
        connection: connection.clone(),
        after_seq: 0,
        urgent_only: false,
        max_rows: 256,
        max_bytes: 1 << 20,
        lease: Duration::from_secs(30),
        is_retry: false,
        waits: false,
        knows_topics: true,
    }
}

fn noted() -> Vec<(&'static str, &'static str)> {
    RUN.with_borrow(|run| run.iter().copied().collect())
}

/// What may be read from end to end: what grows with meshes or starts of a broker and is read rarely.
fn may_be_scanned(sql: &str) -> bool {
    [
        "select cast(coalesce(sum(queued_rows)",
        "select h.mesh_id from mesh_head h where",
        "select h.mesh_id, h.audit_seq, h.audit_hash, h.audit_hash2 from mesh_head h left join",
        // By an index that holds hardly ever anything.
        "select mesh_id, id from member where revoking = 1",
        "update node set heartbeat_at = 0",
        "delete from node where heartbeat_at = 0",
        "select 1",
        "pragma",
    ]
    .iter()
    .any(|start| sql.starts_with(start))
}

#[tokio::test]
async fn sqlite_reaches_every_row_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(directory.path().join("plans.db"));
    let store = open(url.clone(), Clock::system()).await;
    live(&store).await;
    store.close().await;
    let later = Clock::from_fn(|| Clock::system().now().plus(Duration::from_hours(48)));
    let store = open(url, later).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    let statements = noted();
    assert!(statements.len() > 35, "{} statements", statements.len());
    let mut reader = store.db().read().await.unwrap();
    let Reader::Sqlite(connection) = &mut reader else { panic!("not SQLite") };
    // A text may hold several statements.
    for sql in statements.iter().flat_map(|(sql, _)| sql.split("; ")) {
        if may_be_scanned(sql) {
            continue;
        }
        let explain = AssertSqlSafe(format!("explain query plan {sql}"));
        let plan: Vec<String> =
            sqlx::query(explain).fetch_all(&mut **connection).await.unwrap().iter().map(|row| row.get(3)).collect();
        let fine = |step: &String| {
            let allowed = [
                "SCAN r VIRTUAL TABLE",
                "SCAN json_each VIRTUAL TABLE",
                "SCAN t",
                "SCAN CONSTANT ROW",
                "SCAN a",
                "SCAN b",
            ];
            !step.contains("AUTOMATIC")
                && (!step.starts_with("SCAN ") || allowed.iter().any(|scan| step.starts_with(scan)))
        };
        assert!(plan.iter().all(fine), "{sql}\n{}", plan.join("\n"));
        if sql.contains("n.read_at is null") {
            assert!(plan.iter().any(|step| step.contains("notification_unread")), "{}", plan.join("\n"));
        }
    }
    drop(reader);
    store.close().await;
}

#[tokio::test]
async fn postgres_reaches_every_row_by_an_index() {
    let cluster = std::env::var("CLAUDEMESH_TEST_POSTGRES").expect(
        "this test needs PostgreSQL: run `cargo xtask test`, which starts one and sets CLAUDEMESH_TEST_POSTGRES",
    );
    let options: sqlx::postgres::PgConnectOptions = cluster.parse().unwrap();
    let mut admin = options.connect().await.unwrap();
    let name = format!("plans_{}", std::process::id());
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
    let url = format!("{}/{name}", cluster.rsplit_once('/').unwrap().0);
    let store = open(DatabaseUrl::Postgres(url.clone()), Clock::system()).await;
    live(&store).await;
    let mut bad = Vec::new();
    {
        let mut reader = store.db().read().await.unwrap();
        let Reader::Postgres(connection) = &mut reader else { panic!("not PostgreSQL") };
        sqlx::raw_sql("update message set created_at = 0").execute(&mut **connection).await.unwrap();
        store.sweep().await.unwrap();
        sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut **connection).await.unwrap();
        for (_, sql) in noted() {
            if may_be_scanned(sql) || sql.starts_with("show") {
                continue;
            }
            let parameters = (1..20).take_while(|number| sql.contains(&format!("${number}"))).count();
            let nulls = vec!["null"; parameters].join(",");
            let call = if nulls.is_empty() { "p".to_owned() } else { format!("p({nulls})") };
            let prepare = format!("deallocate all; prepare p as {sql}");
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut **connection).await.unwrap();
            let explain = AssertSqlSafe(format!("explain execute {call}"));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut **connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let reads_all = |(number, step): (usize, &String)| {
                let by_index = step.contains("Index Scan using") || step.contains("Index Only Scan using");
                let is_whole = by_index && plan.get(number + 1).is_none_or(|next| !next.contains("Index Cond"));
                step.contains("Seq Scan on") || step.contains("Hash Join") || is_whole
            };
            if plan.iter().enumerate().any(reads_all) {
                bad.push(format!("{sql}\n{}", plan.join("\n")));
            }
        }
    }
    store.close().await;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&mut admin).await.unwrap();
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}
