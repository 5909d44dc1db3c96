//! The runs of a scenario: which there are, with which seed, and how they are spread over threads.
//!
//! Results are handed on in the order of the jobs, whatever the number of threads, and every seed is a function of the job.

use anyhow::{Context, anyhow};
use livemig_models::world::Point;
use rayon::ThreadPoolBuilder;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

/// One run: a strategy at a point of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Index of the point.
    pub(crate) point: usize,
    /// Index of the strategy within the point.
    pub(crate) strategy: usize,
    /// Index of the replicate.
    pub(crate) replicate: u32,
}

/// Every run, points outermost, then strategies, then replicates.
pub(crate) fn all(points: &[Point], replicates: u32) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (point, at) in points.iter().enumerate() {
        for strategy in 0..at.strategies.len() {
            jobs.extend((0..replicates).map(|replicate| Job { point, strategy, replicate }));
        }
    }
    jobs
}

impl Job {
    /// The seed of this run: the XXH3-64 hash of scenario seed, point and replicate, each as 8 bytes with the lowest first, and
    /// the word `run`. The strategy does not enter: strategies are compared under the same random numbers.
    pub(crate) fn seed(&self, scenario_seed: u64) -> u64 {
        let mut key = Vec::with_capacity(27);
        for part in [scenario_seed, self.point as u64, u64::from(self.replicate)] {
            key.extend_from_slice(&part.to_le_bytes());
        }
        key.extend_from_slice(b"run");
        xxh3_64(&key)
    }
}

/// Runs `work` on every job, on up to `threads` threads, and hands the results to `emit` in the order of the jobs; a panic in
/// `work` is handed on as an error.
///
/// # Errors
/// The first error of `emit`; no further job is started then.
pub(crate) fn in_order<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    work: impl Fn(&J) -> R + Sync,
    mut emit: impl FnMut(&J, anyhow::Result<R>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let guarded = |job: &J| catch_unwind(AssertUnwindSafe(|| work(job)));
    if threads <= 1 || jobs.len() <= 1 {
        return jobs.iter().try_for_each(|job| emit(job, survived(guarded(job))));
    }
    let threads = threads.min(jobs.len());
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    let stopped = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    pool.in_place_scope_fifo(|scope| {
        // Results that wait for an earlier one are held in memory; a bound on how far ahead jobs start bounds them.
        let ahead = threads * 4;
        let mut waiting = BTreeMap::new();
        let mut started = 0;
        let result = jobs.iter().enumerate().try_for_each(|(next, job)| {
            while started < jobs.len() && started < next + ahead {
                let (index, sender, guarded, stopped) = (started, sender.clone(), &guarded, &stopped);
                scope.spawn_fifo(move |_| {
                    if !stopped.load(Ordering::Relaxed) {
                        // Nobody listens any more after an error.
                        let _ = sender.send((index, guarded(&jobs[index])));
                    }
                });
                started += 1;
            }
            while !waiting.contains_key(&next) {
                let (index, result) = receiver.recv().context("a thread is gone")?;
                waiting.insert(index, result);
            }
            let result = waiting.remove(&next).context("a result is gone")?;
            emit(job, survived(result))
        });
        stopped.store(true, Ordering::Relaxed);
        result
    })
}

fn survived<R>(result: Result<R, Box<dyn Any + Send>>) -> anyhow::Result<R> {
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        anyhow!("the run broke an invariant: {}", text.unwrap_or("unknown"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::time::Duration;

    #[test]
    fn results_come_in_order_however_long_jobs_take() {
        let jobs: Vec<u64> = (0..40).collect();
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |j: &u64| {
                std::thread::sleep(Duration::from_micros((40 - j) * 50));
                j * 10
            };
            in_order(&jobs, threads, work, |j, r| {
                seen.push((*j, r?));
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, jobs.iter().map(|j| (*j, j * 10)).collect::<Vec<_>>(), "{threads} threads");
        }
    }

    #[test]
    fn an_error_of_the_receiver_ends_the_work() {
        let jobs: Vec<u64> = (0..10_000).collect();
        let ran = AtomicBool::new(false);
        let work = |j: &u64| {
            if *j > 5000 {
                ran.store(true, Ordering::Relaxed);
            }
        };
        let error = in_order(&jobs, 2, work, |j, _| if *j == 3 { bail!("full") } else { Ok(()) }).unwrap_err();
        assert_eq!(error.to_string(), "full");
        assert!(!ran.load(Ordering::Relaxed));
    }

    #[test]
    fn a_panic_is_an_error_after_the_results_before_it() {
        let jobs = [1, 2, 3];
        for threads in [1, 3] {
            let mut seen = Vec::new();
            let work = |j: &i32| {
                assert_ne!(*j, 2, "two is wrong");
                *j
            };
            let error = in_order(&jobs, threads, work, |_, r| {
                seen.push(r?);
                Ok(())
            })
            .unwrap_err();
            assert!(error.to_string().contains("two is wrong"), "{error}");
            assert_eq!(seen, [1]);
        }
    }

    #[test]
    fn seeds_differ_by_point_and_replicate_but_not_by_strategy() {
        let job = Job { point: 1, strategy: 2, replicate: 3 };
        assert_eq!(job.seed(7), Job { strategy: 0, ..job }.seed(7));
        assert_ne!(job.seed(7), Job { point: 2, ..job }.seed(7));
        assert_ne!(job.seed(7), Job { replicate: 4, ..job }.seed(7));
        assert_ne!(job.seed(7), job.seed(8));
        // Pinned: results that were published with a seed must be found again.
        assert_eq!(job.seed(7), 14_887_650_964_002_111_465);
    }
}
