//! Every metric, from sequences that were computed by hand; and a toy driver under the real conductor.

mod bytes_and_rounds;
mod times;
mod toy;
mod wholes;

use super::*;
use crate::machine::{Ending, Outcome};
use crate::pages::Counted;
use crate::units::{Bytes, Span, Time};
use crate::vocabulary::{CmdId, Command, Event, Prepaging, Region, Reply, Routes, Send, SendClass, Sent, Side};
use std::borrow::Borrow;

const COMPLETED: Option<Ending> = Some(Ending { outcome: Outcome::Completed, converged: true });
const ABORTED: Option<Ending> = Some(Ending { outcome: Outcome::Aborted, converged: false });

fn ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

const fn span(ms: u64) -> Span {
    Span::from_millis(ms)
}

fn pages(bytes: u64) -> Counted {
    Counted::new([bytes, 0, 0, 0, 0, 0, 0, 0])
}

fn wire(wire: u64) -> Sent {
    Sent { wire: Bytes(wire), ..Sent::default() }
}

/// A send to the destination that takes part in a script.
fn copy(class: SendClass, round: u32, bytes: u64) -> Send<Counted> {
    Send {
        set: pages(bytes),
        region: Region::Memory,
        routes: Routes::direct(),
        streams: 1,
        class,
        round,
        skip_redirtied: false,
        order: Prepaging::AddressOrder,
    }
}

/// A ledger that is told of commands and events at milliseconds.
#[derive(Default)]
struct Script {
    ledger: Ledger,
    next: u32,
}

impl Script {
    /// A script whose t0 is at this millisecond.
    fn requested(at: u64) -> Script {
        let mut script = Script::default();
        script.event(at, Event::Requested);
        script
    }

    fn event(&mut self, at: u64, event: impl Borrow<Event<Counted>>) {
        self.ledger.event(ms(at), event.borrow());
    }

    fn order(&mut self, at: u64, command: impl Borrow<Command<Counted>>) -> CmdId {
        let id = CmdId(self.next);
        self.next += 1;
        self.ledger.command(ms(at), id, command.borrow());
        id
    }

    fn done(&mut self, at: u64, id: CmdId, reply: Reply<Counted>) {
        self.event(at, Event::Done { id, reply });
    }

    fn run(&mut self, from: u64, command: Command<Counted>, until: u64, reply: Reply<Counted>) {
        let id = self.order(from, command);
        self.done(until, id, reply);
    }

    fn send(&mut self, from: u64, send: Send<Counted>, until: u64, sent: Sent) {
        self.run(from, Command::Send(send), until, Reply::Sent(sent));
    }

    fn dirty(&mut self, at: u64, bytes: u64) {
        self.run(at, Command::PeekDirty { region: Region::Memory }, at, Reply::DirtyCount(Bytes(bytes)));
    }

    fn pause(&mut self, from: u64, until: u64) {
        self.run(from, Command::Pause, until, Reply::Paused);
    }

    fn state(&mut self, from: u64, until: u64, wire: u64) {
        self.run(from, Command::SendState, until, Reply::StateSent { wire: Bytes(wire) });
    }

    fn resume(&mut self, from: u64, side: Side, at: u64, told: u64) {
        self.run(from, Command::Resume { side }, told, Reply::Resumed { at: ms(at) });
    }

    fn redirect(&mut self, from: u64, at: u64, told: u64) {
        self.run(from, Command::RedirectFaults, told, Reply::FaultsRedirected { at: ms(at) });
    }

    fn release(&mut self, from: u64, until: u64) {
        self.run(from, Command::Release, until, Reply::Released);
    }

    fn observe(&mut self, observation: Observation) {
        self.ledger.observe(observation);
    }

    fn work(&mut self, until: u64, rate: f64) {
        self.observe(Observation::Work { until: ms(until), rate });
    }

    fn finish(&mut self, at: u64, ending: Option<Ending>) -> Metrics {
        self.ledger.finish(ms(at), ending)
    }
}

