//! Invariants over whole migrations: the real conductor in a session, under a driver that answers every command after a random
//! delay, lets sends fail, and counts for itself what it has sent.

use super::*;
use crate::conductor::Conductor;
use crate::machine::{Migration, Phase};
use crate::pages::PageSet;
use crate::policy::stop::{Qemu, StopRule};
use crate::strategy::{LiveCopy, PRESETS, Spec};
use crate::units::Rate;
use crate::vocabulary::{Failure, Joined, WatchEnd, Watched};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A send under way: what it still holds and what has gone out of it.
struct Sending {
    id: CmdId,
    set: Counted,
    gone: u64,
    pushed: bool,
}

struct Toy {
    session: Session<Counted, Conductor<Counted>>,
    random: u64,
    now: u64,
    /// What happens next, by time and number.
    agenda: BTreeMap<(u64, u64), Event<Counted>>,
    sends: Vec<Sending>,
    dirty: u64,
    fenced: bool,
    /// Pages of rounds, and everything on the wire.
    in_rounds: u64,
    on_wire: u64,
}

impl Toy {
    fn new(spec: Spec, seed: u64) -> Toy {
        let session = Session::new(Conductor::new(spec, Bytes(1 << 20), Vec::new()), Ledger::with_timeline());
        let random = seed | 1;
        let (agenda, sends) = (BTreeMap::new(), Vec::new());
        Toy { session, random, now: 0, agenda, sends, dirty: 1 << 20, fenced: false, in_rounds: 0, on_wire: 0 }
    }

    /// A number below `n` (xorshift).
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % n
    }

    fn later(&mut self, event: Event<Counted>) {
        let at = self.now + 1 + self.below(1_000_000);
        let number = self.below(1 << 40);
        self.agenda.insert((at, number), event);
    }

    fn reply(&mut self, id: CmdId, reply: Reply<Counted>) {
        self.later(Event::Done { id, reply });
    }

    /// Sends go out in steps: each takes a part of what is left.
    fn advance(&mut self, of: CmdId) -> Option<&mut Sending> {
        let part = self.below(1 << 20);
        let send = self.sends.iter_mut().find(|s| s.id == of)?;
        let went = send.set.take(Bytes(part)).len().0;
        send.gone += went;
        self.on_wire += went;
        self.in_rounds += if send.pushed { 0 } else { went };
        Some(send)
    }

    fn end_send(&mut self, of: CmdId) -> Option<(Sent, Counted)> {
        let send = self.advance(of)?;
        let sent = wire(send.gone);
        let i = self.sends.iter().position(|s| s.id == of)?;
        Some((sent, self.sends.swap_remove(i).set))
    }

    fn carry_out(&mut self, id: CmdId, command: Command<Counted>) {
        match command {
            Command::Reserve { .. } => self.reply(id, Reply::Reserved),
            Command::Prepare { .. } => self.reply(id, Reply::Prepared),
            Command::PeekDirty { .. } => {
                self.dirty = (self.dirty + self.random % 60_000).min(1 << 20);
                self.reply(id, Reply::DirtyCount(Bytes(self.dirty)));
            }
            Command::Collect { into, .. } => {
                let taken = std::mem::take(&mut self.dirty);
                match into.and_then(|of| self.advance(of)) {
                    Some(send) => {
                        send.set.merge(pages(taken));
                        let joined = Joined { added: Bytes(taken), pending: send.set.len(), sent: wire(send.gone) };
                        self.reply(id, Reply::Joined(joined));
                    }
                    None => self.reply(id, Reply::Dirty(pages(taken))),
                }
            }
            Command::ReturnDirty { set, .. } => {
                self.dirty += set.len().0;
                self.reply(id, Reply::Returned);
            }
            Command::Send(send) => {
                self.sends.push(Sending { id, set: send.set, gone: 0, pushed: self.fenced });
                // A placeholder: what the send's end looks like is decided when it comes.
                self.reply(id, Reply::Sent(Sent::default()));
            }
            Command::Recall { of } => {
                self.reply(id, Reply::RecallNoted);
                let planned = self.agenda.iter().find(|(_, e)| completes(e, of)).map(|(&at, _)| at);
                if let Some(at) = planned {
                    self.agenda.remove(&at);
                    let (sent, unsent) = self.end_send(of).unwrap_or_default();
                    self.later(Event::Recalled { id: of, sent, unsent });
                }
            }
            Command::SetRate { .. } => self.reply(id, Reply::RateSet),
            Command::Throttle { .. } => self.reply(id, Reply::Throttled),
            Command::Pause => self.reply(id, Reply::Paused),
            Command::SendState => {
                self.on_wire += 4_096;
                self.reply(id, Reply::StateSent { wire: Bytes(4_096) });
            }
            Command::DiscardStale { set } => self.reply(id, Reply::Discarded(set)),
            Command::Resume { side } => {
                self.fenced = side == Side::Destination;
                // When the guest ran is earlier than when it is known.
                self.reply(id, Reply::Resumed { at: Time(self.now + 1) });
            }
            Command::ServeFaults => self.reply(id, Reply::ServingFaults),
            Command::RedirectFaults => self.reply(id, Reply::FaultsRedirected { at: Time(self.now) }),
            Command::Reclaim { .. } | Command::Gather { .. } => unreachable!("no intermediaries"),
            Command::Watch(watch) => {
                let end = if self.sends.iter().any(|s| s.id == watch.send) { WatchEnd::Below } else { WatchEnd::SendEnded };
                let rate = Rate(if self.below(3) == 0 { 1e9 } else { 1e3 });
                let watched = Watched { end, pending: Bytes(1_000), rate, stall: watch.stall };
                self.reply(id, Reply::Watched(watched));
            }
            Command::Release => self.reply(id, Reply::Released),
            Command::Abort => self.reply(id, Reply::Aborted),
        }
    }

    /// What is planned for now, as it turns out.
    fn happens(&mut self, planned: Event<Counted>) -> Event<Counted> {
        let Event::Done { id, reply: Reply::Sent(_) } = planned else { return planned };
        if self.below(15) == 0 {
            let (sent, unsent) = self.end_send(id).expect("the send is under way");
            return Event::Failed { id, failure: Failure::AnswerLost, sent, unsent };
        }
        while self.advance(id).is_some_and(|s| !s.set.is_empty()) {}
        let (sent, _) = self.end_send(id).expect("the send is under way");
        Event::Done { id, reply: Reply::Sent(sent) }
    }

    fn run(&mut self) {
        self.later(Event::Requested);
        for _ in 0..5_000 {
            let next = self.agenda.keys().next().map(|k| k.0);
            let wake = self.session.deadline().map(|t| t.0.max(self.now));
            match (next, wake) {
                (next, Some(wake)) if next.is_none_or(|n| wake < n) => {
                    self.now = wake;
                    self.session.wake(Time(wake));
                }
                (Some(_), _) => {
                    let ((at, _), planned) = self.agenda.pop_first().expect("there is a next");
                    self.now = at;
                    let event = self.happens(planned);
                    self.session.handle(Time(at), event).expect("the toy keeps to the protocol");
                }
                (None, None) => break,
                (None, Some(_)) => unreachable!("a wake-up without an event was handled"),
            }
            while let Some((id, command)) = self.session.poll() {
                self.carry_out(id, command);
            }
        }
    }
}

