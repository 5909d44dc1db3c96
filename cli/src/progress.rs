//! A progress bar on standard error, for people who have waited long enough to want one.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Runs that take less show nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Progress over a number of runs.
pub(crate) struct Progress {
    /// The bar, and what ends the wait for it; `None` when standard error is no terminal.
    bar: Option<(ProgressBar, Sender<()>)>,
}

impl Progress {
    /// A bar that appears after a while, when standard error is a terminal.
    pub(crate) fn new(runs: usize) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {elapsed} elapsed, {eta} left") {
            bar.set_style(style);
        }
        let (sender, done) = mpsc::channel();
        let shown = bar.clone();
        thread::spawn(move || {
            if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(200));
            }
        });
        Progress { bar: Some((bar, sender)) }
    }

    /// Does `write`, which may write to the terminal, and counts one more run.
    pub(crate) fn step<T>(&self, write: impl FnOnce() -> T) -> T {
        let Some((bar, _)) = &self.bar else { return write() };
        let result = bar.suspend(write);
        bar.inc(1);
        result
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((bar, _)) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
