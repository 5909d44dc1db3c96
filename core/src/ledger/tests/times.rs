//! Times: of the migration as a whole, of the guest's standstill, and of its dependence on others.

use super::*;
use crate::units::Share;
use crate::vocabulary::Failure;

#[test]
fn pre_copy_depends_on_nobody_once_it_runs() {
    let m = pre_copy().finish(20_000, COMPLETED);
    assert_eq!((m.outcome, m.converged, m.requested), (Outcome::Completed, true, Some(ms(1_000))));
    assert_eq!(m.eviction_time, Some(span(1_163)));
    assert_eq!(m.total_migration_time, Some(span(1_160)));
    let parts = Downtime { total: span(40), memory: span(25), state: span(5), activation: span(10) };
    assert_eq!(m.downtime, Some(parts));
    assert_eq!((m.exposure, m.exposed_from), (Span::ZERO, None));
    assert_eq!((m.evicted_at(), m.completed_at()), (Some(ms(2_163)), Some(ms(2_160))));
    assert_eq!(m.perceived_downtime, None, "nothing was observed");
}

#[test]
fn post_copy_is_exposed_from_its_start_until_it_holds_everything() {
    let m = post_copy().finish(20_000, COMPLETED);
    assert_eq!(m.eviction_time, Some(span(2_060)));
    assert_eq!(m.total_migration_time, Some(span(2_030)));
    let parts = Downtime { total: span(30), memory: span(3), state: span(17), activation: span(10) };
    assert_eq!(m.downtime, Some(parts));
    assert_eq!((m.exposure, m.exposed_from), (span(2_000), Some(ms(1_030))));
}

#[test]
fn a_post_copy_with_nothing_left_to_push_is_complete_when_it_runs() {
    let mut s = Script::requested(0);
    s.pause(0, 1);
    s.state(1, 2, 10);
    s.resume(2, Side::Destination, 3, 4);
    s.redirect(4, 5, 6);
    s.release(6, 7);
    let m = s.finish(10, COMPLETED);
    assert_eq!((m.total_migration_time, m.eviction_time, m.exposure), (Some(span(3)), Some(span(7)), Span::ZERO));
}

#[test]
fn a_send_that_goes_on_across_the_switch_is_a_push() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 1_000)));
    s.pause(100, 101);
    s.state(101, 102, 10);
    s.resume(102, Side::Destination, 110, 111);
    s.done(500, send, Reply::Sent(wire(1_000)));
    s.redirect(500, 501, 502);
    let m = s.finish(600, None);
    assert_eq!((m.total_migration_time, m.exposure), (Some(span(501)), span(391)));
    assert_eq!((m.outcome, m.eviction_time), (Outcome::Unfinished, None));
}

#[test]
fn scatter_gather_evicts_before_it_completes() {
    let mut s = Script::requested(1_000);
    s.pause(1_000, 1_001);
    s.state(1_001, 1_005, 10);
    s.resume(1_005, Side::Destination, 1_010, 1_010);
    let scattered =
        Send { routes: Routes { direct: true, via: vec![0, 1], copies: 1, dedup: false }, ..copy(SendClass::First, 0, 100_000) };
    let send = s.order(1_010, Command::Send(scattered));
    for (via, bytes) in [(0, 30_000), (1, 20_000), (0, 40_000)] {
        s.observe(Observation::Staged { via, bytes: Bytes(bytes) });
    }
    s.done(2_010, send, Reply::Sent(wire(100_000)));
    s.redirect(2_010, 2_015, 2_016);
    let gather = s.order(2_016, Command::Gather { limit: None });
    s.release(2_016, 2_020);
    let early = s.ledger.clone().finish(ms(4_000), None);
    assert_eq!((early.eviction_time, early.total_migration_time), (Some(span(1_020)), None));
    assert_eq!(early.exposure, span(2_990), "still exposed when the observation ends");
    s.observe(Observation::Staged { via: 1, bytes: Bytes(0) });
    s.observe(Observation::Staged { via: 0, bytes: Bytes(45_000) });
    s.done(5_012, gather, Reply::Gathered { at: ms(5_010) });
    let m = s.finish(20_000, COMPLETED);
    assert_eq!((m.eviction_time, m.total_migration_time), (Some(span(1_020)), Some(span(4_010))));
    assert_eq!(m.exposure, span(4_000));
    assert_eq!((m.intermediary_peak, m.intermediary_peaks), (Bytes(60_000), vec![Bytes(45_000), Bytes(20_000)]));
}

#[test]
fn an_aborted_switch_has_a_downtime_until_the_guest_is_back() {
    let mut s = Script::requested(0);
    s.send(0, copy(SendClass::First, 0, 1_000), 100, wire(1_000));
    s.pause(100, 102);
    let rest = s.order(105, Command::Send(copy(SendClass::Resend, 1, 500)));
    s.event(130, Event::Failed { id: rest, failure: Failure::AnswerLost, sent: wire(200), unsent: pages(300) });
    s.resume(131, Side::Source, 135, 135);
    let m = s.finish(20_000, ABORTED);
    assert_eq!((m.outcome, m.converged), (Outcome::Aborted, false));
    assert_eq!((m.eviction_time, m.total_migration_time), (None, None));
    let parts = Downtime { total: span(35), memory: span(31), state: Span::ZERO, activation: span(4) };
    assert_eq!(m.downtime, Some(parts));
    assert_eq!((m.exposure, m.bytes.first, m.bytes.resent), (Span::ZERO, Bytes(1_000), Bytes(200)));
}