/// t0 at 1 s, two live rounds, 40 ms of downtime from 2.12 s, released at 2.163 s.
fn pre_copy() -> Script {
    let mut s = Script::requested(1_000);
    s.observe(Observation::Control(Bytes(64)));
    s.send(1_010, copy(SendClass::First, 0, 100_000), 2_010, wire(90_000));
    s.dirty(2_010, 10_000);
    s.send(2_010, copy(SendClass::Resend, 1, 10_000), 2_110, wire(10_500));
    s.dirty(2_110, 2_000);
    s.pause(2_120, 2_121);
    s.send(2_125, copy(SendClass::Resend, 2, 2_400), 2_145, wire(2_500));
    s.state(2_145, 2_150, 1_000);
    s.resume(2_150, Side::Destination, 2_160, 2_161);
    s.release(2_161, 2_163);
    s
}

/// t0 at 1 s, paused at once for 30 ms, pushed until 3.03 s, released at 3.06 s.
fn post_copy() -> Script {
    let mut s = Script::requested(1_000);
    s.pause(1_000, 1_002);
    s.state(1_003, 1_020, 1_000);
    s.resume(1_021, Side::Destination, 1_030, 1_031);
    s.send(
        1_031,
        copy(SendClass::First, 0, 200_000),
        3_031,
        Sent { wire: Bytes(201_000), demand: Bytes(21_000), ..Sent::default() },
    );
    s.redirect(3_031, 3_030, 3_050);
    s.release(3_050, 3_060);
    s
}

#[test]
fn a_ledger_is_lean() {
    // Fleets have 100,000 of them.
    assert!(size_of::<Ledger>() <= 768, "{} bytes", size_of::<Ledger>());
}

#[test]
fn what_is_no_answer_to_its_command_is_not_entered() {
    let mut s = pre_copy();
    let peek = s.order(2_200, Command::PeekDirty { region: Region::Memory });
    s.done(2_200, peek, Reply::Released);
    s.done(2_200, peek, Reply::Resumed { at: ms(9_000) });
    s.event(2_300, Event::Requested);
    s.done(2_300, CmdId(77), Reply::Released);
    let honest = pre_copy().finish(3_000, COMPLETED);
    assert_eq!(s.finish(3_000, COMPLETED), honest);
}

#[test]
fn the_timeline_is_in_the_order_of_time_without_repetitions() {
    use crate::machine::Phase;
    use crate::units::Rate;
    let mut s = Script { ledger: Ledger::with_timeline(), next: 0 };
    assert!(s.ledger.keeps_timeline() && !Ledger::new().keeps_timeline());
    s.observe(Observation::WorkBegins(ms(0)));
    s.event(10, Event::Requested);
    s.ledger.phase(ms(10), Phase::Preparation);
    s.ledger.phase(ms(12), Phase::LiveCopy);
    s.ledger.phase(ms(13), Phase::LiveCopy);
    let first = s.order(12, Command::Send(copy(SendClass::First, 0, 1_000)));
    s.observe(Observation::Bandwidth { at: ms(12), rate: Rate(1.0) });
    s.observe(Observation::Bandwidth { at: ms(12), rate: Rate(5.0) });
    s.observe(Observation::Bandwidth { at: ms(14), rate: Rate(5.0) });
    s.work(12, 1.0);
    s.work(15, 0.5);
    s.work(20, 0.5);
    s.done(20, first, Reply::Sent(wire(1_000)));
    let second = s.order(20, Command::Send(copy(SendClass::Resend, 1, 10)));
    s.done(21, second, Reply::Sent(wire(10)));
    s.finish(30, None);
    let got: Vec<(Time, TimelineItem)> = s.ledger.take_timeline().iter().map(|p| (p.at, p.what)).collect();
    let want = [
        (ms(0), TimelineItem::Work(1.0)),
        (ms(10), TimelineItem::Phase(Phase::Preparation)),
        (ms(12), TimelineItem::Phase(Phase::LiveCopy)),
        (ms(12), TimelineItem::Command("send")),
        (ms(12), TimelineItem::Round(0)),
        (ms(12), TimelineItem::Bandwidth(Rate(5.0))),
        (ms(12), TimelineItem::Work(0.5)),
        (ms(20), TimelineItem::Command("send")),
        (ms(20), TimelineItem::Round(1)),
    ];
    assert_eq!(got, want);
    assert_eq!(pre_copy().ledger.take_timeline(), []);
}
