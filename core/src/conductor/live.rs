//! Live copy: rounds of sending what is dirty while the guest runs at the source.
//!
//! A round ends in one of two ways. Under most rules everything collected has been sent; then dirty pages are counted, the rule
//! judges, and what is dirty makes the next send. Rules in the manner of QEMU look into the round: when the estimate of what
//! is pending comes below their threshold, dirty pages are counted exactly, and if that is still too much they join the send
//! that is under way, which is where the next round begins.

use super::regions::{Both, Sends};
use super::{Conductor, Kind, State};
use crate::machine::Outcome;
use crate::pages::PageSet;
use crate::policy::stop::{Round, Totals, Verdict};
use crate::policy::throttle::Progress;
use crate::units::{Bytes, Rate, Share, Time};
use crate::vocabulary::{CmdId, Command, Joined, Sent, Watch, WatchEnd, Watched};

/// The round under way.
#[derive(Debug)]
pub(super) struct LiveCopy {
    /// When its sending began.
    started: Time,
    /// What it had to send at its beginning.
    to_send: Bytes,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Dirty pages are being collected for a new send.
    Collecting,
    /// The round is being sent, and perhaps watched.
    Sending { sends: Sends, watch: Option<CmdId> },
    /// Everything has been sent; dirty pages are being counted.
    Counting { sent: Sent, ended: Time },
    /// The watch says that little is pending; dirty pages are being counted while the send goes on.
    Checking { sends: Sends, pending: Bytes, rate: Rate },
    /// Dirty pages are being added to the send.
    Joining { sends: Sends },
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn begin_live_copy(&mut self, now: Time) {
        self.state = State::LiveCopy(LiveCopy { started: now, to_send: Bytes::ZERO, step: Step::Collecting });
        self.collect_all();
    }

    /// Begins with a count: memory has been sent before, and `round` was the last of it.
    pub(super) fn judge_after(&mut self, now: Time, round: &Round) {
        let sent = Sent { wire: round.wire, skipped: round.skipped, ..Sent::default() };
        let step = Step::Counting { sent, ended: round.ended };
        self.state = State::LiveCopy(LiveCopy { started: round.started, to_send: Bytes::ZERO, step });
        self.first_round = self.rounds - 1;
        debug_assert!(round.ended <= now);
        self.count_dirty();
    }

    fn live(&mut self) -> Option<&mut LiveCopy> {
        match &mut self.state {
            State::LiveCopy(live) => Some(live),
            State::Waiting
            | State::Snapshots(_)
            | State::Preparation
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Gather(_)
            | State::Rollback(_)
            | State::Ended(_) => None,
        }
    }

    /// The pages of a round are here. They may also be those that were to join a send that has ended meanwhile.
    pub(super) fn round_collected(&mut self, now: Time, sets: Both<P>) {
        let to_send = sets.len();
        let sends = self.send_both(sets, self.rounds);
        self.rounds = self.rounds.saturating_add(1);
        let watch = self.watch(now, &sends);
        self.state = State::LiveCopy(LiveCopy { started: now, to_send, step: Step::Sending { sends, watch } });
    }

    /// Orders the watch that the stop rule wants.
    ///
    /// With a disk a round is over when both regions are sent, under every rule. No rule then looks into a round to end it, for half
    /// of what is pending would be missing there; stalls are watched for all the same.
    fn watch(&mut self, now: Time, sends: &Sends) -> Option<CmdId> {
        let watching = self.spec.live.as_ref()?.stop.watching(now)?;
        let below = watching.below.filter(|_| !self.has_disk());
        let send = sends.memory().filter(|_| below.is_some() || watching.stall.is_some())?;
        let watch = Watch { send, every: watching.every, below, stall: watching.stall };
        Some(self.desk.order(Command::Watch(watch)))
    }

    pub(super) fn round_sent(&mut self, now: Time, id: CmdId, sent: Sent) {
        let Some(live) = self.live() else { return };
        match &mut live.step {
            // It may also be an earlier send, which had ended before pages could join it: they came back, are perhaps sent already,
            // and overtook its completion.
            Step::Sending { sends, .. } => {
                if sends.closes(id, sent) {
                    live.step = Step::Counting { sent: sends.sent, ended: now };
                    self.count_dirty();
                }
            }
            // The count or the collection that is under way is answered as if the send were still there.
            Step::Checking { sends, .. } | Step::Joining { sends } => {
                sends.closes(id, sent);
            }
            Step::Collecting | Step::Counting { .. } => {}
        }
    }

