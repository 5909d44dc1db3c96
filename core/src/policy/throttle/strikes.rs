//! QEMU's judgement of whether a guest must be throttled (migration/ram.c, `migration_trigger_throttle`).

use crate::policy::stop::Round;
use crate::units::Span;
use serde::{Deserialize, Serialize};

/// The guest is judged over periods of at least this length.
const MIN_PERIOD: Span = Span::from_secs(1);

/// So many periods over the trigger call for a step.
const STRIKES: u32 = 2;

/// What has happened since the guest was last judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Period {
    /// Bytes on the wire.
    pub(super) wire: u64,
    /// Bytes dirtied, each page once per round.
    pub(super) dirty: u64,
    /// How long it was.
    pub(super) length: Span,
}

/// Counts the periods in which the guest has dirtied too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Strikes {
    period: Period,
    count: u32,
}

impl Strikes {
    /// The period that this round completes, if it does, and whether it calls for a step: whether, for the second time, more than
    /// `trigger` of what was sent is dirty again.
    pub(super) fn round_ended(&mut self, round: &Round, trigger: f64) -> Option<(Period, bool)> {
        self.period.wire += round.wire.0;
        self.period.dirty += round.dirty.0;
        self.period.length += round.duration();
        if self.period.length < MIN_PERIOD {
            return None;
        }
        let period = std::mem::take(&mut self.period);
        if period.dirty as f64 > trigger * period.wire as f64 {
            self.count += 1;
        }
        let step = self.count >= STRIKES;
        if step {
            self.count = 0;
        }
        Some((period, step))
    }
}
