//! The guest: a small program without an operating system, under KVM, whose every write is known beforehand.
//!
//! The program runs in long mode at CPL 3 with IOPL 3 (natively even where KVM virtualizes page tables in software), state set
//! directly. It makes *steps*: step s of a vCPU draws a number from s and its seed, and accesses the page that the number
//! stands for in the table of its phase. What a page holds is therefore a function of the page, its initial content, how often
//! it was written and by which step last; see [`crate::replay`]. Layout, registers and ports: `docs/REAL_MODE.md`.
//!
//! Nothing that changes lies outside of the migrated memory and the vCPUs' registers, except the control pages, which only
//! repeat registers to the host.

mod boot;
mod code;
mod curve;
mod doorbell;
mod lanes;
pub(crate) mod program;
mod spec;
mod state;
mod throttle;
mod vcpu;
mod zipf;

pub(crate) use doorbell::Doorbell;
pub use spec::{GuestSpec, MAX_MEMORY, MAX_PHASES, MAX_REGIONS, MAX_VCPUS, Phase, Region};
pub use state::GuestState;
pub use vcpu::PhaseChange;

use crate::error::ExecError;
use crate::memory::{DirtyTracker, GuestMemory};
use crate::mix::{GAMMA, mix};
use crate::replay::{Progress, VcpuProgress};
use boot::{Boot, control};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use livemig_core::units::{Bytes, PageIndex, Share, Span};
use program::Table;
use state::VcpuState;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throttle::Throttle;
use vcpu::Vcpu;
use xxhash_rust::xxh3::xxh3_64;

/// Memory slot of the guest's memory.
pub(crate) const MEMORY_SLOT: u32 = 0;
const BOOT_SLOT: u32 = 1;
/// How long a throttled guest may run before it is paused, at most: twice the time between two of its stamps, and some.
const MOMENT: Duration = Duration::from_millis(3);

/// A virtual machine with its program, stopped or running.
///
/// Dropping it ends its vCPUs and gives its memory back.
#[derive(Debug)]
pub struct Guest {
    // Dropped in this order: the throttle holds vCPUs, whose threads hold what they run on.
    throttle: Throttle,
    vcpus: Arc<Vec<Vcpu>>,
    spec: GuestSpec,
    tables: Vec<Vec<Table>>,
    boot: Arc<Boot>,
    memory: Arc<GuestMemory>,
    vm: Arc<VmFd>,
    msrs: Vec<u32>,
    manual_clear: bool,
}

impl Guest {
    /// A guest over `memory`, which is filled as its specification says by whoever makes it ([`Content::fill`] at a source; at a
    /// destination it comes from elsewhere). Stopped at its first step.
    ///
    /// [`Content::fill`]: crate::content::Content::fill
    ///
    /// # Errors
    /// No KVM, a specification out of bounds, memory of another size, or what the kernel refuses.
    pub fn new(spec: &GuestSpec, memory: Arc<GuestMemory>) -> Result<Guest, ExecError> {
        spec.check()?;
        if memory.pages() != spec.pages() {
            return Err(ExecError::Spec(format!("{} pages of memory for a guest of {}", memory.pages(), spec.pages())));
        }
        let kvm = open_kvm()?;
        let vm = kvm.create_vm().map_err(kernel("KVM_CREATE_VM"))?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
        let tables: Vec<Vec<Table>> =
            (0..spec.vcpus).map(|v| spec.phases.iter().map(|p| Table::new(p, v, spec.vcpus)).collect()).collect();
        let fds = (0..u64::from(spec.vcpus)).map(|id| vm.create_vcpu(id)).collect::<Result<Vec<_>, _>>();
        let fds = fds.map_err(kernel("KVM_CREATE_VCPU"))?;
        let tsc_khz = fds[0].get_tsc_khz().map_err(kernel("KVM_GET_TSC_KHZ"))?;
        let boot = Arc::new(Boot::new(spec, &tables, tsc_khz)?);
        let manual_clear = enable_manual_clear(&vm);
        set_slot(&vm, MEMORY_SLOT, 0, &memory, 0)?;
        set_slot(&vm, BOOT_SLOT, boot::BASE, &boot.memory, 0)?;
        let msrs = state::readable_msrs(&kvm, &fds[0])?;

        let mut vcpus = Vec::new();
        for (index, fd) in fds.into_iter().enumerate() {
            let start = set_initial_state(&fd, &cpuid, spec, &boot, index)?;
            boot.write_control(index, control::PHASE, boot.block(index, 0));
            let ends = spec.phases.iter().map(|p| p.until).collect();
            let vcpu = Vcpu::spawn(index, fd, boot.clone(), memory.clone(), ends)?;
            vcpu.shared.set_start_tsc(start);
            vcpus.push(vcpu);
        }
        let spec = spec.clone();
        let vcpus = Arc::new(vcpus);
        Ok(Guest { throttle: Throttle::new(), vcpus, spec, tables, boot, memory, vm: Arc::new(vm), msrs, manual_clear })
    }

