//! Joining and leaving groups.

use claudemesh_proto::hello::Group;
use claudemesh_proto::{GroupName, GroupSet};
use claudemesh_store::{MemberChange, Regrouped};

use crate::ground::Ground;
use crate::people::{Person, Town};

on_both! {
    joining_and_leaving_are_kept_with_their_entries_in_the_log,
    a_member_is_in_a_group_once_however_it_is_written,
    a_33rd_group_is_refused_and_nothing_changes,
    default_groups_hold_until_the_member_said_its_own,
    a_removed_member_joins_nothing,
}

pub(crate) fn set(names: &[&str]) -> GroupSet {
    GroupSet::read(names.iter().map(|name| Group { name: (*name).into(), role: None }).collect()).unwrap()
}

/// The groups that an audience would find the member in.
pub(crate) async fn in_force(ground: &Ground, who: &Person) -> Vec<String> {
    ground.rows(&format!("select name from member_group where member_id = '{}' order by name", who.id)).await
}

fn name(text: &str) -> GroupName {
    text.parse().unwrap()
}

/// The events of the log that are about groups, with their payloads.
async fn log(ground: &Ground) -> Vec<String> {
    ground.rows("select event_type, payload from audit_log where event_type like 'group%' order by seq").await
}

async fn joining_and_leaving_are_kept_with_their_entries_in_the_log(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let bob = (&town.mesh, &town.bob.id);
    let joined = store.join_group(bob, &name("dev"), Some("lead")).await.unwrap();
    let lead = Group { name: "dev".into(), role: Some("lead".into()) };
    assert_eq!(joined, Regrouped::Changed(GroupSet::read(vec![lead]).unwrap()));
    assert_eq!(store.join_group(bob, &name("dev"), Some("lead")).await.unwrap(), Regrouped::Unchanged);
    assert_eq!(store.join_group(bob, &name("dev"), None).await.unwrap(), Regrouped::Changed(set(&["dev"])));
    assert_eq!(in_force(ground, &town.bob).await, ["dev"]);
    assert_eq!(store.leave_group(bob, &name("ops")).await.unwrap(), Regrouped::Unchanged);
    assert_eq!(store.leave_group(bob, &name("dev")).await.unwrap(), Regrouped::Changed(set(&[])));
    assert_eq!(in_force(ground, &town.bob).await, [""; 0]);
    let dev = r#"{"group":"dev"}"#;
    let entries = ["group_joined", "group_joined", "group_left"].map(|event| format!("{event} | {dev}"));
    assert_eq!(log(ground).await, entries);
    store.close().await;
}

async fn a_member_is_in_a_group_once_however_it_is_written(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let bob = (&town.mesh, &town.bob.id);
    store.join_group(bob, &name("Front/End"), None).await.unwrap();
    assert_eq!(store.join_group(bob, &name("front/end"), None).await.unwrap(), Regrouped::Changed(set(&["front/end"])));
    assert_eq!(in_force(ground, &town.bob).await, ["front/end"]);
    assert_eq!(store.leave_group(bob, &name("FRONT/END")).await.unwrap(), Regrouped::Changed(set(&[])));
    store.close().await;
}

/// (R1)
async fn a_33rd_group_is_refused_and_nothing_changes(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let bob = (&town.mesh, &town.bob.id);
    for number in 0..32 {
        let joined = store.join_group(bob, &name(&format!("g{number}")), None).await.unwrap();
        assert!(matches!(joined, Regrouped::Changed(_)));
    }
    assert_eq!(store.join_group(bob, &name("one-more"), None).await.unwrap(), Regrouped::TooMany);
    assert!(matches!(store.join_group(bob, &name("g7"), Some("cook")).await.unwrap(), Regrouped::Changed(_)));
    assert_eq!((in_force(ground, &town.bob).await.len(), log(ground).await.len()), (32, 33));
    store.close().await;
}

async fn default_groups_hold_until_the_member_said_its_own(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (bob, ada) = ((&town.mesh, &town.bob.id), (&town.mesh, &town.ada.id));
    let defaults = async |names: &[&str]| {
        let change = MemberChange { default_groups: Some(set(names)), ..MemberChange::default() };
        store.change_member(ada, &town.bob.id, &change).await.unwrap();
    };
    defaults(&["crew"]).await;
    assert_eq!(in_force(ground, &town.bob).await, ["crew"]);
    // Joining adds to what holds, and is the member's own word from then on.
    assert_eq!(store.join_group(bob, &name("dev"), None).await.unwrap(), Regrouped::Changed(set(&["crew", "dev"])));
    defaults(&["staff"]).await;
    assert_eq!(in_force(ground, &town.bob).await, ["crew", "dev"]);
    store.leave_group(bob, &name("crew")).await.unwrap();
    assert_eq!(store.leave_group(bob, &name("dev")).await.unwrap(), Regrouped::Changed(set(&["staff"])));
    assert_eq!(store.leave_group(bob, &name("staff")).await.unwrap(), Regrouped::Unchanged);
    assert_eq!(in_force(ground, &town.bob).await, ["staff"]);
    store.close().await;
}

/// (R10)
async fn a_removed_member_joins_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    let bob = (&town.mesh, &town.bob.id);
    assert_eq!(store.join_group(bob, &name("dev"), None).await.unwrap(), Regrouped::NoMember);
    assert_eq!(in_force(ground, &town.bob).await, [""; 0]);
    store.close().await;
}
