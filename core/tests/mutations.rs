//! Bugs put in on purpose: a swarm that does not find them would not find others.

#[expect(dead_code, reason = "each test uses a part of the harness")]
mod harness;

use harness::bugs::BUGS;
use harness::swarm::migrate;

/// Every bug must be found by so many migrations; the rarest, of which a retry must meet an old frame, takes some thousands.
const WITHIN: u64 = 20_000;

#[test]
fn every_bug_is_found() {
    let mut missed = Vec::new();
    for bug in BUGS {
        let found = (0..WITHIN).find_map(|seed| migrate(seed, Some(bug), false).err().map(|violation| (seed, violation.what)));
        match found {
            Some((seed, what)) => println!("{bug:?}: found by migration {}: {what}", seed + 1),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {WITHIN} migrations: {missed:?}");
}
