//! Bytes by purpose, rounds, faults, staging.

use super::*;
use crate::vocabulary::{Failure, Joined};

fn joined(added: u64, pending: u64, sent: u64) -> Reply<Counted> {
    Reply::Joined(Joined { added: Bytes(added), pending: Bytes(pending), sent: wire(sent) })
}

fn collect_into(of: CmdId) -> Command<Counted> {
    Command::Collect { region: Region::Memory, limit: None, into: Some(of) }
}

/// Index, stopped, start and duration in ms, pages, wire, dirty.
type Shown = (u32, bool, u64, u64, u64, u64, Option<u64>);

fn shown(s: &Script) -> Vec<Shown> {
    let shown = |r: &RoundRecord| {
        let at = (r.started.0 / 1_000_000, r.duration.0 / 1_000_000);
        (r.index, r.stopped, at.0, at.1, r.pages.0, r.wire.0, r.dirty.map(|d| d.0))
    };
    s.ledger.rounds().iter().map(shown).collect()
}

#[test]
fn pre_copy_sends_once_and_again() {
    let mut s = pre_copy();
    let m = s.finish(20_000, COMPLETED);
    let want = ByteCounts {
        first: Bytes(90_000),
        resent: Bytes(13_000),
        state: Bytes(1_000),
        control: Bytes(64),
        ..ByteCounts::default()
    };
    assert_eq!((m.bytes, m.bytes.total()), (want, Bytes(104_064)));
    assert_eq!(m.rounds, 3);
    assert_eq!(
        shown(&s),
        [
            (0, false, 1_010, 1_000, 100_000, 90_000, Some(10_000)),
            (1, false, 2_010, 100, 10_000, 10_500, Some(2_000)),
            (2, true, 2_125, 20, 2_400, 2_500, None),
        ]
    );
    let first = s.ledger.take_rounds()[0];
    assert_eq!((first.bandwidth().0, first.dirty_rate().map(|r| r.0)), (90_000.0, Some(10_000.0)));
}

#[test]
fn a_push_is_no_round_and_demand_is_apart() {
    let mut s = post_copy();
    s.observe(Observation::Faults { count: 3, stall: span(1) });
    s.observe(Observation::Faults { count: 1, stall: span(5) });
    s.observe(Observation::FirstTouches(12));
    let m = s.finish(20_000, COMPLETED);
    assert_eq!((m.rounds, s.ledger.rounds().len()), (0, 0));
    assert_eq!((m.bytes.first, m.bytes.demand, m.bytes.resent), (Bytes(180_000), Bytes(21_000), Bytes::ZERO));
    assert_eq!((m.remote_faults, m.first_touches, m.remote_fault_share), (4, 12, Some(0.25)));
    assert_eq!(m.fault_stall_mean, Some(span(2)));
    let close = |got: Option<Span>, want: Span| got.is_some_and(|g| g.0.abs_diff(want.0) * 128 <= want.0);
    assert!(close(m.fault_stall_p50, span(1)) && close(m.fault_stall_p99, span(5)), "{m:?}");
    assert_eq!(pre_copy().finish(9_000, COMPLETED).remote_fault_share, None);
}

#[test]
fn a_hybrid_has_its_rounds_and_pushes_what_it_sends_again() {
    let mut s = Script::requested(0);
    s.send(0, copy(SendClass::First, 0, 1_000), 10, wire(1_000));
    s.dirty(10, 300);
    s.pause(10, 11);
    s.state(11, 12, 5);
    s.resume(12, Side::Destination, 13, 13);
    s.send(13, copy(SendClass::Resend, 1, 300), 20, wire(310));
    s.redirect(20, 20, 20);
    let m = s.finish(30, None);
    assert_eq!((m.rounds, m.bytes.first, m.bytes.resent), (1, Bytes(1_000), Bytes(310)));
    assert_eq!(shown(&s), [(0, false, 0, 10, 1_000, 1_000, Some(300))]);
}

