//! The switch: when the guest stands still, and on what the destination depends afterwards.

use super::metrics::Downtime;
use crate::units::Time;
use crate::vocabulary::Side;

/// The moments of the switch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switch {
    /// `Pause` was issued.
    paused: Option<Time>,
    /// The last memory that was sent while the guest stood still was acknowledged.
    memory_acked: Option<Time>,
    state_ordered: Option<Time>,
    state_acked: Option<Time>,
    resume_ordered: Option<Time>,
    resumed: Option<(Side, Time)>,
    /// `Resume` at the destination was issued and not disproved.
    switched: bool,
    /// Something was pushed after the switch.
    pushed: bool,
    /// The last of it was acknowledged.
    push_acked: Option<Time>,
    redirected: Option<Time>,
    /// Intermediaries were among the routes of a send.
    staged: bool,
    gathered: Option<Time>,
}

impl Switch {
    /// `Pause` is issued. A guest that was resumed at the source and is stopped again begins anew: the last switch counts.
    pub(super) fn pause(&mut self, now: Time) {
        *self = Switch { paused: Some(now), staged: self.staged, ..Switch::default() };
    }

    /// The guest could not be stopped.
    pub(super) fn pause_failed(&mut self) {
        self.paused = None;
    }

    /// Whether the guest stands still, or is being stopped.
    pub(super) fn standing(&self) -> bool {
        self.paused.is_some() && self.resumed.is_none()
    }

    pub(super) fn order_state(&mut self, now: Time) {
        self.state_ordered = Some(now);
    }

    pub(super) fn state_acked(&mut self, now: Time) {
        self.state_acked = Some(now);
    }

    pub(super) fn order_resume(&mut self, now: Time, side: Side) {
        self.resume_ordered = Some(now);
        self.switched = side == Side::Destination;
    }

    /// The destination has proven that it never started the guest.
    pub(super) fn never_started(&mut self) {
        self.switched = false;
    }

    pub(super) fn resumed(&mut self, side: Side, at: Time) {
        self.resumed = Some((side, at));
    }

    /// Whether what is sent now is pushed to a guest that has started, or is about to.
    pub(super) fn pushing(&self) -> bool {
        self.switched
    }

    pub(super) fn push_ordered(&mut self) {
        self.pushed = true;
    }

    /// A send is over.
    pub(super) fn send_over(&mut self, now: Time) {
        if self.switched {
            self.push_acked = Some(now);
        } else if self.standing() {
            self.memory_acked = Some(now);
        }
    }

    pub(super) fn redirected(&mut self, at: Time) {
        self.redirected = Some(at);
    }

    pub(super) fn stages(&mut self) {
        self.staged = true;
    }

    pub(super) fn gathered(&mut self, at: Time) {
        self.gathered = Some(at);
    }

    /// When `Pause` was issued, once the guest runs again.
    pub(super) fn paused_at(&self) -> Option<Time> {
        self.paused.filter(|_| self.resumed.is_some())
    }

    /// When the guest ran again at this side.
    pub(super) fn resumed_at(&self, side: Side) -> Option<Time> {
        self.resumed.filter(|&(s, _)| s == side).map(|(_, at)| at)
    }

    /// Whether the guest, after the switch, needed what another host held.
    pub(super) fn depended(&self) -> bool {
        self.pushed || self.staged
    }

    /// When the destination held everything and depended on nobody. When the migration says that this is so (`completed`),
    /// confirmations that are missing are not waited for: whoever owed them is gone and was not needed any more.
    pub(super) fn whole_at(&self, completed: bool) -> Option<Time> {
        let mut at = self.resumed_at(Side::Destination)?;
        if self.pushed {
            // Of a source that has failed the destination has said that it is not needed any more.
            let confirmed = self.redirected.or(self.gathered).or(self.push_acked.filter(|_| completed));
            at = at.max(confirmed.or(completed.then_some(at))?);
        }
        if self.staged {
            at = at.max(self.gathered.or(completed.then_some(at))?);
        }
        Some(at)
    }

    /// The standstill and its parts, once the guest runs again.
    ///
    /// The parts meet where state was ordered to be sent, or later memory acknowledged, and where state was acknowledged. A
    /// switch that was given up has the parts that it came to; the rest is activation, which is then the return.
    pub(super) fn downtime(&self) -> Option<Downtime> {
        let (paused, (_, resumed)) = (self.paused?, self.resumed?);
        // In real mode clocks of two hosts meet here; the parts stay in order and add up whatever their error.
        let resumed = resumed.max(paused);
        let last = self.resume_ordered.map_or(resumed, |at| at.clamp(paused, resumed));
        let memory = self.state_ordered.map_or(last, |at| at.max(self.memory_acked.unwrap_or(at))).clamp(paused, last);
        let state = self.state_ordered.map_or(memory, |_| self.state_acked.unwrap_or(last)).clamp(memory, last);
        Some(Downtime { total: resumed - paused, memory: memory - paused, state: state - memory, activation: resumed - state })
    }
}
