//! Throttling: the vCPUs run for the first part of every period and are held for the rest.

use super::vcpu::Vcpu;
use livemig_core::units::Share;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The period. Short enough that a guest at 2 % still gets a millisecond at a time, and is never away for longer than this.
pub(super) const PERIOD: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Order {
    share: Share,
    quit: bool,
}

/// The thread that holds and lets go.
#[derive(Debug)]
pub(super) struct Throttle {
    order: Arc<(Mutex<Order>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    /// Without effect until a share is set; no thread is started before that.
    pub(super) fn new() -> Throttle {
        Throttle { order: Arc::new((Mutex::new(Order { share: Share::FULL, quit: false }), Condvar::new())), thread: None }
    }

    /// Whether the vCPUs run for a part of the time, so that they may just be held.
    pub(super) fn is_partial(&self) -> bool {
        let share = self.order.0.lock().unwrap_or_else(PoisonError::into_inner).share;
        share != Share::FULL && share != Share::NONE
    }

    /// Lets the vCPUs run for `share` of the time from now on.
    pub(super) fn set(&mut self, share: Share, vcpus: &Arc<Vec<Vcpu>>) -> std::io::Result<()> {
        let (order, changed) = &*self.order;
        order.lock().unwrap_or_else(PoisonError::into_inner).share = share;
        changed.notify_all();
        if self.thread.is_none() && share != Share::FULL {
            let (order, vcpus) = (self.order.clone(), vcpus.clone());
            let body = move || hold_and_let_go(&order.0, &order.1, &vcpus);
            self.thread = Some(std::thread::Builder::new().name("throttle".to_owned()).spawn(body)?);
        }
        Ok(())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.order.0.lock().unwrap_or_else(PoisonError::into_inner).quit = true;
        self.order.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does nothing that can panic, and looks at `quit` whenever it wakes.
            let _ = thread.join();
        }
    }
}

/// Works on a grid of periods, so that being late at one edge shifts no other.
fn hold_and_let_go(order: &Mutex<Order>, changed: &Condvar, vcpus: &[Vcpu]) {
    // SAFETY: sets how exactly this thread's own sleeps end, and nothing else.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
    let hold = |held| vcpus.iter().for_each(|vcpu| vcpu.wish(None, Some(held)));
    let lock = || order.lock().unwrap_or_else(PoisonError::into_inner);
    let mut period = Instant::now();
    loop {
        let mut now = lock();
        while now.share == Share::FULL && !now.quit {
            now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            period = Instant::now();
        }
        if now.quit {
            return;
        }
        let share = now.share;
        drop(now);
        for (held, until) in [(false, period + PERIOD.mul_f64(share.get())), (true, period + PERIOD)] {
            let mut now = lock();
            if until <= Instant::now() || now.share != share || now.quit {
                continue;
            }
            hold(held);
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                if now.share != share || now.quit {
                    break;
                }
                now = changed.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let new_share = lock().share;
        let late = Instant::now().saturating_duration_since(period + PERIOD);
        period = if new_share != share || late > PERIOD { Instant::now() } else { period + PERIOD };
        if new_share == Share::FULL {
            hold(false);
        }
    }
}
