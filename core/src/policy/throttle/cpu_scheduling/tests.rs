use super::*;
use crate::policy::stop::{FixedRounds, Round};
use crate::units::{Span, Time};
use proptest::prelude::*;

/// A guest that writes distinct bytes at a rate, at full speed, up to its working set.
struct Guest {
    dirty_rate: f64,
    working_set: f64,
}

/// What one round after the other leaves, each sending what the one before left, at `rate`.
fn rounds(policy: &mut CpuScheduling, guest: &Guest, memory: f64, rate: f64, count: u32) -> Vec<(f64, f64)> {
    let (mut left, mut share, mut seen) = (memory, 1.0, Vec::new());
    for index in 0..count {
        let started = Time::ZERO;
        let ended = started + Span::from_secs_f64(left / rate);
        let dirty = (share * guest.dirty_rate * (ended - started).as_secs_f64()).min(guest.working_set);
        let round = Round { index, started, ended, wire: Bytes(left as u64), skipped: Bytes::ZERO, dirty: Bytes(dirty as u64) };
        let progress = Progress { round, pending: Bytes::ZERO, size: Bytes(memory as u64), goal: Some(Bytes(1_000_000)) };
        share = policy.round_ended(&progress).map_or(share, Share::get);
        left = dirty.floor();
        seen.push((left, share));
    }
    seen
}

const MIB: f64 = 1_048_576.0;

proptest! {
    #[test]
    fn linear_dirtying_comes_to_the_target_in_n_rounds(
        memory in 64.0f64..100_000.0,
        rate in 10.0f64..10_000.0,
        dirty_ratio in 0.01f64..20.0,
        target in 0.001f64..1.0,
        n in 1u32..8,
        min_share in 0.001f64..0.5,
    ) {
        let (memory, rate) = (memory * MIB, rate * MIB);
        let guest = Guest { dirty_rate: dirty_ratio * rate, working_set: f64::INFINITY };
        let target = (target * dirty_ratio * memory).floor();
        let mut policy = CpuScheduling::new(Some(Bytes(target as u64)), n, min_share, Start::Round(1));
        let seen = rounds(&mut policy, &guest, memory, rate, n + 1);
        for (_, share) in &seen {
            prop_assert!((min_share..=1.0).contains(share));
        }
        let (reached, share) = (seen[n as usize].0, seen[0].1);
        // A byte and a nanosecond per round.
        let rounding = (1.0 + guest.dirty_rate * 1e-9) * 2.0 * f64::from(n) + 1e-6 * target;
        if share > min_share && share < 1.0 {
            prop_assert!((reached - target).abs() <= rounding, "{reached} against {target} +- {rounding}");
        } else if share == 1.0 {
            prop_assert!(reached <= target + rounding, "{reached} against {target}");
        }
    }

    #[test]
    fn the_share_stays_within_its_limits_whatever_rounds_say(
        said in prop::collection::vec((0u64..1 << 42, 0u64..1 << 42, 0u64..1 << 42, 0u64..1 << 40), 1..12),
        remaining in 0u64..1 << 40,
        n in 1u32..5,
        min_share in 0.001f64..1.0,
    ) {
        let mut policy = CpuScheduling::new(Some(Bytes(remaining)), n, min_share, Start::NotShrinking);
        for (index, (wire, dirty, pending, nanoseconds)) in (0..).zip(said) {
            let (wire, dirty, ended) = (Bytes(wire), Bytes(dirty), Time(nanoseconds));
            let round = Round { index, started: Time::ZERO, ended, wire, skipped: Bytes::ZERO, dirty };
            let progress = Progress { round, pending: Bytes(pending), size: Bytes(1 << 42), goal: None };
            if let Some(share) = policy.round_ended(&progress) {
                prop_assert!((min_share..=1.0).contains(&share.get()), "{share:?}");
            }
        }
    }
}