    pub(super) fn watched(&mut self, now: Time, id: CmdId, watched: Watched) {
        if let (Some(stall), Some(spec)) = (watched.stall, &mut self.spec.live) {
            spec.stop.progressed(stall);
        }
        let Some(live) = self.live() else { return };
        let sends = match live.step {
            Step::Sending { sends, watch } if watch == Some(id) => sends,
            Step::Sending { .. } | Step::Collecting | Step::Counting { .. } | Step::Checking { .. } | Step::Joining { .. } => {
                return;
            }
        };
        match watched.end {
            WatchEnd::Below => {
                live.step = Step::Checking { sends, pending: watched.pending, rate: watched.rate };
                self.count_dirty();
            }
            WatchEnd::Stalled => {
                live.step = Step::Sending { sends, watch: None };
                let verdict = self.spec.live.as_mut().expect("live copy has a spec").stop.stalled(now);
                if verdict == Verdict::Continue {
                    let watch = self.watch(now, &sends);
                    self.live().expect("still copying").step = Step::Sending { sends, watch };
                } else {
                    self.act(verdict);
                }
            }
            // The completion of the send says the rest.
            WatchEnd::SendEnded => live.step = Step::Sending { sends, watch: None },
        }
    }

    /// Dirty pages have been counted: the round is judged.
    pub(super) fn counted(&mut self, now: Time, dirty: Bytes) {
        let (index, totals) = (self.rounds - 1 - self.first_round, Totals { size: self.size(), sent: self.sent });
        let Some(live) = self.live() else { return };
        let started = live.started;
        match live.step {
            Step::Counting { sent, ended } => {
                let round = Round { index, started, ended, wire: sent.wire, skipped: sent.skipped, dirty };
                let verdict = self.spec.live.as_mut().expect("live copy has a spec").stop.round_ended(now, &round, totals);
                if verdict == Verdict::Continue {
                    self.throttle(round, Bytes::ZERO);
                    self.live().expect("still copying").step = Step::Collecting;
                    self.collect_all();
                } else {
                    self.act(verdict);
                }
            }
            Step::Checking { sends, pending, rate } => {
                let wire = live.to_send.saturating_sub(pending);
                let over = sends.memory().is_none();
                let remaining = if over { dirty } else { pending + dirty };
                let stop = &mut self.spec.live.as_mut().expect("live copy has a spec").stop;
                let verdict = stop.watched_below(now, remaining, rate);
                if verdict == Verdict::Continue {
                    let round = Round { index, started, ended: now, wire, skipped: Bytes::ZERO, dirty };
                    self.throttle(round, remaining - dirty);
                    let live = self.live().expect("still copying");
                    match sends.memory() {
                        None => {
                            live.step = Step::Collecting;
                            self.collect_all();
                        }
                        Some(send) => {
                            live.step = Step::Joining { sends };
                            self.collect_into(send);
                        }
                    }
                } else {
                    self.act(verdict);
                }
            }
            Step::Collecting | Step::Sending { .. } | Step::Joining { .. } => unreachable!("nothing is being counted"),
        }
    }

    /// Dirty pages have joined the send: a new round has begun.
    pub(super) fn joined(&mut self, now: Time, joined: Joined) {
        let Some(live) = self.live() else { return };
        let Step::Joining { sends } = live.step else { unreachable!("nothing is being joined") };
        self.rounds = self.rounds.saturating_add(1);
        if let Some(send) = sends.memory() {
            let sends = Sends::joined(send, joined.sent);
            let watch = self.watch(now, &sends);
            self.state = State::LiveCopy(LiveCopy { started: now, to_send: joined.pending, step: Step::Sending { sends, watch } });
        } else {
            // They joined in time, and the send with them has ended before the answer came: both rounds are judged as one.
            self.live().expect("still copying").step = Step::Counting { sent: sends.sent, ended: now };
            self.count_dirty();
        }
    }

    fn throttle(&mut self, round: Round, pending: Bytes) {
        let size = self.size();
        let Some(live) = &mut self.spec.live else { return };
        let progress = Progress { round, pending, size, goal: live.stop.goal(round.bandwidth()) };
        if let Some(share) = live.throttle.as_mut().and_then(|p| p.round_ended(&progress)) {
            self.set_share(share);
        }
    }