    /// A guest that goes on where `state` was saved: [`Guest::new`] and [`Guest::load`].
    ///
    /// # Errors
    /// As those two.
    pub fn restore(spec: &GuestSpec, memory: Arc<GuestMemory>, state: &GuestState, saved_at: Instant) -> Result<Guest, ExecError> {
        let guest = Guest::new(spec, memory)?;
        guest.load(state, saved_at)?;
        Ok(guest)
    }

    /// Makes a guest that has never run go on where `state` was saved; it stays stopped. A destination makes its guest
    /// beforehand, so that only this lies within the downtime. `saved_at` is when that was, on this machine's clock: the guest's
    /// clock goes on as if it had never stopped.
    ///
    /// # Errors
    /// A state of another guest, or one that this machine cannot take; a guest that has run.
    pub fn load(&self, state: &GuestState, saved_at: Instant) -> Result<(), ExecError> {
        if state.spec != digest(&self.spec) {
            return Err(ExecError::State("it belongs to a guest with another specification".to_owned()));
        }
        if state.vcpus.len() != self.vcpus.len() {
            return Err(ExecError::State(format!("it has {} vCPUs, the guest has {}", state.vcpus.len(), self.vcpus.len())));
        }
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            let _parked = vcpu.parked()?;
            if self.boot.read_control(index, control::NOW) != 0 {
                return Err(ExecError::State("the guest that is to take it has run".to_owned()));
            }
        }
        if state.tsc_khz != self.boot.tsc_khz() {
            self.boot.set_tsc_khz(&self.tables, state.tsc_khz);
        }
        state.vcpus.iter().enumerate().try_for_each(|(index, saved)| self.load_vcpu(index, saved, state.tsc_khz, saved_at))
    }

    fn load_vcpu(&self, index: usize, saved: &VcpuState, tsc_khz: u32, saved_at: Instant) -> Result<(), ExecError> {
        let Some(change) = saved.changes.last().filter(|c| (c.phase as usize) < self.spec.phases.len()) else {
            return Err(ExecError::State(format!("vCPU {index} is in a phase that the guest does not have")));
        };
        let vcpu = &self.vcpus[index];
        saved.restore(&*vcpu.parked()?, tsc_khz, saved_at)?;
        self.boot.write_control(index, control::STEPS, saved.regs.r15);
        self.boot.write_control(index, control::PHASE, self.boot.block(index, change.phase as usize));
        vcpu.shared.set_start_tsc(saved.start_tsc);
        vcpu.shared.set_changes(saved.changes.clone());
        Ok(())
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The application counter: steps that each vCPU has made, read without stopping it. A guest makes at least 1000 a second
    /// and vCPU when nothing slows it down.
    #[must_use]
    pub fn counters(&self) -> Vec<u64> {
        (0..self.vcpus.len()).map(|v| self.boot.read_control(v, control::STEPS)).collect()
    }

    /// What its network traffic goes on by: the doorbell of its first vCPU.
    pub(crate) fn doorbell(&self) -> Arc<Doorbell> {
        self.vcpus[0].shared.doorbell()
    }

    /// Lets the vCPUs run.
    pub fn resume(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Some(false), None));
    }

    /// Stops all vCPUs, and returns when they have stopped. Throttled ones run for a moment first: otherwise a guest would stand still
    /// for the time that it was held and for the pause behind it, in one go.
    ///
    /// # Errors
    /// A vCPU that has failed, or that has not stopped within `limit`; the wish stays, and the call can be repeated.
    pub fn pause(&self, limit: Duration) -> Result<(), ExecError> {
        let deadline = Instant::now() + limit;
        if self.throttle.is_partial() {
            self.let_stamp();
        }
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Some(true), None));
        self.vcpus.iter().try_for_each(|vcpu| vcpu.wait_parked(deadline, limit))
    }

    /// Lets held vCPUs go until each has noted the time, or for a moment. One that is paused stays so.
    fn let_stamp(&self) {
        let stamps = || (0..self.vcpus.len()).map(|v| self.boot.read_control(v, control::NOW)).collect::<Vec<_>>();
        let (before, deadline) = (stamps(), Instant::now() + MOMENT);
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(None, Some(false)));
        while Instant::now() < deadline && stamps().iter().zip(&before).any(|(now, before)| now == before) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Lets the vCPUs run for `share` of the time, in periods of at most 50 ms; [`Share::NONE`] holds them until another share
    /// is set.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn throttle(&mut self, share: Share) -> Result<(), ExecError> {
        let set = self.throttle.set(share, &self.vcpus);
        set.map_err(|source| ExecError::Kernel { call: "starting the throttle's thread", source })
    }

    /// Asks every vCPU for a phase of the specification; each changes at its next time stamp, within milliseconds of running. The phase
    /// and those behind it last as long after that as they would after the start.
    ///
    /// # Errors
    /// A phase that there is not.
    pub fn request_phase(&self, phase: usize) -> Result<(), ExecError> {
        let index = self.phase_index(phase)?;
        self.vcpus.iter().for_each(|vcpu| vcpu.shared.want_phase(index));
        Ok(())
    }

    /// Like [`Guest::request_phase`], for those vCPUs that have not got to that phase, or to one behind it: however often this is called,
    /// each changes once.
    ///
    /// # Errors
    /// A phase that there is not.
    pub fn request_phase_once(&self, phase: usize) -> Result<(), ExecError> {
        let index = self.phase_index(phase)?;
        self.vcpus.iter().for_each(|vcpu| vcpu.shared.want_phase_no_earlier(index));
        Ok(())
    }

    fn phase_index(&self, phase: usize) -> Result<u32, ExecError> {
        let index = u32::try_from(phase).ok().filter(|_| phase < self.spec.phases.len());
        index.ok_or_else(|| ExecError::Spec(format!("phase {phase} of {}", self.spec.phases.len())))
    }

    /// Steps per second that the guest would make now if nothing slowed it down, over all vCPUs.
    #[must_use]
    pub fn offered_rate(&self) -> f64 {
        self.vcpus.iter().zip(&self.tables).map(|(vcpu, tables)| tables[vcpu.shared.phase() as usize].rate).sum()
    }

    /// The longest interval between two of a vCPU's own time stamps since the last call, over all vCPUs. A guest stamps about
    /// every millisecond.
    #[must_use]
    pub fn take_longest_gap(&self) -> Span {
        let ticks = self.vcpus.iter().map(|vcpu| vcpu.shared.take_longest_gap()).max().unwrap_or(0);
        self.boot.span(ticks)
    }

    /// Whether it is well.
    ///
    /// # Errors
    /// The failure of a vCPU.
    pub fn check(&self) -> Result<(), ExecError> {
        self.vcpus.iter().find_map(Vcpu::failure).map_or(Ok(()), Err)
    }

    /// The complete state of the vCPUs of a paused guest. It stays what it is, and can go on afterwards.
    ///
    /// # Errors
    /// When it is not paused, or the kernel refuses.
    pub fn save(&self) -> Result<GuestState, ExecError> {
        let one = |vcpu: &Vcpu| {
            let fd = vcpu.parked()?;
            VcpuState::save(&fd, &self.msrs, vcpu.shared.start_tsc(), vcpu.shared.changes())
        };
        let vcpus = self.vcpus.iter().map(one).collect::<Result<_, _>>()?;
        Ok(GuestState { spec: digest(&self.spec), tsc_khz: self.boot.tsc_khz(), vcpus })
    }

    /// How far a paused guest has got: what the replay needs.
    ///
    /// # Errors
    /// When it is not paused, or the kernel refuses.
    pub fn progress(&self) -> Result<Progress, ExecError> {
        let one = |vcpu: &Vcpu| {
            let regs = vcpu.parked()?.get_regs().map_err(kernel("KVM_GET_REGS"))?;
            let stores = code::stores_done(regs.rip.wrapping_sub(boot::BASE));
            Ok(VcpuProgress { step: regs.r15, stores, changes: vcpu.shared.changes() })
        };
        Ok(Progress { vcpus: self.vcpus.iter().map(one).collect::<Result<_, ExecError>>()? })
    }

    /// Starts logging writes; every page counts as dirty until it is collected.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn track_dirty(&self) -> Result<DirtyTracker, ExecError> {
        DirtyTracker::start(self.vm.clone(), self.memory.clone(), self.manual_clear)
    }

    /// Whether code, page tables and phase tables are as they were made.
    ///
    /// # Errors
    /// When there is no memory to compare with.
    pub fn boot_is_intact(&self) -> Result<bool, ExecError> {
        self.boot.is_intact(&self.spec, &self.tables, self.boot.tsc_khz())
    }
}

