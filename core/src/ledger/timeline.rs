//! The timeline of a migration, kept only when asked for.

use super::observation::{TimelineItem, TimelinePoint};
use crate::machine::Phase;
use crate::units::{Rate, Time};

/// Points as they come; a value that does not change makes no new point.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    points: Vec<TimelinePoint>,
    phase: Option<Phase>,
    round: Option<u32>,
    work: Option<f64>,
    bandwidth: Option<Rate>,
}

impl Timeline {
    pub(super) fn phase(&mut self, at: Time, phase: Phase) {
        if self.phase.replace(phase) != Some(phase) {
            self.push(at, TimelineItem::Phase(phase));
        }
    }

    pub(super) fn round(&mut self, at: Time, index: u32) {
        if self.round.replace(index) != Some(index) {
            self.push(at, TimelineItem::Round(index));
        }
    }

    pub(super) fn work(&mut self, at: Time, rate: f64) {
        if self.work.replace(rate) != Some(rate) {
            self.push(at, TimelineItem::Work(rate));
        }
    }

    pub(super) fn bandwidth(&mut self, at: Time, rate: Rate) {
        if self.bandwidth.replace(rate) == Some(rate) {
            return;
        }
        // A driver that settles its network in several steps reports each of them; only the last one holds for any time.
        match self.points.last_mut() {
            Some(TimelinePoint { at: last, what: TimelineItem::Bandwidth(old) }) if *last == at => *old = rate,
            _ => self.push(at, TimelineItem::Bandwidth(rate)),
        }
    }

    fn push(&mut self, at: Time, what: TimelineItem) {
        self.points.push(TimelinePoint { at, what });
    }

    /// The points in the order of their times; of equal times, in the order in which they came.
    pub(super) fn into_points(mut self) -> Vec<TimelinePoint> {
        // Work is reported at the end of an interval and holds from its beginning.
        self.points.sort_by_key(|p| p.at);
        self.points
    }
}