fn completes(event: &Event<Counted>, of: CmdId) -> bool {
    matches!(event, Event::Done { id, .. } if *id == of)
}

fn specs() -> Vec<Spec> {
    let mut specs: Vec<Spec> = PRESETS.iter().map(|p| (p.spec)()).collect();
    let live = LiveCopy { stop: StopRule::Qemu(Qemu::default()), throttle: None, skip_redirtied: false };
    specs.push(Spec { live: Some(live.clone()), ..Spec::default() });
    specs.push(Spec { live: Some(live), push: Some(crate::strategy::Push::default()), ..Spec::default() });
    specs
}

proptest! {
    #[test]
    fn what_a_ledger_says_of_a_migration_adds_up(which in 0usize..6, seed in any::<u64>()) {
        let mut toy = Toy::new(specs().swap_remove(which), seed);
        toy.run();
        let ending = toy.session.ending();
        prop_assert!(ending.is_some(), "still in {:?}", toy.session.phase());
        let m = toy.session.finish(Time(toy.now));
        let rounds = toy.session.take_rounds();
        prop_assert_eq!(Some(m.outcome), ending.map(|e| e.outcome));

        prop_assert_eq!(m.bytes.total().0, toy.on_wire);
        prop_assert_eq!(rounds.iter().map(|r| r.pages.0).sum::<u64>(), toy.in_rounds);
        prop_assert_eq!(rounds.iter().map(|r| r.wire.0).sum::<u64>(), toy.in_rounds);
        prop_assert_eq!(m.rounds as usize, rounds.len());
        for (i, pair) in rounds.windows(2).enumerate() {
            prop_assert_eq!(pair[0].index as usize, i);
            prop_assert!(pair[0].started + pair[0].duration <= pair[1].started, "{rounds:?}");
            prop_assert!(!pair[0].stopped || pair[1].stopped, "{rounds:?}");
        }
        if let Some(d) = m.downtime {
            prop_assert_eq!(d.memory + d.state + d.activation, d.total);
        }
        match m.outcome {
            Outcome::Completed => {
                let (total, eviction) = (m.total_migration_time.unwrap(), m.eviction_time.unwrap());
                prop_assert!(m.downtime.unwrap().total <= total && total <= eviction);
                prop_assert!(m.exposure <= total);
            }
            Outcome::Aborted => prop_assert_eq!((m.total_migration_time, m.eviction_time, m.exposure), (None, None, Span::ZERO)),
            other => prop_assert!(false, "{other:?}"),
        }

        let timeline = toy.session.take_timeline();
        prop_assert!(timeline.is_sorted_by_key(|p| p.at));
        let phases: Vec<Phase> = timeline.iter().filter_map(|p| match p.what { TimelineItem::Phase(phase) => Some(phase), _ => None }).collect();
        prop_assert!(phases.is_sorted_by(|a, b| a < b), "{phases:?}");
        prop_assert_eq!(phases.last(), Some(&Phase::Ended));
        let begun = timeline.iter().filter(|p| matches!(p.what, TimelineItem::Round(_))).count();
        prop_assert_eq!(begun, rounds.len());
    }
}
