//! What befalls a migration from outside, and when.

use livemig_core::machine::{Migration, Phase};
use livemig_core::pages::Bitmap;
use livemig_core::units::Span;
use livemig_core::vocabulary::{Event, Peer, Reply, Side};

use super::channel::Lane;
use super::choice::Choices;
use super::coverage::KILLABLE;
use super::world::{Cut, Happening, World};

/// Something that goes wrong once, a number of steps after the migration has entered a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) phase: Phase,
    pub(crate) after: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The link is cut and restored later; what is on it waits, or is lost in part.
    Cut { lossy: bool, outage: Span },
    /// Connections break and are set up again at once.
    Reset,
    /// A host stops and comes back with its memory.
    Outage { host: Side, outage: Span },
    /// A host is gone.
    Kill { host: Side },
    /// The user changes their mind.
    Cancel,
    /// A peer says what the protocol excludes.
    Nonsense,
    /// The destination has no room.
    RoomRefused,
    /// The destination does not start the guest, and says so.
    ResumeRefused,
    /// The order to resume is lost, or the answer to it, and the source does not try again.
    ResumeLost { order: bool },
    /// An intermediary has no room for anything.
    StageRefused { via: u16 },
    /// An intermediary is gone.
    KillVia { via: u16 },
    /// The link to an intermediary is cut and restored later; what is on it waits, or is lost in part.
    CutVia { via: u16, lossy: bool, outage: Span },
}

/// The number of kinds that [`FaultKind::index`] tells apart.
pub(crate) const FAULT_KINDS: usize = 17;

impl FaultKind {
    pub(crate) fn draw(draw: &mut Choices, outage: Span, vias: u64) -> FaultKind {
        if vias > 0 && draw.percent(45) {
            return FaultKind::draw_of_intermediary(draw, outage, vias);
        }
        let host = if draw.percent(50) { Side::Source } else { Side::Destination };
        match draw.below(17) {
            0..3 => FaultKind::Cut { lossy: draw.percent(60), outage },
            3..6 => FaultKind::Reset,
            6..8 => FaultKind::Outage { host, outage },
            8..11 => FaultKind::Kill { host },
            11..13 => FaultKind::Cancel,
            13 => FaultKind::RoomRefused,
            14 => FaultKind::ResumeRefused,
            15 => FaultKind::Nonsense,
            _ => FaultKind::ResumeLost { order: draw.percent(50) },
        }
    }

    fn draw_of_intermediary(draw: &mut Choices, outage: Span, vias: u64) -> FaultKind {
        let via = u16::try_from(draw.below(vias)).unwrap();
        match draw.below(8) {
            0 => FaultKind::StageRefused { via },
            1..5 => FaultKind::KillVia { via },
            _ => FaultKind::CutVia { via, lossy: draw.percent(50), outage },
        }
    }

    /// The phase outside of which it has no meaning.
    pub(crate) fn only_in(self) -> Option<Phase> {
        match self {
            FaultKind::RoomRefused | FaultKind::StageRefused { .. } => Some(Phase::Waiting),
            FaultKind::ResumeRefused | FaultKind::ResumeLost { .. } => Some(Phase::Switch),
            FaultKind::Cut { .. }
            | FaultKind::Reset
            | FaultKind::Outage { .. }
            | FaultKind::Kill { .. }
            | FaultKind::Nonsense
            | FaultKind::KillVia { .. }
            | FaultKind::CutVia { .. }
            | FaultKind::Cancel => None,
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            FaultKind::Cut { lossy: false, .. } => 0,
            FaultKind::Cut { lossy: true, .. } => 1,
            FaultKind::Reset => 2,
            FaultKind::Outage { host: Side::Source, .. } => 3,
            FaultKind::Outage { host: Side::Destination, .. } => 4,
            FaultKind::Kill { host: Side::Source } => 5,
            FaultKind::Kill { host: Side::Destination } => 6,
            FaultKind::Cancel => 7,
            FaultKind::Nonsense => 8,
            FaultKind::RoomRefused => 9,
            FaultKind::ResumeRefused => 10,
            FaultKind::ResumeLost { order: true } => 11,
            FaultKind::ResumeLost { order: false } => 12,
            FaultKind::StageRefused { .. } => 13,
            FaultKind::KillVia { .. } => 14,
            FaultKind::CutVia { lossy: false, .. } => 15,
            FaultKind::CutVia { lossy: true, .. } => 16,
        }
    }

    pub(crate) fn name(index: usize) -> &'static str {
        [
            "link cut, nothing lost",
            "link cut, data lost",
            "connections reset",
            "source away",
            "destination away",
            "source killed",
            "destination killed",
            "cancel",
            "nonsense",
            "room refused",
            "resume refused",
            "resume order lost",
            "resume answer lost",
            "no room at an intermediary",
            "intermediary killed",
            "link to an intermediary cut, nothing lost",
            "link to an intermediary cut, data lost",
        ][index]
    }

    /// The phases in which the kind with this index strikes.
    pub(crate) fn phases(index: usize) -> &'static [Phase] {
        match index {
            9 | 13 => &[Phase::Waiting],
            10..13 => &[Phase::Switch],
            _ => &KILLABLE,
        }
    }
}

impl World {
    /// Lets everything happen that is due in the current phase.
    pub(crate) fn apply_faults(&mut self) {
        let mut index = 0;
        while index < self.run.faults.len() {
            let phase = self.phase();
            let fault = &mut self.run.faults[index];
            if fault.phase != phase || phase == Phase::Ended {
                index += 1;
            } else if fault.after > 0 {
                fault.after -= 1;
                index += 1;
            } else {
                let kind = self.run.faults.remove(index).kind;
                if self.apply_fault(kind) {
                    self.note(|| format!("FAULT {kind:?} in phase {}", phase.name()));
                    self.coverage.fault(kind, phase);
                }
            }
        }
    }

