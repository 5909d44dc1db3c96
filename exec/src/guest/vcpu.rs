//! One vCPU: a thread that runs it, and the handle by which others stop it.
//!
//! The thread is in one of four places, which only it changes, under one lock. Whoever wants the vCPU to stop sets a wish under
//! that lock and kicks the thread if it is in the guest: `immediate_exit` first, then a signal, so that neither a vCPU about to
//! enter nor one inside is missed. A stopped vCPU has finished its port access, so that its registers are all there is to it.

use super::boot::{Boot, control};
use super::code::{PORT_SLEEP, PORT_STAMP};
use super::doorbell::Doorbell;
use crate::error::ExecError;
use crate::memory::GuestMemory;
use kvm_ioctls::{VcpuExit, VcpuFd};
use livemig_core::units::Span;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No phase is asked for.
const NO_PHASE: u32 = u32::MAX;
/// Most phase changes that a vCPU keeps, and that a state holds.
pub(crate) const MAX_CHANGES: usize = 4096;
/// Longest sleep in one go; the guest goes on sleeping by itself.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// From `step` on, the vCPU is in `phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseChange {
    /// The first step of the phase.
    pub step: u64,
    /// Index of the phase.
    pub phase: u32,
}

/// Where the thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Stopped, as wished.
    Parked,
    /// Sleeping for the guest.
    Asleep,
    /// In `KVM_RUN`, or on the way there or back.
    Guest,
    /// Ended; with the reason when it was not wished.
    Ended(Option<String>),
}

#[derive(Debug)]
struct Wishes {
    paused: bool,
    held: bool,
    quit: bool,
    place: Place,
    changes: Vec<PhaseChange>,
}

impl Wishes {
    fn phase(&self) -> u32 {
        self.changes.last().map_or(0, |change| change.phase)
    }
}

/// What thread and handle share.
#[derive(Debug)]
pub(super) struct Shared {
    index: usize,
    wishes: Mutex<Wishes>,
    moved: Condvar,
    fd: Mutex<VcpuFd>,
    /// `immediate_exit` in the page that the vCPU shares with the kernel; valid as long as `fd`.
    immediate_exit: *const AtomicU8,
    boot: Arc<Boot>,
    /// When phases end by themselves, in guest time since the start or the last order.
    ends: Vec<Option<Span>>,
    start_tsc: AtomicU64,
    wanted_phase: AtomicU32,
    longest_gap: AtomicU64,
    doorbell: Arc<Doorbell>,
}

// SAFETY: the raw pointer is only used as a shared atomic byte, which is what the kernel reads it as.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A running or stopped vCPU.
#[derive(Debug)]
pub(super) struct Vcpu {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves flags and file descriptors, which are whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vcpu {
    /// Starts the thread; the vCPU stays stopped. `memory` is kept alive as long as the thread.
    pub(super) fn spawn(
        index: usize,
        mut fd: VcpuFd,
        boot: Arc<Boot>,
        memory: Arc<GuestMemory>,
        ends: Vec<Option<Span>>,
    ) -> Result<Vcpu, ExecError> {
        install_kick_handler();
        let immediate_exit = (&raw const fd.get_kvm_run().immediate_exit).cast::<AtomicU8>();
        let changes = vec![PhaseChange { step: 0, phase: 0 }];
        let shared = Arc::new(Shared {
            index,
            wishes: Mutex::new(Wishes { paused: true, held: false, quit: false, place: Place::Parked, changes }),
            moved: Condvar::new(),
            fd: Mutex::new(fd),
            immediate_exit,
            boot,
            ends,
            start_tsc: AtomicU64::new(0),
            wanted_phase: AtomicU32::new(NO_PHASE),
            longest_gap: AtomicU64::new(0),
            doorbell: Arc::default(),
        });
        let of_thread = shared.clone();
        let body = move || {
            // SAFETY: sets how exactly this thread's own sleeps end, and nothing else.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
            of_thread.serve();
            drop(memory);
        };
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(body)
            .map_err(|source| ExecError::Kernel { call: "starting a vCPU thread", source })?;
        Ok(Vcpu { shared, thread: Some(thread) })
    }

    /// Wishes the vCPU paused or not, held (by the throttle) or not.
    pub(super) fn wish(&self, paused: Option<bool>, held: Option<bool>) {
        let mut wishes = lock(&self.shared.wishes);
        wishes.paused = paused.unwrap_or(wishes.paused);
        wishes.held = held.unwrap_or(wishes.held);
        self.alert(&wishes);
    }