    pub(super) fn set_share(&mut self, share: Share) {
        if share != self.share {
            self.share = share;
            self.desk.order(Command::Throttle { share });
        }
    }

    fn act(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Continue => unreachable!("to go on is not to act"),
            Verdict::Converged => {
                self.converged = true;
                self.begin_switch(self.spec.push);
            }
            Verdict::Capped => self.begin_switch(self.spec.push),
            Verdict::PostCopy => self.begin_switch(Some(self.spec.push.unwrap_or_default())),
            Verdict::Abort => self.roll_back(Outcome::Aborted),
        }
    }

    /// Ends what live copy has under way.
    pub(super) fn stop_copying(&mut self) {
        self.desk.recall_all(&[Kind::Send, Kind::Watch]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Migration;
    use crate::pages::Counted;
    use crate::policy::stop::{Qemu, StopRule};
    use crate::strategy::{self, Spec};
    use crate::units::Span;
    use crate::vocabulary::{Event, Reply};

    const MIB: u64 = 1 << 20;

    /// Ticks a conductor along: every command gets the reply that `reply` has for it, one second after the last.
    fn commands(
        conductor: &mut Conductor<Counted>,
        mut reply: impl FnMut(CmdId, &Command<Counted>) -> Vec<(CmdId, Reply<Counted>)>,
    ) -> Vec<String> {
        let (mut now, mut names) = (0, Vec::new());
        conductor.handle(Time::ZERO, Event::Requested).unwrap();
        while let Some((id, command)) = conductor.poll() {
            names.push(command.name().to_owned());
            for (id, reply) in reply(id, &command) {
                now += 1_000_000_000;
                conductor.handle(Time(now), Event::Done { id, reply }).unwrap();
            }
        }
        names
    }

    #[test]
    fn a_round_that_began_by_joining_a_send_is_judged_by_what_it_sent_itself() {
        let stop = StopRule::Qemu(Qemu { downtime_limit: Span::from_secs(2) });
        let spec = Spec { live: Some(strategy::LiveCopy { stop, throttle: None, skip_redirtied: true }), ..Spec::default() };
        let mut conductor = Conductor::new(spec, Bytes(1000 * MIB), Vec::new());
        let (mut send, mut counts) = (None, 0);
        let names = commands(&mut conductor, |id, command| match command {
            Command::Reserve { .. } => vec![(id, Reply::Reserved)],
            Command::Prepare { .. } => vec![(id, Reply::Prepared)],
            Command::Collect { into: None, .. } => vec![(id, Reply::Dirty(Counted::new([1000 * MIB, 0, 0, 0, 0, 0, 0, 0])))],
            Command::Send(_) => {
                send = Some(id);
                Vec::new()
            }
            // Little of the first send is left, but 100 MiB are dirty again.
            Command::Watch(_) if counts == 0 => {
                let watched = Watched { end: WatchEnd::Below, pending: Bytes(MIB), rate: Rate(10.0 * MIB as f64), stall: None };
                vec![(id, Reply::Watched(watched))]
            }
            Command::PeekDirty { .. } => {
                counts += 1;
                vec![(id, Reply::DirtyCount(Bytes(100 * MIB)))]
            }
            // In the second after these have joined, the rest of the send goes, and of what has joined 9 MiB; the others are left out.
            Command::Collect { into: Some(_), .. } => {
                let sent = Sent { wire: Bytes(999 * MIB), ..Sent::default() };
                let joined = Joined { added: Bytes(100 * MIB), pending: Bytes(101 * MIB), sent };
                let sent = Sent { wire: Bytes(1009 * MIB), skipped: Bytes(91 * MIB), ..Sent::default() };
                vec![(id, Reply::Joined(joined)), (send.unwrap(), Reply::Sent(sent))]
            }
            _ => Vec::new(),
        });
        // 100 MiB in two seconds at 10 MiB/s are too many; a rate of 1009 MiB in the last second would have let them pass.
        assert_eq!(names[names.len() - 4..], ["peek dirty", "collect", "send", "watch"], "{names:?}");
        assert!(matches!(&conductor.state, State::LiveCopy(_)) && counts == 2);
    }
}
