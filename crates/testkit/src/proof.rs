//! How large a proof is: what the test command has time for, or what `cargo xtask prove` asks for.
//!
//! Each proof of `docs/delivery.md` has a number, such as T15. `CLAUDEMESH_PROVE_T15` sets how many trials it makes (or for how many
//! seconds it lasts), and each says on a line of its own how many it made, for the table at the end.

/// How many trials a proof makes; `usual` unless the environment says otherwise.
pub fn size(test: &str, usual: usize) -> usize {
    let name = format!("CLAUDEMESH_PROVE_{test}");
    let Ok(wanted) = std::env::var(&name) else { return usual };
    wanted.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {wanted:?}"))
}

/// Says that a proof has held for so many trials. `cargo xtask prove` adds these lines up.
#[expect(clippy::print_stdout, reason = "a person or a program reads what was proved")]
pub fn held(test: &str, trials: usize, what: &str) {
    println!("\nproof {test} held for {trials} {what}");
}

/// Says that a test cannot be made on this machine. Where all of them must be made (`CLAUDEMESH_TEST_ALL`, set by `cargo xtask test`
/// when `CI` is set), that is a failure: a test that is silently left out looks like one that has passed.
#[expect(clippy::print_stdout, reason = "a person reads which tests were left out")]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CLAUDEMESH_TEST_ALL").is_none(), "cannot be tested here: {why}");
    println!("\nSKIPPED, which proves nothing: {why}");
}