impl GuestSpec {
    /// The seed of a vCPU's steps.
    pub(crate) fn vcpu_seed(&self, vcpu: usize) -> u64 {
        mix(self.seed.wrapping_add(GAMMA.wrapping_mul(vcpu as u64 + 1)))
    }
}

/// Opens /dev/kvm.
fn open_kvm() -> Result<Kvm, ExecError> {
    Kvm::new().map_err(|e| ExecError::NoKvm(std::io::Error::from_raw_os_error(e.errno())))
}

/// Whether this machine can run guests.
///
/// # Errors
/// Why not.
pub fn kvm_available() -> Result<(), ExecError> {
    open_kvm().map(drop)
}

/// Gives a slot its memory and flags.
pub(crate) fn set_slot(vm: &VmFd, slot: u32, address: u64, memory: &GuestMemory, flags: u32) -> Result<(), ExecError> {
    let range = memory.range(PageIndex(0), memory.pages())?;
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: address,
        memory_size: Bytes::from_pages(memory.pages()).0,
        userspace_addr: range.cast::<u8>() as u64,
    };
    // SAFETY: the memory is mapped, belongs to a guest alone, and is kept alive by every thread that runs it.
    unsafe { vm.set_user_memory_region(region) }.map_err(kernel("KVM_SET_USER_MEMORY_REGION"))
}

