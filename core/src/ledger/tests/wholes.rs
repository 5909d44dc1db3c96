//! The row with `vm = "*"`, and the cells of tables.

use super::*;

#[test]
fn the_whole_lasts_from_the_first_request_to_the_last_end() {
    let (a, b) = (pre_copy().finish(20_000, COMPLETED), post_copy().finish(20_000, COMPLETED));
    let w = whole([&a, &b]);
    assert_eq!((w.outcome, w.converged, w.requested), (Outcome::Completed, true, Some(ms(1_000))));
    assert_eq!((w.eviction_time, w.total_migration_time), (Some(span(2_060)), Some(span(2_030))));
    assert_eq!(w.downtime, a.downtime);
    assert_eq!(w.bytes.total(), a.bytes.total() + b.bytes.total());
    assert_eq!((w.rounds, w.exposure), (3, span(2_000)));
    assert_eq!(whole([&a]), a);
    assert_eq!(whole([]), Metrics::default());
}

#[test]
fn what_one_has_not_reached_the_whole_has_not() {
    let done = pre_copy().finish(20_000, COMPLETED);
    let aborted = Script::requested(400).finish(20_000, ABORTED);
    let w = whole([&done, &aborted]);
    assert_eq!((w.outcome, w.converged), (Outcome::Aborted, false));
    assert_eq!((w.requested, w.eviction_time, w.total_migration_time), (Some(ms(400)), None, None));
    assert_eq!(w.downtime, done.downtime);
    let lost = Script::requested(0).finish(9, Some(Ending { outcome: Outcome::Lost, converged: true }));
    assert_eq!(whole([&lost, &done, &aborted]).outcome, Outcome::Lost);
    assert_eq!(whole([&done, &Metrics::default()]).eviction_time, None, "one was never requested");
}

#[test]
fn a_drain_lasts_from_its_request_to_the_last_eviction() {
    let evicted = |requested: u64, queued: u64, eviction: u64| Metrics {
        requested: Some(ms(requested)),
        queued: span(queued),
        eviction_time: Some(span(eviction)),
        ..Metrics::default()
    };
    // Asked for at 1 s; the first is admitted after 5 ms, the last at 2 s.
    let w = whole([&evicted(2_000, 1_000, 300), &evicted(1_005, 5, 900)]);
    assert_eq!((w.queued, w.eviction_time, w.drain_time()), (span(5), Some(span(1_295)), Some(span(1_300))));
    assert_eq!(evicted(2_000, 1_000, 300).drain_time(), Some(span(1_300)));
}

#[test]
fn exposure_of_the_whole_is_the_time_in_which_any_is_exposed() {
    let exposed = |from: u64, length: u64| Metrics { exposed_from: Some(ms(from)), exposure: span(length), ..Metrics::default() };
    let w = whole([&exposed(50, 10), &exposed(10, 20), &exposed(15, 5), &exposed(25, 15), &Metrics::default()]);
    assert_eq!((w.exposed_from, w.exposure), (Some(ms(10)), span(30 + 10)));
}

#[test]
fn perceived_downtime_of_the_whole_needs_everybody_to_recover() {
    let seen = |perceived: Option<u64>| Metrics {
        downtime: Some(Downtime::default()),
        perceived_downtime: perceived.map(span),
        ..Metrics::default()
    };
    assert_eq!(whole([&seen(Some(5)), &seen(Some(9)), &Metrics::default()]).perceived_downtime, Some(span(9)));
    assert_eq!(whole([&seen(Some(5)), &seen(None)]).perceived_downtime, None);
}

#[test]
fn faults_of_the_whole_are_merged_not_averaged() {
    let faults = |count: u64, stall: u64, touches: u64| {
        let mut s = Script::requested(0);
        s.observe(Observation::Faults { count, stall: span(stall) });
        s.observe(Observation::FirstTouches(touches));
        s.observe(Observation::Link { link: 3, bytes: Bytes(count) });
        s.finish(9, None)
    };
    let w = whole([&faults(99, 1, 0), &faults(1, 101, 100)]);
    assert_eq!((w.remote_faults, w.remote_fault_share), (100, Some(0.5)));
    assert_eq!(w.fault_stall_mean, Some(span(2)));
    assert!(w.fault_stall_p99.unwrap() < span(2), "{:?}", w.fault_stall_p99);
    assert_eq!(w.links, [(3, Bytes(100))]);
}

#[test]
fn columns_are_those_of_the_format_in_its_order() {
    let columns = "outcome, converged, queued_s, eviction_time_s, total_migration_time_s, downtime_s, guest_gap_s, \
        perceived_downtime_s, bytes_total, bytes_first, bytes_resent, bytes_demand, bytes_state, bytes_control, bytes_disk, \
        bytes_snapshot, rounds, remote_faults, fault_stall_mean_s, fault_stall_p99_s, work_lost_s, degradation, throttle_s, \
        exposure_s, intermediary_peak_bytes";
    let m = pre_copy().finish(20_000, COMPLETED);
    let cells = m.cells();
    let names: Vec<&str> = cells.iter().map(|c| c.0).collect();
    assert_eq!(names[..25], columns.split(", ").collect::<Vec<_>>()[..]);
    let shown = |name: &str| cells.iter().find(|c| c.0 == name).expect(name).1.to_string();
    assert_eq!(shown("outcome"), "completed");
    assert_eq!(shown("converged"), "true");
    assert_eq!(shown("eviction_time_s"), "1.163000000");
    assert_eq!(shown("bytes_total"), "104064");
    assert_eq!(shown("guest_gap_s"), "");
    assert_eq!(shown("work_lost_s"), "", "nothing was observed");
    assert_eq!(shown("downtime_state_s"), "0.005000000");
}

#[test]
fn rounds_have_columns_too() {
    let s = pre_copy();
    let shown: Vec<String> = s.ledger.rounds()[1].cells().iter().map(|(name, cell)| format!("{name}={cell}")).collect();
    let want = "round=1 stopped=false started_s=2.010000000 duration_s=0.100000000 page_bytes=10000 wire_bytes=10500 \
        dirty_bytes=2000 dirty_rate=20000 bandwidth=105000";
    assert_eq!(shown.join(" "), want);
}

#[test]
fn every_column_is_defined_in_the_documentation() {
    let text = include_str!("../../../../docs/METRICS.md");
    let s = pre_copy();
    let round = s.ledger.rounds()[0].cells();
    let metrics = Metrics::default().cells();
    for (name, _) in metrics.iter().chain(&round) {
        assert!(text.contains(&format!("`{name}`")), "`{name}` is not in docs/METRICS.md");
    }
}
