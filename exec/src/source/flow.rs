//! How much is on its way at once: enough to keep the connections busy, and little enough that a recall is soon done and that a page
//! which the guest waits for does not stand in a long queue.
//!
//! Large frames cost less: fewer acknowledgements. Over a slow path they would be in everybody's way. How long frames take to be
//! acknowledged tells the two apart.

use crate::wire::pages::{MAX_PAGES, PIECE};
use std::time::Duration;

/// Pages of the smallest frames.
const LEAST: u64 = PIECE;
/// What is on its way with the smallest frames, over all streams together.
const FRAMES: u64 = 8;
/// Of the largest frames at least so many are on their way: one being made, one being sent, one being applied.
const BUSY: u64 = 3;
/// A frame that takes longer makes the next ones smaller, one that takes less than half of it larger.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the last frames have taught.
#[derive(Debug)]
pub(super) struct Flow {
    pages: u64,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow { pages: LEAST }
    }
}

impl Flow {
    /// How many pages a frame may have.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// How many frames may be on their way on each of so many streams.
    pub(super) fn window(&self, streams: u16) -> usize {
        let frames = (FRAMES * LEAST / self.pages).max(BUSY);
        (frames / u64::from(streams.max(1))).max(2) as usize
    }

    /// A frame was acknowledged so long after it was begun.
    pub(super) fn acknowledged(&mut self, took: Duration) {
        if took > PATIENCE {
            self.pages = (self.pages / 2).max(LEAST);
        } else if took < PATIENCE / 2 {
            self.pages = (self.pages * 2).min(MAX_PAGES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on its way over a path, in pages, once frames have settled; and the longest time that one took.
    fn settled(pages_per_second: f64, streams: u16) -> (u64, Duration) {
        let (mut flow, mut longest) = (Flow::default(), Duration::ZERO);
        for round in 0..100 {
            let flying = flow.pages() * flow.window(streams) as u64 * u64::from(streams);
            let took = Duration::from_secs_f64(flying as f64 / pages_per_second);
            longest = if round > 50 { longest.max(took) } else { longest };
            flow.acknowledged(took);
        }
        (flow.pages() * flow.window(streams) as u64 * u64::from(streams), longest)
    }

    #[test]
    fn a_fast_path_gets_huge_frames_and_a_slow_one_short_queues() {
        // 1 GiB/s; 1 Gbit/s; 100 Mbit/s.
        assert_eq!(settled(262_144.0, 1).0, 3 * MAX_PAGES);
        let (pages, longest) = settled(30_518.0, 1);
        assert!(pages >= FRAMES * LEAST && longest < Duration::from_millis(26), "{pages} pages, {longest:?}");
        assert_eq!(settled(3052.0, 1).0, FRAMES * LEAST, "never less than what keeps a long path busy");
        assert!(settled(262_144.0, 4).0 <= 8 * MAX_PAGES);
    }
}
