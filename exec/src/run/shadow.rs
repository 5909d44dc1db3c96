//! A migration followed from its records: the ledger's, and proof that the source agent did what the core says.
//!
//! The coordinator keeps a migration of its own for every one that runs in an agent. What that one was told, this one is told; what
//! that one ordered must be, byte for byte, what this one orders. When the source is gone this one says what has become of the guest.

use super::work::Work;
use crate::agent::message::Record;
use crate::error::ExecError;
use livemig_core::conductor::{Conductor, Remainder};
use livemig_core::ledger::{Ledger, Metrics, Observation, RoundRecord, Session, TimelinePoint};
use livemig_core::machine::{Ending, Migration, Phase};
use livemig_core::pages::Bitmap;
use livemig_core::strategy::Spec;
use livemig_core::units::{Bytes, Span, Time};
use livemig_core::vocabulary::{Event, Peer};
use std::collections::VecDeque;

/// A migration and its record.
#[derive(Debug)]
pub(super) struct Shadow {
    session: Session<Bitmap, Conductor<Bitmap>>,
    /// Commands that the agent has not recorded yet.
    due: VecDeque<(u32, Vec<u8>)>,
    /// Commands that were the same.
    pub(super) compared: u64,
    now: Time,
    pub(super) work: Work,
    /// The agent's has ended.
    pub(super) ended: bool,
}