/// Lets dirty pages be read without being cleared, where the kernel has it (5.1 and later).
fn enable_manual_clear(vm: &VmFd) -> bool {
    use kvm_bindings::{KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE};
    let offered = vm.check_extension_raw(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.into());
    let wanted = u32::try_from(offered).unwrap_or(0) & (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
    let mut cap = kvm_enable_cap { cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ..Default::default() };
    cap.args[0] = wanted.into();
    wanted & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE != 0 && vm.enable_cap(&cap).is_ok()
}

/// Puts a vCPU at the first instruction; returns its clock.
fn set_initial_state(fd: &VcpuFd, cpuid: &CpuId, spec: &GuestSpec, boot: &Boot, vcpu: usize) -> Result<u64, ExecError> {
    fd.set_cpuid2(cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    let sregs = fd.get_sregs().map_err(kernel("KVM_GET_SREGS"))?;
    fd.set_sregs(&long_mode(sregs, boot)).map_err(kernel("KVM_SET_SREGS"))?;
    let clock = state::clock(fd)?;
    let regs = kvm_regs {
        rip: boot::BASE,
        // I/O privilege level 3, so that port access at CPL 3 is allowed; bit 1 is always set.
        rflags: 0x3002,
        r11: clock,
        r12: clock,
        r13: boot.block(vcpu, 0),
        r14: boot.control(vcpu),
        rbp: spec.vcpu_seed(vcpu),
        ..Default::default()
    };
    fd.set_regs(&regs).map_err(kernel("KVM_SET_REGS"))?;
    Ok(clock)
}

/// Long mode at CPL 3 with flat segments.
fn long_mode(mut sregs: kvm_sregs, boot: &Boot) -> kvm_sregs {
    let segment = |selector, type_, l| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1 - l,
        s: 1,
        l,
        g: 1,
        ..Default::default()
    };
    sregs.cs = segment(0x1b, 11, 1);
    let data = segment(0x23, 3, 0);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // The task state segment is there for its map of allowed ports: software virtualization loses the privilege level of ports.
    sregs.tr = kvm_segment { base: boot.task_state(), limit: boot::TASK_STATE_LIMIT, type_: 11, present: 1, ..Default::default() };
    sregs.cr3 = boot.root();
    sregs.cr0 = 0x8000_0033; // paging, numeric error, extension type, monitor coprocessor, protection
    sregs.cr4 = 0x20; // physical address extension
    sregs.efer = 0x500; // long mode enabled and active
    sregs
}

fn digest(spec: &GuestSpec) -> u64 {
    xxh3_64(&spec.to_bytes())
}

/// Turns an error of kvm-ioctls into ours.
fn kernel(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> ExecError {
    move |e| ExecError::errno(call, e.errno())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;

    #[test]
    fn a_vcpu_that_leaves_its_program_is_reported() {
        if let Err(e) = kvm_available() {
            return println!("skipped: {e}");
        }
        let phases = vec![Phase { until: None, regions: Vec::new() }];
        let spec = GuestSpec { memory: Bytes::from_mib(2), vcpus: 2, seed: 1, content: Content::new(1), phases };
        let guest = Guest::new(&spec, Arc::new(GuestMemory::allocate(spec.memory, false).unwrap())).unwrap();
        assert!(guest.boot_is_intact().unwrap());
        // An address that is not mapped: the guest faults, and has nothing to handle faults with.
        guest.boot.write_control(1, control::PHASE, 1 << 46);
        guest.resume();
        let deadline = Instant::now() + Duration::from_secs(20);
        while guest.check().is_ok() {
            assert!(Instant::now() < deadline, "nothing is reported");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(guest.check(), Err(ExecError::Vcpu { vcpu: 1, .. })));
        assert!(matches!(guest.pause(Duration::from_secs(20)), Err(ExecError::Vcpu { vcpu: 1, .. })));
        // What the guest's own tables must hold is not what it finds when somebody has been at them.
        guest.boot.memory.discard(PageIndex(0), 1).unwrap();
        assert!(!guest.boot_is_intact().unwrap());
    }
}