#[test]
fn a_collection_that_joins_a_send_begins_a_round() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    s.dirty(90, 3_000);
    let join = s.order(90, collect_into(send));
    // At 100 ms 9,000 bytes of pages have gone out, as 4,500 on the wire; 1,000 are pending and 3,000 join them.
    s.done(100, join, joined(3_000, 4_000, 4_500));
    s.dirty(140, 600);
    let join = s.order(140, collect_into(send));
    // 3,200 more have gone out of the 4,000, a quarter of which for the first time; 800 are pending and 600 join them.
    s.done(140, join, joined(600, 1_400, 6_100));
    s.pause(150, 150);
    s.event(151, Event::Recalled { id: send, sent: wire(6_800), unsent: pages(200) });
    s.send(152, copy(SendClass::Resend, 3, 500), 153, wire(500));
    assert_eq!(
        shown(&s),
        [
            (0, false, 0, 100, 9_000, 4_500, Some(3_000)),
            (1, false, 100, 40, 3_200, 1_600, Some(600)),
            (2, false, 140, 11, 1_200, 700, None),
            (3, true, 152, 1, 500, 500, None),
        ]
    );
    let m = s.finish(200, None);
    // 4,500 + a quarter of 1,600 + a seventh of 700: of the 800 pending 200 were first copies, of 1,400 after the second join.
    assert_eq!((m.bytes.first, m.bytes.total()), (Bytes(4_500 + 400 + 100), Bytes(7_300)));
}

#[test]
fn a_send_may_end_before_it_is_known_that_pages_joined_it() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    let join = s.order(90, collect_into(send));
    s.done(120, send, Reply::Sent(wire(13_000)));
    s.done(121, join, joined(3_000, 4_000, 9_000));
    s.dirty(121, 70);
    assert_eq!(shown(&s), [(0, false, 0, 120, 9_000, 9_000, None), (1, false, 120, 1, 4_000, 4_000, Some(70))]);
    let m = s.finish(200, None);
    assert_eq!((m.bytes.first, m.bytes.resent), (Bytes(10_000), Bytes(3_000)));
}

#[test]
fn a_send_may_be_recalled_before_it_is_known_that_pages_joined_it() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    let join = s.order(90, collect_into(send));
    s.event(120, Event::Recalled { id: send, sent: wire(11_000), unsent: pages(2_000) });
    s.done(121, join, joined(3_000, 4_000, 9_000));
    assert_eq!(shown(&s), [(0, false, 0, 120, 9_000, 9_000, None), (1, false, 120, 1, 2_000, 2_000, None)]);
}

#[test]
fn pages_that_come_instead_of_joining_make_their_own_round() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    let join = s.order(90, collect_into(send));
    s.done(100, send, Reply::Sent(wire(10_000)));
    s.done(101, join, Reply::Dirty(pages(500)));
    s.send(101, copy(SendClass::Resend, 1, 500), 103, wire(500));
    assert_eq!(shown(&s), [(0, false, 0, 100, 10_000, 10_000, None), (1, false, 101, 2, 500, 500, None)]);
}

#[test]
fn a_round_may_take_several_sends() {
    let mut s = Script::requested(0);
    let a = s.order(0, Command::Send(copy(SendClass::First, 0, 6_000)));
    let b = s.order(0, Command::Send(copy(SendClass::First, 0, 4_000)));
    s.event(50, Event::Failed { id: a, failure: Failure::AnswerLost, sent: wire(2_000), unsent: pages(4_000) });
    s.done(60, b, Reply::Sent(wire(4_000)));
    // What came back is sent again, still as the first round.
    s.send(70, copy(SendClass::First, 0, 4_000), 90, wire(4_000));
    s.send(90, copy(SendClass::Resend, 1, 10), 91, wire(10));
    assert_eq!(shown(&s), [(0, false, 0, 90, 10_000, 10_000, None), (1, false, 90, 1, 10, 10, None)]);
}

#[test]
fn what_is_under_way_at_the_end_is_counted_as_far_as_it_came() {
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    s.observe(Observation::Progress { send, sent: wire(1_000) });
    s.observe(Observation::Progress { send, sent: wire(6_000) });
    let m = s.finish(500, None);
    assert_eq!((m.bytes.first, m.rounds, m.outcome), (Bytes(6_000), 1, Outcome::Unfinished));
    assert_eq!(shown(&s), [(0, false, 0, 500, 10_000, 6_000, None)]);
    // What is reported at the end of a send is all of it, not more of it.
    let mut s = Script::requested(0);
    let send = s.order(0, Command::Send(copy(SendClass::First, 0, 10_000)));
    s.observe(Observation::Progress { send, sent: wire(6_000) });
    s.done(9, send, Reply::Sent(wire(10_000)));
    s.observe(Observation::Progress { send, sent: wire(6_000) });
    assert_eq!(s.finish(10, None).bytes.total(), Bytes(10_000));
}