impl Shadow {
    /// Of a VM with so much memory, and with so many intermediaries.
    pub(super) fn new(spec: Spec, (memory, via): (Bytes, usize), timeline: bool) -> Shadow {
        let ledger = if timeline { Ledger::with_timeline() } else { Ledger::new() };
        let session = Session::new(Conductor::new(spec, memory, (0..).take(via).collect()), ledger);
        Shadow { session, due: VecDeque::new(), compared: 0, now: Time::ZERO, work: Work::default(), ended: false }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// When it is not what this migration does.
    pub(super) fn follow(&mut self, record: Record) -> Result<(), ExecError> {
        match record {
            Record::Event { at, event } => {
                let event: Event<Bitmap> = postcard::from_bytes(&event).map_err(|e| diverged(&format!("an event: {e}")))?;
                self.tell(at, event)
            }
            Record::Wake { at } => {
                self.now = at;
                self.session.wake(at);
                self.take_commands()
            }
            Record::Command { id, command } => match self.due.pop_front() {
                Some(due) if due == (id, command) => {
                    self.compared += 1;
                    Ok(())
                }
                Some((due, _)) => Err(diverged(&format!("command {id} where {due} was due, or with other contents"))),
                None => Err(diverged(&format!("command {id} where none was due"))),
            },
            Record::Observed(observation) => {
                self.session.observe(observation);
                Ok(())
            }
        }
    }

    fn tell(&mut self, at: Time, event: Event<Bitmap>) -> Result<(), ExecError> {
        self.now = at;
        // What is refused here was refused there.
        let _ = self.session.handle(at, event);
        self.take_commands()
    }

    fn take_commands(&mut self) -> Result<(), ExecError> {
        while let Some((id, command)) = self.session.poll() {
            let bytes = postcard::to_stdvec(&command).map_err(|e| diverged(&format!("a command: {e}")))?;
            self.due.push_back((id.0, bytes));
        }
        Ok(())
    }

    /// The source has failed for good; nothing more comes from there. The migration has ended with that, or is to go on at its
    /// destination.
    pub(super) fn source_dead(&mut self, now: Time) -> Result<(), ExecError> {
        self.peer_dead(now, Peer::Source)
    }

    /// The destination has failed for good after the migration had gone on there.
    pub(super) fn destination_dead(&mut self, now: Time) -> Result<(), ExecError> {
        self.peer_dead(now, Peer::Destination)
    }

    fn peer_dead(&mut self, now: Time, peer: Peer) -> Result<(), ExecError> {
        let at = now.max(self.now);
        self.tell(at, Event::PeerDead { peer, recoverable: false })?;
        self.due.clear();
        self.ended = self.session.phase() == Phase::Ended;
        Ok(())
    }

    /// The migration goes on elsewhere: what is left of it. From now on the records are those of whoever goes on.
    ///
    /// # Errors
    /// When nothing is left, or the source has not ordered what it should have.
    pub(super) fn go_on(&mut self) -> Result<Remainder, ExecError> {
        let Some(remainder) = self.session.migration().remainder() else {
            return Err(diverged(&format!("it goes on elsewhere, and is in phase {}", self.session.phase().name())));
        };
        if !self.due.is_empty() {
            return Err(diverged(&format!("it goes on elsewhere with {} commands due", self.due.len())));
        }
        self.session.go_on_with(Conductor::go_on(&remainder));
        self.take_commands()?;
        Ok(remainder)
    }

    /// The agent's migration has ended: so must this one, with nothing left over.
    pub(super) fn agent_ended(&mut self) -> Result<(), ExecError> {
        self.ended = true;
        if self.session.phase() == Phase::Ended && self.due.is_empty() {
            return Ok(());
        }
        let phase = self.session.phase().name();
        Err(diverged(&format!(
            "the agent's migration has ended, this one is in phase {phase} with {} commands due",
            self.due.len()
        )))
    }

    pub(super) fn observe(&mut self, observation: Observation) {
        self.session.observe(observation);
    }

    /// The guest had made so many steps, and would make so many per second at full speed.
    pub(super) fn sampled(&mut self, at: Time, progress: (u64, f64)) {
        if let Some(observation) = self.work.sampled(at, progress) {
            self.session.observe(observation);
        }
    }

    pub(super) fn stalls(&mut self, stalls: Vec<Span>) {
        stalls.into_iter().for_each(|stall| self.session.observe(Observation::Faults { count: 1, stall }));
    }

    pub(super) fn phase(&self) -> Phase {
        self.session.phase()
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.session.ending()
    }

    pub(super) fn finish(&mut self, now: Time) -> (Metrics, Vec<RoundRecord>, Vec<TimelinePoint>) {
        let metrics = self.session.finish(now);
        (metrics, self.session.take_rounds(), self.session.take_timeline())
    }
}

fn diverged(what: &str) -> ExecError {
    ExecError::Run(format!("the agent's migration is not what the core does: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::strategy::PRESETS;
    use livemig_core::vocabulary::{Channels, CmdId, Command, Reply};

    fn event(at: u64, event: &Event<Bitmap>) -> Record {
        Record::Event { at: Time(at), event: postcard::to_stdvec(event).unwrap() }
    }

    fn command(id: u32, command: &Command<Bitmap>) -> Record {
        Record::Command { id, command: postcard::to_stdvec(command).unwrap() }
    }

    fn shadow() -> Shadow {
        let live = PRESETS.iter().map(|p| (p.spec)()).find(|spec| spec.live.is_some() && spec.push.is_none());
        Shadow::new(live.unwrap(), (Bytes::from_mib(1), 0), false)
    }

    #[test]
    fn the_same_is_followed_and_anything_else_is_found() {
        let memory = Bytes::from_mib(1);
        let reserve = Command::Reserve { memory, intermediaries: Vec::new(), disk: Bytes::ZERO };
        let mut good = shadow();
        good.follow(event(5, &Event::Requested)).unwrap();
        good.follow(command(0, &reserve)).unwrap();
        good.follow(event(9, &Event::Done { id: CmdId(0), reply: Reply::Reserved })).unwrap();
        good.follow(command(1, &Command::Prepare { elide_zero_pages: true, channels: Channels::default() })).unwrap();
        assert_eq!((good.compared, good.phase()), (2, Phase::Preparation));
        assert!(good.agent_ended().is_err(), "nothing has ended");

        for wrong in [
            command(1, &reserve),
            command(0, &Command::Reserve { memory: Bytes::from_mib(2), intermediaries: Vec::new(), disk: Bytes::ZERO }),
            command(0, &Command::Pause),
            Record::Event { at: Time(6), event: vec![99] },
        ] {
            let mut shadow = shadow();
            shadow.follow(event(5, &Event::Requested)).unwrap();
            assert!(shadow.follow(wrong).is_err());
        }
        assert!(shadow().follow(command(0, &reserve)).is_err(), "nothing was due");
    }

    #[test]
    fn the_source_s_death_before_the_switch_loses_the_guest() {
        let mut shadow = shadow();
        shadow.follow(event(5, &Event::Requested)).unwrap();
        shadow.source_dead(Time(7)).unwrap();
        assert_eq!(shadow.ending().map(|e| e.outcome), Some(livemig_core::machine::Outcome::Lost));
    }
}
