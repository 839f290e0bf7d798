//! T2: every state of a small world is visited, and the promises D2, D3, D4 and D10 hold in each.
//!
//! `CLAUDEMESH_PROVE_T2` sets how many states at most; from a million on the world is larger.

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::world::{DELIVERED_IS_KEPT, ENDS_ONCE, Flaw, NO_DEAD_END, ONE_HOLDER, WAITS_FOR_NOBODY, World};

fn small() -> World {
    World { rows: 1, lines: vec![0, 1], time: 4, openings: 2, troubles: 1, flaw: None }
}

fn large() -> World {
    World { rows: 2, lines: vec![0, 0, 1], time: 6, openings: 2, troubles: 2, flaw: None }
}

/// D2, D3, D4, D10: claims, leases, acks and releases of two brokers, each of which may be killed or frozen.
#[test]
#[expect(clippy::print_stdout, reason = "`cargo xtask prove` reads how many states there were")]
fn no_order_of_events_breaks_a_promise() {
    let most = std::env::var("CLAUDEMESH_PROVE_T2").ok().map(|text| text.parse::<usize>().expect("a number of states"));
    let is_large = most.is_some_and(|most| most >= 1_000_000);
    let world = if is_large { large() } else { small() };
    let checker = world.checker().threads(2).target_state_count(most.unwrap_or(usize::MAX)).spawn_bfs().join();
    checker.assert_properties();
    println!("\nproof T2 held for {} states", checker.unique_state_count());
}

/// A check that finds no mistake proves nothing: each of these is found, and by the promise that it breaks.
#[test]
fn each_mistake_that_is_made_on_purpose_is_found() {
    let mistakes = [
        (Flaw::ClaimsWhatIsHeld, ONE_HOLDER),
        (Flaw::LeasesNeverEnd, NO_DEAD_END),
        (Flaw::RestartKeepsClaims, WAITS_FOR_NOBODY),
        (Flaw::SilenceIsTrusted, WAITS_FOR_NOBODY),
        (Flaw::ReleasesWhatAnotherHolds, ONE_HOLDER),
        (Flaw::ClosesWithoutRelease, WAITS_FOR_NOBODY),
        (Flaw::AnybodyAcks, DELIVERED_IS_KEPT),
        (Flaw::RenewsWhatAnotherHolds, ONE_HOLDER),
        (Flaw::ExpiresWhatEnded, ENDS_ONCE),
        (Flaw::PushIsDelivery, DELIVERED_IS_KEPT),
    ];
    for (flaw, promise) in mistakes {
        let until = HasDiscoveries::AllOf([promise].into());
        let checker = World { flaw: Some(flaw), ..small() }.checker().finish_when(until).threads(2).spawn_bfs().join();
        assert!(checker.discovery(promise).is_some(), "{flaw:?} was not found by: {promise}");
    }
}
