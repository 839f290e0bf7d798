//! Changing what is known of a member.

use claudemesh_proto::MemberRole;
use claudemesh_proto::member::MessageMode;
use claudemesh_store::{Denied, Member, MemberChange, MemberChanged};

use crate::ground::Ground;
use crate::groups::set;
use crate::people::{Person, Town};

on_both! {
    what_is_changed_is_listed_and_of_its_values_name_and_role_are_logged,
    nothing_to_change_is_not_logged,
    only_whoever_may_changes_a_member,
    a_member_was_last_seen_when_it_came_or_went,
}

async fn change(town: &Town, by: &Person, whom: &Person, change: &MemberChange) -> MemberChanged {
    town.store.change_member((&town.mesh, &by.id), &whom.id, change).await.unwrap()
}

async fn listed(town: &Town, who: &Person) -> Member {
    let members = town.store.members(&town.mesh).await.unwrap();
    members.into_iter().find(|member| member.id == who.id).unwrap()
}

fn named(name: &str) -> MemberChange {
    MemberChange { display_name: Some(name.parse().unwrap()), ..MemberChange::default() }
}

async fn what_is_changed_is_listed_and_of_its_values_name_and_role_are_logged(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let all = MemberChange {
        display_name: Some("Robert".parse().unwrap()),
        role_tag: Some("cook".into()),
        default_groups: Some(set(&["kitchen"])),
        message_mode: Some(MessageMode::Inbox),
        role: Some(MemberRole::Admin),
    };
    let MemberChanged::Done(done) = change(&town, &town.ada, &town.bob, &all).await else { panic!("not done") };
    let (before, after) = *done;
    assert_eq!((before.display_name.as_str(), before.role_tag), ("Newcomer", None));
    assert_eq!(after, listed(&town, &town.bob).await);
    assert_eq!((after.display_name.as_str(), after.role_tag.as_deref()), ("Robert", Some("cook")));
    assert_eq!((&after.default_groups, after.message_mode.as_str()), (&set(&["kitchen"]), "inbox"));
    assert_eq!(after.role, MemberRole::Admin);
    let no_tag = MemberChange { role_tag: Some(String::new()), ..MemberChange::default() };
    change(&town, &town.bob, &town.bob, &no_tag).await;
    assert_eq!(listed(&town, &town.bob).await.role_tag, None);
    let log = ground
        .rows("select actor_member_id, payload from audit_log where event_type = 'member_updated' order by seq")
        .await;
    let entry = |by: &Person, before: &str, fields: &str, after: &str| {
        format!(r#"{} | {{{before}"fields":[{fields}],"memberId":"{}"{after}}}"#, by.id, town.bob.id)
    };
    let (name, role) =
        (r#""displayName":{"from":"Newcomer","to":"Robert"},"#, r#","role":{"from":"member","to":"admin"}"#);
    let every = r#""displayName","roleTag","groups","messageMode","role""#;
    assert_eq!(log, [entry(&town.ada, name, every, role), entry(&town.bob, "", r#""roleTag""#, "")]);
    store.close().await;
}

async fn nothing_to_change_is_not_logged(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let MemberChanged::Done(done) = change(&town, &town.bob, &town.bob, &named("Newcomer")).await else { panic!() };
    assert_eq!(done.0, done.1);
    assert_eq!(ground.number("select count(*) from audit_log where event_type = 'member_updated'").await, 0);
    store.close().await;
}

async fn only_whoever_may_changes_a_member(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let denied = async |by: &Person, whom: &Person, asked: MemberChange| match change(&town, by, whom, &asked).await {
        MemberChanged::Denied(denied) => denied,
        other => panic!("not denied: {other:?}"),
    };
    let role = |role| MemberChange { role: Some(role), ..MemberChange::default() };
    assert_eq!(denied(&town.bob, &town.ada, named("X")).await, Denied::Others);
    assert_eq!(denied(&town.bob, &town.bob, role(MemberRole::Admin)).await, Denied::Role);
    assert_eq!(denied(&town.ada, &town.ada, role(MemberRole::Member)).await, Denied::Owner);
    ground.sql("update mesh set self_editable = '{\"displayName\":false}'").await;
    assert_eq!(denied(&town.bob, &town.bob, named("X")).await, Denied::Field("displayName"));
    let mode = MemberChange { message_mode: Some(MessageMode::Off), ..MemberChange::default() };
    assert!(matches!(change(&town, &town.bob, &town.bob, &mode).await, MemberChanged::Done(_)));
    assert!(matches!(change(&town, &town.ada, &town.bob, &named("X")).await, MemberChanged::Done(_)));
    // R6: somebody of another mesh is nobody here. R10: neither is whoever was removed.
    let other = Town::found(&store).await;
    assert_eq!(change(&town, &town.ada, &other.bob, &named("X")).await, MemberChanged::NotFound);
    assert_eq!(denied(&Person { id: other.ada.id, ..town.ada.clone() }, &town.bob, named("X")).await, Denied::Others);
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(change(&town, &town.ada, &town.bob, &named("X")).await, MemberChanged::NotFound);
    store.close().await;
}

async fn a_member_was_last_seen_when_it_came_or_went(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    assert_eq!(listed(&town, &town.bob).await.last_seen_at, None);
    town.admit(town.hello(town.bob.key, None)).await;
    let came = listed(&town, &town.bob).await.last_seen_at.unwrap();
    ground.sql("update member set last_seen_at = last_seen_at - 1000").await;
    store.note_parting(
        (&town.mesh, &town.bob.id),
        &"Bob".parse().unwrap(),
        claudemesh_proto::hello::RestoredStats::default(),
    );
    store.set_visible(&town.mesh, &town.bob.id, true).await.unwrap();
    assert!(listed(&town, &town.bob).await.last_seen_at.unwrap() >= came);
    store.close().await;
}
