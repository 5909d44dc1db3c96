//! The threads of a migration: what a page costs them at each end, how many pages per second they handle, and the cores that takes.
//!
//! A page passes through stages: at the source it is found, mapped, checked, compressed, encrypted and sent, at the destination received,
//! decrypted, decompressed and applied (Song et al., VEE 2013). The ends overlap, so that the slower one is the bound.

use livemig_core::units::PAGE_SIZE;
use livemig_core::vocabulary::{Channels, Region};
use livemig_models::calibration::Calibration;

/// What one end of a migration does to a page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct End {
    /// Seconds of a thread, by stage.
    stages: [f64; 4],
    /// Seconds to map it.
    map: f64,
    /// Seconds of the one thread that finds it.
    scan: f64,
}

impl End {
    pub(crate) fn source(c: &Calibration, channels: Channels, elides: bool, region: Region) -> End {
        let seconds = |applies: bool, cost: livemig_core::units::Span| if applies { cost.as_secs_f64() } else { 0.0 };
        let stages = [
            seconds(elides, c.check_per_page),
            seconds(channels.compress, c.compress_per_page),
            seconds(channels.encrypt, c.encrypt_per_page),
            seconds(true, c.send_per_page),
        ];
        End { stages, map: seconds(region == Region::Memory, c.map_per_page), scan: c.scan_per_page.as_secs_f64() }
    }

    pub(crate) fn destination(c: &Calibration, channels: Channels) -> End {
        let seconds = |applies: bool, cost: livemig_core::units::Span| if applies { cost.as_secs_f64() } else { 0.0 };
        let stages = [
            seconds(true, c.receive_per_page),
            seconds(channels.encrypt, c.encrypt_per_page),
            seconds(channels.compress, c.decompress_per_page),
            seconds(true, c.apply_per_page),
        ];
        End { stages, ..End::default() }
    }

    fn all_stages(&self) -> f64 {
        self.stages.iter().sum()
    }

    /// Seconds of cores that a page takes. Waiting for a lock takes none.
    pub(crate) fn busy(&self) -> f64 {
        self.all_stages() + self.map + self.scan
    }

    /// How many threads it takes when each stage has `threads`, or when a thread goes through all of them.
    pub(crate) fn threads(&self, threads: u32, channels: Channels) -> u32 {
        let stages = if channels.pipeline { self.stages.iter().chain([&self.map]).filter(|&&s| s > 0.0).count() } else { 1 };
        let working = if self.all_stages() + self.map > 0.0 { threads * stages as u32 } else { 0 };
        working + u32::from(self.scan > 0.0)
    }

    /// Bytes of pages per second that so many threads handle, each of which has this share of a core; `None` for no bound.
    ///
    /// Under the lock of the address space they map one after the other, so that a page takes (c + N m) / N of N threads; with range locks
    /// they map side by side, and it takes (c + m) / N. In a pipeline the slowest stage is the bound, and the mapping is one of them.
    pub(crate) fn rate(&self, threads: u32, share: f64, channels: Channels) -> Option<f64> {
        let threads = f64::from(threads);
        let mapping = if channels.range_lock { self.map } else { threads * self.map };
        let per_page = match channels.pipeline {
            true => self.stages.iter().copied().fold(mapping, f64::max),
            false => self.all_stages() + mapping,
        };
        let worked = (per_page > 0.0).then(|| threads * PAGE_SIZE as f64 / per_page);
        let scanned = (self.scan > 0.0).then(|| PAGE_SIZE as f64 / self.scan);
        [worked, scanned].into_iter().flatten().min_by(f64::total_cmp).map(|rate| rate * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::units::Span;

    fn calibration() -> Calibration {
        Calibration {
            compress_per_page: Span(5_000),
            decompress_per_page: Span(1_000),
            encrypt_per_page: Span(2_000),
            send_per_page: Span(3_000),
            map_per_page: Span(4_000),
            receive_per_page: Span(3_000),
            ..Calibration::built_in("ideal").unwrap()
        }
    }

    const ALL: Channels =
        Channels { nics: None, threads: None, range_lock: true, pipeline: false, tasks: None, compress: true, encrypt: true };

    #[test]
    fn a_thread_takes_its_pages_through_all_stages_or_each_stage_has_its_own() {
        let c = calibration();
        let source = End::source(&c, ALL, true, Region::Memory);
        let micros = |rate: Option<f64>| PAGE_SIZE as f64 / rate.unwrap() * 1e6;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a}, not {b}");
        close(micros(source.rate(4, 1.0, ALL)), (5.0 + 2.0 + 3.0 + 4.0) / 4.0);
        close(micros(source.rate(4, 0.5, ALL)), (5.0 + 2.0 + 3.0 + 4.0) / 2.0);
        let locked = Channels { range_lock: false, ..ALL };
        close(micros(source.rate(4, 1.0, locked)), (5.0 + 2.0 + 3.0) / 4.0 + 4.0);
        let pipeline = Channels { pipeline: true, ..ALL };
        close(micros(source.rate(4, 1.0, pipeline)), 5.0 / 4.0);
        close(micros(source.rate(4, 1.0, Channels { range_lock: false, ..pipeline })), 4.0);
        assert_eq!((source.threads(4, ALL), source.threads(4, pipeline)), (4, 16));
        close(source.busy() * 1e6, 14.0);
        // There is nothing to map of a disk, and a receiver does other things.
        close(End::source(&c, ALL, true, Region::Disk).busy() * 1e6, 10.0);
        close(End::destination(&c, ALL).busy() * 1e6, 6.0);
        close(End::destination(&c, Channels::default()).busy() * 1e6, 3.0);
    }

    #[test]
    fn finding_pages_is_the_work_of_one_thread_beside_the_others() {
        let c = Calibration { scan_per_page: Span(2_000), ..calibration() };
        let source = End::source(&c, ALL, true, Region::Memory);
        assert_eq!(source.threads(4, ALL), 5);
        let pages = |threads| source.rate(threads, 1.0, ALL).unwrap() / PAGE_SIZE as f64;
        assert_eq!((pages(8).round(), pages(1).round()), (500_000.0, 71_429.0));
        let free = End::source(&Calibration::built_in("ideal").unwrap(), ALL, true, Region::Memory);
        assert_eq!((free.rate(4, 1.0, ALL), free.threads(4, ALL)), (None, 0));
    }
}