    /// Lets something happen now, unless the migration is over.
    pub(crate) fn strike(&mut self, kind: FaultKind) {
        if self.phase() != Phase::Ended {
            self.note(|| format!("FAULT {kind:?}"));
            self.apply_fault(kind);
        }
    }

    /// Whether it could happen.
    fn apply_fault(&mut self, kind: FaultKind) -> bool {
        match kind {
            FaultKind::Cut { lossy, outage } => self.cut(Cut { lossy, away: None }, outage),
            FaultKind::Outage { host, outage } => self.cut(Cut { lossy: true, away: Some(host) }, outage),
            FaultKind::Reset => {
                if self.cut.is_some() || self.dead.is_some() {
                    return false;
                }
                self.lose_some();
                self.reconnect();
                true
            }
            FaultKind::Kill { host } => self.kill(host),
            FaultKind::Cancel => {
                self.cancel();
                true
            }
            FaultKind::Nonsense => {
                self.talk_nonsense();
                true
            }
            FaultKind::RoomRefused => {
                self.destination.refuses_room = true;
                true
            }
            FaultKind::ResumeRefused => {
                self.destination.refuses_resume = true;
                true
            }
            FaultKind::ResumeLost { order } => {
                self.resume_loses = Some(order);
                true
            }
            FaultKind::StageRefused { via } => match self.vias.get_mut(usize::from(via)) {
                Some(host) => {
                    host.refuses_room = true;
                    true
                }
                None => false,
            },
            FaultKind::KillVia { via } => self.kill_intermediary(via),
            FaultKind::CutVia { via, lossy, outage } => self.cut_intermediary(via, lossy, outage),
        }
    }

    fn cut(&mut self, cut: Cut, outage: Span) -> bool {
        if self.cut.is_some() || self.dead.is_some() {
            return false;
        }
        self.cut = Some(cut);
        self.lanes.cut_link();
        self.lanes.set_away(cut.away);
        if cut.lossy {
            self.lose_some();
        }
        self.lanes.push(Lane::World, self.now + outage, Happening::Restore);
        self.park_guest();
        match cut.away {
            None => self.tell(Event::LinkLost(Peer::Destination)),
            Some(host) => self.tell(Event::PeerDead { peer: peer(host), recoverable: true }),
        }
        self.connection_lost();
        true
    }

    fn lose_some(&mut self) {
        let lingering = Span(self.timing.latency.0 + self.timing.jitter.0 * 10);
        self.lanes.lose_some(self.now, lingering, &mut self.choices);
    }

    /// The link is back, or the host.
    pub(crate) fn restore(&mut self) {
        let Some(cut) = self.cut.take() else { return };
        self.lanes.restore_link();
        self.lanes.set_away(None);
        self.arm_vcpus();
        if cut.lossy {
            self.reconnect();
        } else {
            self.hello();
            self.go_on_sending();
        }
        self.tell(Event::LinkRestored(cut.away.map_or(Peer::Destination, peer)));
    }

    fn kill(&mut self, host: Side) -> bool {
        if self.dead.is_some() {
            return false;
        }
        if self.guest.runs_at == Some(host) {
            self.stop_guest();
            self.guest_died = true;
        }
        self.dead = Some(host);
        self.lanes.silence_connections();
        self.lanes.silence_side(host);
        self.lanes.set_away(None);
        match host {
            Side::Source => {
                self.source_failed();
                self.check_gathering();
            }
            Side::Destination => self.destination_failed(),
        }
        let event = Event::PeerDead { peer: peer(host), recoverable: false };
        if self.choices.percent(50) {
            self.tell(event);
        } else {
            self.tell_later(event);
        }
        true
    }

    /// The machine refuses what makes no sense, and goes on as if it had not been said.
    fn talk_nonsense(&mut self) {
        let phase = self.phase();
        let unknown = Event::StageRefused { via: 7, set: Bitmap::default() };
        let mut said = vec![unknown, Event::PeerDead { peer: Peer::Intermediary(7), recoverable: false }];
        if phase != Phase::Waiting && self.timing.notice.is_none() {
            said.push(Event::Requested);
        }
        if let Some(&id) = self.run.outstanding.keys().next() {
            let gathers = matches!(phase, Phase::Preparation | Phase::Rollback);
            said.push(Event::Done { id, reply: if gathers { Reply::Gathered { at: self.now } } else { Reply::Reserved } });
        }
        for event in said {
            let what = format!("{event:?}");
            let accepted = self.run.conductor.handle(self.now, event).is_ok();
            if accepted || self.phase() != phase || self.run.conductor.poll().is_some() {
                self.broken(format!("the machine takes {what} seriously"));
            }
        }
    }

    fn cancel(&mut self) {
        let too_late = self.run.resume_issued && !self.run.never_proven;
        match self.try_tell(Event::Cancel) {
            Ok(()) if too_late => self.broken("a cancel was accepted after Resume was issued".into()),
            Ok(()) => self.run.cancelled = true,
            Err(_) if too_late => {}
            Err(error) => self.broken(format!("a cancel was refused: {error}")),
        }
    }
}

fn peer(host: Side) -> Peer {
    match host {
        Side::Source => Peer::Source,
        Side::Destination => Peer::Destination,
    }
}