#[test]
fn snapshots_disk_and_links_are_apart() {
    let mut s = Script::default();
    s.observe(Observation::Control(Bytes(7)));
    let early = s.order(0, Command::Send(copy(SendClass::First, 0, 500)));
    let snapshot = s.order(0, Command::Send(copy(SendClass::Snapshot, 0, 500)));
    s.event(10, Event::Requested);
    s.done(20, early, Reply::Sent(wire(500)));
    s.done(20, snapshot, Reply::Sent(wire(400)));
    s.observe(Observation::Control(Bytes(9)));
    let disk = Send { region: Region::Disk, ..copy(SendClass::First, 0, 9_000) };
    s.send(20, disk, 30, Sent { wire: Bytes(9_100), demand: Bytes(50), ..Sent::default() });
    for (link, bytes) in [(7, 100), (2, 5), (7, 11)] {
        s.observe(Observation::Link { link, bytes: Bytes(bytes) });
    }
    let m = s.finish(50, None);
    let want = ByteCounts { snapshot: Bytes(907), disk: Bytes(9_100), control: Bytes(9), ..ByteCounts::default() };
    assert_eq!((m.bytes, m.rounds), (want, 1));
    assert_eq!(m.links, [(2, Bytes(5)), (7, Bytes(111))]);
}

#[test]
fn snapshots_are_counted_after_the_passes_and_when_they_are_whole() {
    let mut s = Script::default();
    let snapshot = |len| copy(SendClass::Snapshot, 0, len);
    // The first copy and a pass: nothing was counted before them.
    s.send(0, snapshot(9_000), 10, wire(9_000));
    s.send(10, snapshot(900), 12, wire(900));
    for at in [20, 30, 40] {
        s.dirty(at, 30);
        s.send(at, snapshot(30), at + 1, wire(30));
    }
    // A disk's part of a snapshot is no snapshot of its own, and one that is taken back is none.
    s.send(40, Send { region: Region::Disk, ..snapshot(30) }, 42, wire(30));
    let taken_back = s.order(50, Command::Send(snapshot(30)));
    s.event(51, Event::Requested);
    s.event(52, Event::Recalled { id: taken_back, sent: wire(10), unsent: pages(20) });
    // Dirty pages are counted after the request too.
    s.dirty(60, 30);
    s.send(60, copy(SendClass::Resend, 1, 20), 61, wire(20));
    assert_eq!(s.finish(70, None).snapshots, 3);
}

/// The disk goes first, and both are one round, whatever ends first.
#[test]
fn a_round_is_over_when_memory_and_disk_are() {
    let mut s = Script::requested(0);
    let disk = |round, len| Send {
        region: Region::Disk,
        ..copy(if round == 0 { SendClass::First } else { SendClass::Resend }, round, len)
    };
    for (round, at) in [(0, 0), (1, 100)] {
        let block = s.order(at, Command::Send(disk(round, 600)));
        let page = s.order(at, Command::Send(copy(if round == 0 { SendClass::First } else { SendClass::Resend }, round, 200)));
        s.done(at + 10, page, Reply::Sent(wire(200)));
        s.done(at + 40, block, Reply::Sent(wire(610)));
        for (region, dirty) in [(Region::Disk, 50), (Region::Memory, 30)] {
            s.run(at + 45, Command::PeekDirty { region }, at + 46, Reply::DirtyCount(Bytes(dirty)));
        }
    }
    assert_eq!(shown(&s), [(0, false, 0, 40, 800, 810, Some(80)), (1, false, 100, 40, 800, 810, Some(80))]);
    let m = s.finish(200, None);
    assert_eq!((m.bytes.first, m.bytes.resent, m.bytes.disk), (Bytes(200), Bytes(200), Bytes(1_220)));
}

#[test]
fn what_is_dirty_when_the_guest_stands_still_is_not_the_rounds() {
    let mut s = Script::requested(0);
    s.send(0, copy(SendClass::First, 0, 1_000), 10, wire(1_000));
    s.dirty(10, 300);
    s.pause(12, 13);
    s.dirty(14, 450);
    assert_eq!(shown(&s), [(0, false, 0, 10, 1_000, 1_000, Some(300))]);
}
