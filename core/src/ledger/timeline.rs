//! The timeline of a migration, kept only when asked for.

use super::observation::{TimelineItem, TimelinePoint};
use crate::machine::Phase;
use crate::units::{Rate, Time};

/// How many points are kept from the beginning.
const FIRST: usize = 100_000;
/// How many are kept from the end, at least; of those between, only phases.
const LAST: usize = 10_000;

/// Points as they come; a value that does not change makes no new point, and every command makes one.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    points: Vec<TimelinePoint>,
    /// How many of them stay, whatever comes; [`FIRST`] at least.
    staying: usize,
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

    pub(super) fn command(&mut self, at: Time, name: &'static str) {
        self.push(at, TimelineItem::Command(name));
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
        if self.points.len() >= self.staying.max(FIRST) + 2 * LAST {
            self.drop_middle();
        }
    }

    fn drop_middle(&mut self) {
        let last = self.points.split_off(self.points.len() - LAST);
        let middle = self.points.split_off(self.staying.max(FIRST));
        self.points.extend(middle.into_iter().filter(|p| matches!(p.what, TimelineItem::Phase(_))));
        self.staying = self.points.len();
        self.points.extend(last);
    }

    /// The points in the order of their times; of equal times, in the order in which they came.
    pub(super) fn into_points(mut self) -> Vec<TimelinePoint> {
        // Work is reported at the end of an interval and holds from its beginning.
        self.points.sort_by_key(|p| p.at);
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_phases_are_kept() {
        let mut timeline = Timeline::default();
        for i in 0..1_000_000 {
            timeline.round(Time(i), i as u32);
            if i == 300_000 {
                timeline.phase(Time(i), Phase::LiveCopy);
            }
            assert!(timeline.points.len() < FIRST + 2 * LAST + 1);
        }
        let points = timeline.into_points();
        assert!(points[..FIRST].iter().enumerate().all(|(i, p)| p.at == Time(i as u64)));
        assert_eq!(points[FIRST], TimelinePoint { at: Time(300_000), what: TimelineItem::Phase(Phase::LiveCopy) });
        let last = &points[FIRST + 1..];
        assert!(last.len() >= LAST && last.iter().rev().enumerate().all(|(i, p)| p.at == Time(999_999 - i as u64)));
    }
}
