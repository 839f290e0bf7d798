//! What members let others do to them.

use std::collections::BTreeMap;

use claudemesh_proto::PublicKey;
use claudemesh_proto::grant::{Capability, Grants};
use claudemesh_store::{GrantsSet, MAX_GRANTS};

use crate::ground::Ground;
use crate::people::{Town, fresh_key};

on_both! {
    grants_are_merged_blocked_and_taken_back,
    grants_beyond_the_limit_change_nothing,
    a_removed_member_grants_nothing,
}

type Said = Option<Vec<Capability>>;

async fn grant(town: &Town, said: &[(PublicKey, Said)]) -> GrantsSet {
    let said: BTreeMap<_, _> =
        said.iter().map(|(key, said)| (*key, said.clone().map(|said| said.into_iter().collect()))).collect();
    town.store.set_grants((&town.mesh, &town.bob.id), &said).await.unwrap()
}

fn grants(of: &[(PublicKey, &[Capability])]) -> Grants {
    Grants { grants: of.iter().map(|(key, said)| (key.to_string(), said.iter().copied().collect())).collect() }
}

async fn grants_are_merged_blocked_and_taken_back(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (one, two) = (fresh_key(), fresh_key());
    let dm_and_read: &[Capability] = &[Capability::Read, Capability::Dm];
    let first = grant(&town, &[(one, Some(vec![Capability::Dm, Capability::Read]))]).await;
    assert_eq!(first, GrantsSet::Done(grants(&[(one, dm_and_read)])));
    let words = ground.rows("select capabilities from member_grant").await;
    assert_eq!(words, [r#"["read","dm"]"#], "in the order of the words");
    let both = grants(&[(one, dm_and_read), (two, &[])]);
    assert_eq!(grant(&town, &[(two, Some(vec![]))]).await, GrantsSet::Done(both.clone()));
    assert_eq!(store.grants(&town.mesh, &town.bob.id).await.unwrap(), both);
    assert_eq!(store.grants(&town.mesh, &town.ada.id).await.unwrap(), Grants::default());
    // Nothing new: no entry in the log.
    assert_eq!(grant(&town, &[(two, Some(vec![])), (fresh_key(), None)]).await, GrantsSet::Done(both));
    assert_eq!(grant(&town, &[(one, None)]).await, GrantsSet::Done(grants(&[(two, &[])])));
    let log = ground.rows("select payload from audit_log where event_type = 'grants_changed' order by seq").await;
    assert_eq!(log, [one, two, one].map(|key| format!(r#"{{"count":1,"keys":["{key}"]}}"#)));
    store.close().await;
}

async fn grants_beyond_the_limit_change_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let many: Vec<_> = (0..MAX_GRANTS).map(|_| (fresh_key(), Some(vec![]))).collect();
    assert!(matches!(grant(&town, &many).await, GrantsSet::Done(_)));
    assert_eq!(
        grant(&town, &[(fresh_key(), Some(vec![])), (many[0].0, Some(vec![Capability::Dm]))]).await,
        GrantsSet::TooMany
    );
    assert_eq!(ground.number("select count(*) from member_grant where capabilities = '[]'").await, 1000);
    let exchange = [(many[0].0, None), (fresh_key(), Some(vec![]))];
    assert!(matches!(grant(&town, &exchange).await, GrantsSet::Done(_)));
    store.close().await;
}

/// (R10)
async fn a_removed_member_grants_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(grant(&town, &[(fresh_key(), Some(vec![]))]).await, GrantsSet::NoMember);
    store.close().await;
}
