//! D1 and D15: the store refuses a database that would lose what it acknowledges.

use claudemesh_store::{DatabaseUrl, OpenError, Options, Store, StoreError};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection};

#[tokio::test]
async fn postgres_that_acks_before_it_syncs_is_refused() {
    let ground = Ground::postgres().await;
    for value in ["off", "local", "remote_write"] {
        ground.sql(&format!("alter database {} set synchronous_commit = {value}", ground.name())).await;
        let refused = ground.try_open("alpha").await.unwrap_err();
        assert!(matches!(refused, OpenError::NotDurable { setting: "show synchronous_commit", .. }), "{refused}");
        assert!(refused.to_string().contains(value), "{refused}");
    }
    ground.sql(&format!("alter database {} set synchronous_commit = remote_apply", ground.name())).await;
    ground.open().await.close().await;
}

#[tokio::test]
async fn sqlite_is_in_wal_mode_and_syncs() {
    let ground = Ground::sqlite();
    let store = ground.open().await;
    assert_eq!(ground.rows("pragma journal_mode").await, ["wal"]);
    assert_eq!(ground.number("select count(*) from mesh").await, 0);
    // The writer's settings are checked at each start; see `require` in db.rs.
    store.close().await;
    ground.sql("pragma journal_mode = delete").await;
    let store = ground.open().await;
    assert_eq!(ground.rows("pragma journal_mode").await, ["wal"]);
    store.close().await;
}

#[tokio::test]
async fn a_password_is_in_no_error() {
    let options = |url: &str| Options { url: url.parse().unwrap(), ..Ground::sqlite().options("alpha") };
    for url in
        ["postgres://user:hunter2@127.0.0.1:1/db", "postgres://user:hunter2@[bad/db", "postgres://u:hunter2@h:x/"]
    {
        let error = Store::open(options(url)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(matches!("mysql://h".parse::<DatabaseUrl>(), Err(OpenError::BadUrl)));
    assert!(matches!("sqlite://".parse::<DatabaseUrl>(), Err(OpenError::BadUrl)));
}

#[tokio::test]
async fn a_directory_that_is_missing_is_named() {
    let ground = Ground::sqlite();
    let url = DatabaseUrl::Sqlite(ground.file().with_file_name("missing").join("broker.db"));
    let error = Store::open(Options { url, ..ground.options("alpha") }).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    for ground in [Ground::sqlite(), Ground::postgres().await] {
        ground.open().await.close().await;
        ground.sql("update _sqlx_migrations set checksum = '\\x00' ").await;
        assert!(matches!(ground.try_open("alpha").await, Err(OpenError::Migrate(_))));
    }
}

on_both! { what_was_acked_is_there_after_a_restart }

async fn what_was_acked_is_there_after_a_restart(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for number in 0..10 {
        town.tell_bob(&number.to_string()).await;
        if number % 3 == 0 {
            store.clone().close().await;
            let store = ground.open().await;
            let town = town.through(&store);
            town.tell_bob("between").await;
            store.close().await;
            break;
        }
    }
    let store = ground.open().await;
    assert_eq!(town.through(&store).bob_gets(&fresh_connection()).await, ["0", "between"]);
    store.close().await;
}

/// D1, D15: whoever has the log synced after the commit says nothing when that fails, and neither does whatever comes after it.
#[tokio::test]
async fn a_large_batch_that_was_not_synced_is_not_acknowledged_and_nothing_after_it() {
    let ground = Ground::sqlite();
    let store = ground.open().await;
    let town = Town::found(&store).await;
    // SQLite goes on with the file that it has open; whoever looks for it by its name cannot open it.
    let mut wal = ground.file().into_os_string();
    wal.push("-wal");
    let aside = ground.file().with_extension("aside");
    std::fs::rename(&wal, &aside).unwrap();
    std::os::unix::fs::symlink(&wal, &wal).unwrap();
    let mut pending = Vec::new();
    for number in 0..64 {
        let mut message = town.letter(&town.ada, town.bob.key, "x");
        message.client_message_id = Some(format!("c{number}"));
        pending.push(store.append(message).await);
    }
    for answer in pending {
        assert!(matches!(answer.await, Err(StoreError::Unavailable(_))), "kept, and not on the disk");
    }
    // A batch of one is synced by SQLite itself, whose file is well; a retry only reads what was not synced.
    for id in ["c0", "new"] {
        let mut message = town.letter(&town.ada, town.bob.key, "x");
        message.client_message_id = Some(id.into());
        assert!(matches!(town.append(message).await, Err(StoreError::Unavailable(_))), "{id}");
    }
    assert!(!store.failed().await.is_empty(), "the process is to end");
}
