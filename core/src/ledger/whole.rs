//! The whole of several migrations: the row with `vm = "*"`.

use super::metrics::Metrics;
use super::stalls::Stalls;
use crate::machine::Outcome;
use crate::units::{Bytes, Span, Time};

/// The metrics of several migrations as one. `docs/METRICS.md` says for each metric what that means; of no migrations at all
/// these are those of one that was never requested.
///
/// Times are those of the whole: from the first request to the last eviction and to the last completion. They are empty when
/// they are for one of the migrations. Amounts add up. The downtime, with its parts, is that of the VM that stood still longest.
#[must_use]
pub fn whole<'a>(migrations: impl IntoIterator<Item = &'a Metrics>) -> Metrics {
    let all: Vec<&Metrics> = migrations.into_iter().collect();
    let Some(worst) = all.iter().map(|m| m.outcome).max_by_key(|&o| badness(o)) else { return Metrics::default() };
    let requested = all.iter().filter_map(|m| m.requested).min();
    let until_last = |at: fn(&Metrics) -> Option<Time>| -> Option<Span> {
        let each: Option<Vec<Time>> = all.iter().map(|m| at(m)).collect();
        Some(each?.into_iter().max()?.since(requested?))
    };
    let sum = |of: fn(&Metrics) -> Span| all.iter().fold(Span::ZERO, |sum, m| sum + of(m));
    let (exposed_from, exposure) = exposed(&all);
    let mut whole = Metrics {
        outcome: worst,
        converged: all.iter().all(|m| m.converged),
        requested,
        queued: queued(&all),
        preparation: all.iter().filter_map(|m| m.preparation).max(),
        eviction_time: until_last(Metrics::evicted_at),
        total_migration_time: until_last(Metrics::completed_at),
        downtime: all.iter().filter_map(|m| m.downtime).max_by_key(|d| d.total),
        guest_gap: all.iter().filter_map(|m| m.guest_gap).max(),
        perceived_downtime: perceived(&all),
        snapshots: all.iter().fold(0, |sum, m| sum.saturating_add(m.snapshots)),
        rounds: all.iter().fold(0, |sum, m| sum.saturating_add(m.rounds)),
        work_lost: sum(|m| m.work_lost),
        observed: sum(|m| m.observed),
        throttle: sum(|m| m.throttle),
        exposure,
        exposed_from,
        bytes_lost: all.iter().map(|m| m.bytes_lost).sum(),
        bytes_deduplicated: all.iter().map(|m| m.bytes_deduplicated).sum(),
        intermediary_peak: all.iter().map(|m| m.intermediary_peak).sum(),
        ..Metrics::default()
    };
    add_amounts(&mut whole, &all);
    whole
}

/// How bad an outcome is: first what left a guest running where it is wanted, last what left none.
fn badness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Completed => 0,
        Outcome::Cancelled => 1,
        Outcome::Aborted => 2,
        Outcome::Unfinished => 3,
        Outcome::Undecided => 4,
        Outcome::Lost => 5,
    }
}

/// From the moment at which the first migration began to wait until the first request.
fn queued(all: &[&Metrics]) -> Span {
    let first = all.iter().filter_map(|m| m.requested).min();
    let began = all.iter().filter_map(|m| Some(m.requested?.0.saturating_sub(m.queued.0))).min();
    first.zip(began).map_or(Span::ZERO, |(first, began)| first.since(Time(began)))
}

/// The longest; empty when a VM that stood still was not seen to recover.
fn perceived(all: &[&Metrics]) -> Option<Span> {
    let stopped = all.iter().filter(|m| m.downtime.is_some());
    let each: Option<Vec<Span>> = stopped.map(|m| m.perceived_downtime).collect();
    each?.into_iter().max()
}

/// The time during which at least one VM was exposed, and when that began.
fn exposed(all: &[&Metrics]) -> (Option<Time>, Span) {
    let mut intervals: Vec<(Time, Time)> =
        all.iter().filter_map(|m| m.exposed_from.map(|from| (from, from + m.exposure))).collect();
    intervals.sort_unstable();
    let (mut length, mut covered) = (Span::ZERO, Time::ZERO);
    for &(from, until) in &intervals {
        length += until.since(from.max(covered));
        covered = covered.max(until);
    }
    (intervals.first().map(|i| i.0), length)
}

fn add_amounts(whole: &mut Metrics, all: &[&Metrics]) {
    let (mut stalls, mut touches) = (Stalls::default(), 0u64);
    for m in all {
        whole.bytes.add(&m.bytes);
        stalls.merge(&m.stalls);
        touches = touches.saturating_add(m.first_touches);
    }
    whole.set_faults(stalls, touches);
    let mut links: Vec<(u32, Bytes)> = all.iter().flat_map(|m| m.links.iter().copied()).collect();
    links.sort_unstable();
    links.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    whole.links = links;
}