    /// Waits until a vCPU that is wished to be paused has stopped.
    pub(super) fn wait_parked(&self, deadline: Instant, limit: Duration) -> Result<(), ExecError> {
        let vcpu = self.shared.index;
        let mut wishes = lock(&self.shared.wishes);
        loop {
            match &wishes.place {
                Place::Parked => return Ok(()),
                Place::Ended(reason) => {
                    let reason = reason.clone().unwrap_or_else(|| "it has ended".to_owned());
                    return Err(ExecError::Vcpu { vcpu, reason });
                }
                Place::Asleep | Place::Guest => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ExecError::PauseTimeout { vcpu, waited_ms: limit.as_millis() });
            }
            wishes = self.shared.moved.wait_timeout(wishes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Why it has failed, if it has.
    pub(super) fn failure(&self) -> Option<ExecError> {
        match &lock(&self.shared.wishes).place {
            Place::Ended(Some(reason)) => Some(ExecError::Vcpu { vcpu: self.shared.index, reason: reason.clone() }),
            _ => None,
        }
    }

    /// The vCPU itself, when it is stopped and wished to stay so.
    pub(super) fn parked(&self) -> Result<MutexGuard<'_, VcpuFd>, ExecError> {
        let wishes = lock(&self.shared.wishes);
        if !wishes.paused || wishes.place != Place::Parked {
            return Err(ExecError::NotPaused("access to a vCPU's registers"));
        }
        Ok(lock(&self.shared.fd))
    }

    fn alert(&self, wishes: &Wishes) {
        if wishes.place == Place::Guest
            && let Some(thread) = &self.thread
        {
            // SAFETY: the vCPU's page outlives `fd`, which `shared` holds.
            unsafe { &*self.shared.immediate_exit }.store(1, Ordering::SeqCst);
            // SAFETY: the thread is not joined yet, so its id is valid; its handler does nothing.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
        self.shared.moved.notify_all();
    }
}

impl Drop for Vcpu {
    /// Ends the thread. One that the kernel does not let go within two seconds is left behind, with the memory it needs.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut wishes = lock(&self.shared.wishes);
        wishes.quit = true;
        while !matches!(wishes.place, Place::Ended(_)) {
            self.alert(&wishes);
            if Instant::now() >= deadline {
                return;
            }
            let again = Duration::from_millis(20);
            wishes = self.shared.moved.wait_timeout(wishes, again).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(wishes);
        if let Some(thread) = self.thread.take() {
            // Its last act was to say that it has ended.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The guest's clock when its phases began: at the start, or at the last order.
    pub(super) fn start_tsc(&self) -> u64 {
        self.start_tsc.load(Ordering::Relaxed)
    }

    pub(super) fn set_start_tsc(&self, tsc: u64) {
        self.start_tsc.store(tsc, Ordering::Relaxed);
    }

    /// Asks for a phase; the vCPU changes at its next time stamp.
    pub(super) fn want_phase(&self, phase: u32) {
        self.wanted_phase.store(phase, Ordering::Relaxed);
    }

    /// The same, unless the vCPU has got so far already.
    pub(super) fn want_phase_no_earlier(&self, phase: u32) {
        let wishes = lock(&self.wishes);
        if wishes.phase() < phase {
            self.want_phase(phase);
        }
    }

    /// The phase that the vCPU is in.
    pub(super) fn phase(&self) -> u32 {
        lock(&self.wishes).phase()
    }

    pub(super) fn changes(&self) -> Vec<PhaseChange> {
        lock(&self.wishes).changes.clone()
    }

    pub(super) fn set_changes(&self, changes: Vec<PhaseChange>) {
        lock(&self.wishes).changes = changes;
    }

    pub(super) fn doorbell(&self) -> Arc<Doorbell> {
        self.doorbell.clone()
    }

    /// The longest interval between two stamps since the last call, in ticks.
    pub(super) fn take_longest_gap(&self) -> u64 {
        self.longest_gap.swap(0, Ordering::Relaxed)
    }

    /// The thread.
    fn serve(&self) {
        let mut wake = None;
        let mut unfinished = false;
        let failure = loop {
            if !self.wait_to_run(&mut wake, &mut unfinished) {
                break None;
            }
            match self.enter() {
                Ok(exit) => {
                    unfinished = exit != Exit::Kicked;
                    if exit != Exit::Kicked {
                        self.stamp();
                    }
                    if exit == Exit::Sleep {
                        wake = Some(self.wake_time());
                    }
                }
                Err(reason) => break Some(reason),
            }
        };
        lock(&self.wishes).place = Place::Ended(failure);
        self.moved.notify_all();
    }

    /// Waits until the vCPU may run; `false` when it is to end.
    fn wait_to_run(&self, wake: &mut Option<Instant>, unfinished: &mut bool) -> bool {
        let mut wishes = lock(&self.wishes);
        loop {
            if wishes.quit {
                return false;
            }
            if wishes.paused || wishes.held {
                if std::mem::take(unfinished) {
                    wishes.place = Place::Guest;
                    drop(wishes);
                    self.finish_port_access();
                    wishes = lock(&self.wishes);
                    continue;
                }
                // The guest looks at the clock itself when it goes on.
                *wake = None;
                wishes.place = Place::Parked;
                self.moved.notify_all();
                wishes = self.moved.wait(wishes).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = wake.map_or(Duration::ZERO, |t| t.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                *wake = None;
                break;
            }
            wishes.place = Place::Asleep;
            wishes = self.moved.wait_timeout(wishes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        wishes.place = Place::Guest;
        // SAFETY: the vCPU's page outlives `fd`, which `self` holds.
        unsafe { &*self.immediate_exit }.store(0, Ordering::SeqCst);
        true
    }

    /// Runs the vCPU until it wants something.
    fn enter(&self) -> Result<Exit, String> {
        let mut fd = lock(&self.fd);
        match fd.run() {
            Ok(VcpuExit::IoOut(PORT_SLEEP, _)) => Ok(Exit::Sleep),
            Ok(VcpuExit::IoOut(PORT_STAMP, _)) => Ok(Exit::Stamp),
            Ok(VcpuExit::Intr) => Ok(Exit::Kicked),
            Ok(other) => {
                let what = format!("{other:?}");
                let rip = fd.get_regs().map_or(0, |regs| regs.rip);
                Err(format!("unexpected exit {what} at {rip:#x}"))
            }
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => Ok(Exit::Kicked),
            Err(e) => Err(format!("KVM_RUN: {e}")),
        }
    }

    /// A port access is complete only when the vCPU is entered once more; this enters it and leaves before any instruction.
    fn finish_port_access(&self) {
        // SAFETY: the vCPU's page outlives `fd`, which `self` holds.
        unsafe { &*self.immediate_exit }.store(1, Ordering::SeqCst);
        // The only possible end is an interruption.
        let _ = lock(&self.fd).run();
    }

    /// Takes note of a time stamp, and changes the phase when it is time.
    fn stamp(&self) {
        let now = self.boot.read_control(self.index, control::NOW);
        let last = self.boot.read_control(self.index, control::LAST);
        let ticks = now.saturating_sub(last);
        self.longest_gap.fetch_max(ticks, Ordering::Relaxed);
        self.doorbell.ring(Duration::from_nanos(self.boot.span(ticks).0));

        let mut wishes = lock(&self.wishes);
        let current = wishes.phase();
        let elapsed = self.boot.span(now.saturating_sub(self.start_tsc()));
        let mut phase = current;
        while let Some(Some(end)) = self.ends.get(phase as usize)
            && elapsed >= *end
            && phase as usize + 1 < self.ends.len()
        {
            phase += 1;
        }
        let wanted = self.wanted_phase.swap(NO_PHASE, Ordering::Relaxed);
        if (wanted as usize) < self.ends.len() && wanted != current {
            phase = wanted;
            self.set_start_tsc(now);
        }
        if phase != current && wishes.changes.len() < MAX_CHANGES {
            let step = self.boot.read_control(self.index, control::STEPS);
            wishes.changes.push(PhaseChange { step, phase });
            self.boot.write_control(self.index, control::PHASE, self.boot.block(self.index, phase as usize));
        }
    }

    /// When the guest wants to go on.
    fn wake_time(&self) -> Instant {
        let now = self.boot.read_control(self.index, control::NOW);
        let deadline = self.boot.read_control(self.index, control::DEADLINE);
        let sleep = self.boot.span(deadline.saturating_sub(now));
        Instant::now() + Duration::from_nanos(sleep.0).min(LONGEST_SLEEP)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Kicked,
    Sleep,
    Stamp,
}

/// The signal that interrupts `KVM_RUN`.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

/// Installs a handler that does nothing, without restarting system calls: the signal's default would end the process.
fn install_kick_handler() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed sigaction is a valid one; the handler is async-signal-safe, for it does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(kick_signal(), &action, std::ptr::null_mut());
        }
    });
}