#[test]
fn a_start_that_is_disproved_ends_at_the_source() {
    let mut s = Script::requested(0);
    s.pause(0, 2);
    s.state(2, 8, 10);
    let start = s.order(10, Command::Resume { side: Side::Destination });
    s.event(40, Event::Failed { id: start, failure: Failure::NeverStarted, sent: Sent::default(), unsent: pages(0) });
    s.resume(41, Side::Source, 45, 45);
    let m = s.finish(100, ABORTED);
    let parts = Downtime { total: span(45), memory: span(2), state: span(6), activation: span(37) };
    assert_eq!((m.downtime, m.total_migration_time), (Some(parts), None));
}

#[test]
fn a_guest_that_never_ran_again_has_no_downtime() {
    let mut s = Script::requested(0);
    s.pause(0, 2);
    assert_eq!(s.ledger.clone().finish(ms(50), None).downtime, None);
    let mut s = Script::requested(0);
    let pause = s.order(5, Command::Pause);
    s.event(6, Event::Failed { id: pause, failure: Failure::NeverStarted, sent: Sent::default(), unsent: pages(0) });
    s.resume(6, Side::Source, 7, 7);
    assert_eq!(s.finish(50, ABORTED).downtime, None, "it was never stopped");
}

#[test]
fn what_is_lost_after_the_switch_was_exposed_until_then() {
    let mut s = Script::requested(1_000);
    s.pause(1_000, 1_001);
    s.state(1_001, 1_002, 10);
    s.resume(1_002, Side::Destination, 1_010, 1_010);
    s.order(1_010, Command::Send(copy(SendClass::First, 0, 1_000)));
    s.ledger.phase(ms(1_510), crate::machine::Phase::Ended);
    let m = s.finish(9_000, Some(Ending { outcome: Outcome::Lost, converged: true }));
    assert_eq!((m.total_migration_time, m.eviction_time, m.exposure), (None, None, span(500)));
}

#[test]
fn a_source_that_dies_after_the_last_page_leaves_a_complete_guest() {
    let mut s = Script::requested(0);
    s.pause(0, 1);
    s.state(1, 2, 10);
    s.resume(2, Side::Destination, 5, 5);
    s.send(5, copy(SendClass::First, 0, 1_000), 905, wire(1_000));
    s.order(905, Command::RedirectFaults);
    let m = s.finish(2_000, COMPLETED);
    assert_eq!((m.total_migration_time, m.exposure, m.eviction_time), (Some(span(905)), span(900), None));
}

#[test]
fn throttling_counts_while_the_guest_runs_at_the_source() {
    let mut s = Script::requested(0);
    let share = |at, share| Observation::ShareInForce { at: ms(at), share: Share::new(share) };
    s.observe(share(1_000, 0.8));
    s.observe(share(3_000, 0.5));
    s.pause(4_000, 4_000);
    s.state(4_000, 4_500, 10);
    s.resume(4_500, Side::Destination, 5_000, 5_000);
    s.observe(share(6_000, 0.1));
    assert_eq!(s.finish(9_000, COMPLETED).throttle, span(400 + 500));
    // A guest that comes back to the source is throttled again until the order is lifted.
    let mut s = Script::requested(0);
    s.observe(share(0, 0.5));
    s.pause(1_000, 1_000);
    s.resume(1_500, Side::Source, 2_000, 2_000);
    s.observe(share(2_200, 1.0));
    assert_eq!(s.finish(9_000, ABORTED).throttle, span(500 + 100));
    // And one that never ends is throttled until the observation does.
    let mut s = Script::requested(0);
    s.observe(share(1_000, 0.25));
    assert_eq!(s.finish(3_000, None).throttle, span(1_500));
}

#[test]
fn the_guest_perceives_more_than_the_downtime() {
    let mut s = pre_copy();
    s.observe(Observation::WorkBegins(ms(500)));
    s.work(2_121, 1.0);
    s.work(2_160, 0.0);
    s.work(2_460, 0.5);
    s.work(13_000, 1.0);
    // 39 ms of nothing and 300 ms at half: the window lacks 189 ms at most, more than its 100 ms from when 61 ms more of the
    // 1 s before have been slow work, until 100 ms are left of what was lost: at 3.160 s the standstill has left, 150 ms are
    // still missing, and half of each ms that leaves comes back, so 100 ms later it is 90 %.
    let m = s.finish(13_000, COMPLETED);
    assert_eq!(m.perceived_downtime, Some(span(3_260 - 2_120)));
    assert_eq!((m.work_lost, m.observed), (span(39 + 150), span(12_500)));
    assert!((m.degradation().unwrap() - 0.189 / 12.5).abs() < 1e-12);
}

#[test]
fn recovery_needs_ten_seconds_after_completion() {
    for (until, want) in [(13_029, None), (13_030, Some(span(1_830)))] {
        let mut s = post_copy();
        s.observe(Observation::WorkBegins(ms(1_000)));
        s.work(1_030, 0.0);
        s.work(2_030, 0.5);
        s.work(until, 1.0);
        // At 2.030 s the window holds 500 ms of work; each ms then brings half a ms back, so that 900 are there at 2.830 s.
        assert_eq!(s.finish(until, COMPLETED).perceived_downtime, want);
    }
}

#[test]
fn waiting_and_preparation_come_before_the_request() {
    let mut s = Script::default();
    s.event(100, Event::Prepare);
    s.observe(Observation::Queued(span(250)));
    s.event(700, Event::Requested);
    s.observe(Observation::GuestGap(span(3)));
    s.observe(Observation::GuestGap(span(2)));
    let m = s.finish(1_000, None);
    assert_eq!((m.requested, m.queued, m.preparation), (Some(ms(700)), span(250), Some(span(600))));
    assert_eq!(m.guest_gap, Some(span(3)));
    assert_eq!(Ledger::new().finish(ms(5), None), Metrics::default());
}