#[test]
fn the_first_share_is_the_formula_s() {
    // 1 GiB at 100 MiB/s; 200 MiB/s dirtied: 2 GiB are left, of which 2 MiB shall remain after two rounds.
    let mut policy = CpuScheduling::new(Some(Bytes::from_mib(2)), 2, 0.001, Start::Round(1));
    let guest = Guest { dirty_rate: 200.0 * MIB, working_set: f64::INFINITY };
    let seen = rounds(&mut policy, &guest, 1024.0 * MIB, 100.0 * MIB, 1);
    let expected = 0.5 * libm::sqrt(2.0 / 2048.0);
    assert!((seen[0].1 - expected).abs() < 1e-9, "{seen:?}");
}

#[test]
fn a_working_set_written_in_every_round_is_seen_through() {
    // 256 MiB written in 0.15 s; a round of them takes 2.15 s, so that dirty bytes say nothing until the share is small.
    let guest = Guest { dirty_rate: 1700.0 * MIB, working_set: 256.0 * MIB };
    let mut policy = CpuScheduling::new(Some(Bytes::from_mib(30)), 3, 0.01, Start::Round(1));
    let seen = rounds(&mut policy, &guest, 1024.0 * MIB, 119.0 * MIB, 7);
    let reached = seen.iter().position(|(left, _)| *left <= 31.0 * MIB);
    assert!(reached.is_some_and(|round| round <= 5), "{seen:?}");
}

#[test]
fn what_was_reached_is_kept() {
    let guest = Guest { dirty_rate: 500.0 * MIB, working_set: f64::INFINITY };
    let mut policy = CpuScheduling::new(Some(Bytes::from_mib(64)), 2, 0.001, Start::Round(1));
    let seen = rounds(&mut policy, &guest, 1024.0 * MIB, 100.0 * MIB, 12);
    for (left, _) in &seen[2..] {
        assert!((left / MIB - 64.0).abs() < 1.0, "{seen:?}");
    }
}

#[test]
fn it_begins_when_it_is_told_to() {
    let guest = Guest { dirty_rate: 90.0 * MIB, working_set: f64::INFINITY };
    let first = |start, count| {
        let mut policy = CpuScheduling::new(Some(Bytes::from_mib(1)), 3, 0.001, start);
        let seen = rounds(&mut policy, &guest, 1000.0 * MIB, 100.0 * MIB, count);
        seen.iter().position(|(_, share)| *share < 1.0)
    };
    assert_eq!(first(Start::Round(1), 5), Some(0));
    assert_eq!(first(Start::Round(4), 5), Some(3));
    // 900, 810, 729, 656 MiB
    assert_eq!(first(Start::Below(0.7), 5), Some(3));
    assert_eq!(first(Start::NotShrinking, 5), None, "each round leaves nine tenths of the one before");
    let guest = Guest { dirty_rate: 95.0 * MIB, ..guest };
    let mut policy = CpuScheduling::new(Some(Bytes::from_mib(1)), 3, 0.001, Start::NotShrinking);
    assert_eq!(rounds(&mut policy, &guest, 1000.0 * MIB, 100.0 * MIB, 5).iter().position(|(_, share)| *share < 1.0), Some(1));
}

#[test]
fn an_idle_guest_is_left_alone() {
    let guest = Guest { dirty_rate: 0.0, working_set: 0.0 };
    let seen = rounds(&mut CpuScheduling::default(), &guest, 1024.0 * MIB, 100.0 * MIB, 1);
    assert_eq!(seen, [(0.0, 1.0)]);
}

#[test]
fn a_rest_must_be_named_by_somebody() {
    let rule = StopRule::FixedRounds(FixedRounds { rounds: 5 });
    assert_eq!(CpuScheduling::default().check(&rule), Err(SpecError::NoRemaining));
    let named = CpuScheduling { remaining: Some(Bytes::from_mib(64)), ..CpuScheduling::default() };
    assert_eq!(named.check(&rule), Ok(()));
    let never = CpuScheduling { start: Start::Round(0), ..named };
    assert!(never.check(&rule).is_err());
}
