//! What is remembered of a member between its connections.

use claudemesh_proto::hello::RestoredStats;
use claudemesh_proto::presence::Profile;
use claudemesh_store::{Admission, Admitted, Remembered, SaidGroups, SessionClaim, Welcome};

use crate::ground::Ground;
use crate::groups::{in_force, set};
use crate::people::{Person, Town, fresh_key};

on_both! {
    the_first_hello_is_remembered_by_the_second,
    two_first_hellos_in_one_batch_are_one_memory,
    what_was_said_is_restored,
    what_connections_did_adds_up_and_never_overflows,
    a_hello_s_groups_replace_the_member_s_and_a_session_s_are_added,
    a_session_s_groups_beyond_the_limit_admit_nobody_and_change_nothing,
}

async fn welcome(town: &Town, admission: Admission) -> Welcome {
    match town.admit(admission).await {
        Admitted::Welcome(welcome) => *welcome,
        other => panic!("not welcome: {other:?}"),
    }
}

fn saying(town: &Town, who: &Person, groups: SaidGroups) -> Admission {
    let session = matches!(groups, SaidGroups::Also(_)).then(|| SessionClaim { pubkey: fresh_key(), proven: true });
    Admission { groups, ..town.hello(who.key, session) }
}

async fn the_first_hello_is_remembered_by_the_second(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let hello = || town.hello(town.bob.key, None);
    assert_eq!(welcome(&town, hello()).await.remembered, None);
    let second = welcome(&town, hello()).await;
    assert_eq!(second.remembered, Some(Remembered { visible: true, ..Remembered::default() }));
    assert!(second.last_seen_at.is_some());
    assert_eq!(welcome(&town, town.hello(town.ada.key, None)).await.remembered, None, "somebody else");
    store.close().await;
}

async fn two_first_hellos_in_one_batch_are_one_memory(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let own = |name| saying(&town, &town.bob, SaidGroups::Own(set(&[name])));
    let also = saying(&town, &town.bob, SaidGroups::Also(set(&["c"])));
    let pending = [store.admit(own("a")).await, store.admit(own("b")).await, store.admit(also).await];
    let mut last = None;
    for answer in pending {
        let Admitted::Welcome(welcome) = answer.await.unwrap() else { panic!("not welcome") };
        last = Some(welcome);
    }
    let last = last.unwrap();
    assert_eq!((last.groups, last.remembered.unwrap().groups), (set(&["b", "c"]), set(&["b"])));
    assert_eq!(in_force(ground, &town.bob).await, ["b", "c"]);
    assert_eq!(ground.number("select count(*) from peer_state").await, 1);
    store.close().await;
}

/// (websocket 1.6)
async fn what_was_said_is_restored(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (mesh, bob) = (&town.mesh, &town.bob.id);
    let profile = Profile { title: Some("Cook".into()), ..Profile::default() };
    store.set_visible(mesh, bob, false).await.unwrap();
    store.set_profile(mesh, bob, &profile).await.unwrap();
    store.set_summary(mesh, bob, "soup").await.unwrap();
    let stats = RestoredStats { messages_in: 3, ..RestoredStats::default() };
    store.note_parting((mesh, bob), &"Bob's desk".parse().unwrap(), stats);
    store.set_visible(mesh, &town.ada.id, true).await.unwrap();
    store.close().await;
    let store = ground.open().await;
    let town = town.through(&store);
    let back = welcome(&town, town.hello(town.bob.key, None)).await;
    let last_summary = Some("soup".to_owned());
    let remembered = Remembered { visible: false, profile, last_summary, stats, ..Remembered::default() };
    assert_eq!(back.remembered, Some(remembered));
    assert!(back.last_seen_at.is_some(), "a connection of it ended");
    let names = ground.rows("select last_display_name from peer_state order by last_display_name is null").await;
    assert_eq!(names, ["Bob's desk", "null"]);
    store.set_summary(mesh, bob, "").await.unwrap();
    let back = welcome(&town, town.hello(town.bob.key, None)).await;
    assert_eq!(back.remembered.unwrap().last_summary, None);
    store.close().await;
}

async fn what_connections_did_adds_up_and_never_overflows(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (mesh, bob) = (&town.mesh, &town.bob.id);
    let did = |messages_in, errors| RestoredStats { messages_in, messages_out: 1, tool_calls: 0, errors };
    for stats in [did(3, 0), did(4, u64::MAX), did(5, u64::MAX)] {
        store.note_parting((mesh, bob), &"Bob".parse().unwrap(), stats);
    }
    store.set_visible(mesh, bob, true).await.unwrap();
    let stats = welcome(&town, town.hello(town.bob.key, None)).await.remembered.unwrap().stats;
    assert_eq!((stats.messages_in, stats.messages_out, stats.tool_calls, stats.errors), (12, 3, 0, 1 << 41));
    let most = (1_u64 << 53) - 1;
    ground.sql(&format!("update peer_state set cumulative_stats = '{{\"errors\":{most}}}'")).await;
    store.note_parting((mesh, bob), &"Bob".parse().unwrap(), did(1, 7));
    store.set_visible(mesh, bob, true).await.unwrap();
    let stats = welcome(&town, town.hello(town.bob.key, None)).await.remembered.unwrap().stats;
    assert_eq!((stats.messages_in, stats.errors), (1, most));
    store.close().await;
}

/// (websocket 1.6)
async fn a_hello_s_groups_replace_the_member_s_and_a_session_s_are_added(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let says = async |groups| welcome(&town, saying(&town, &town.bob, groups)).await.groups;
    assert_eq!(says(SaidGroups::Nothing).await, set(&[]));
    assert_eq!(says(SaidGroups::Own(set(&["Dev", "ops"]))).await, set(&["Dev", "ops"]));
    assert_eq!(in_force(ground, &town.bob).await, ["dev", "ops"]);
    assert_eq!(says(SaidGroups::Nothing).await, set(&["Dev", "ops"]));
    assert_eq!(says(SaidGroups::Also(set(&["web"]))).await, set(&["Dev", "ops", "web"]));
    assert_eq!(says(SaidGroups::Also(set(&[]))).await, set(&["Dev", "ops", "web"]));
    assert_eq!(says(SaidGroups::Own(set(&["web"]))).await, set(&["web"]));
    assert_eq!(in_force(ground, &town.bob).await, ["web"]);
    assert_eq!(in_force(ground, &town.ada).await, [""; 0]);
    store.close().await;
}

/// (R1)
async fn a_session_s_groups_beyond_the_limit_admit_nobody_and_change_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let names: Vec<String> = (0..32).map(|number| format!("g{number}")).collect();
    let full = set(&names.iter().map(String::as_str).collect::<Vec<_>>());
    welcome(&town, saying(&town, &town.bob, SaidGroups::Own(full.clone()))).await;
    let more = saying(&town, &town.bob, SaidGroups::Also(set(&["g0", "one-more"])));
    assert_eq!(town.admit(more.clone()).await, Admitted::TooManyGroups);
    assert_eq!(in_force(ground, &town.bob).await.len(), 32);
    // It was not accepted: the same handshake may come again.
    welcome(&town, saying(&town, &town.bob, SaidGroups::Own(set(&["g0"])))).await;
    welcome(&town, more).await;
    assert_eq!(in_force(ground, &town.bob).await, ["g0", "one-more"]);
    store.close().await;
}
