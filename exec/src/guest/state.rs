//! The complete state of a vCPU, taken, put back, and as bytes.

use super::vcpu::{MAX_CHANGES, PhaseChange};
use crate::codec::{Reader, Writer};
use crate::error::ExecError;
use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr};
use kvm_ioctls::{Kvm, VcpuFd};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Instant;

const MAGIC: u32 = u32::from_le_bytes(*b"LMVS");
const VERSION: u16 = 1;
const MAX_MSRS: usize = 1024;

const MSR_TSC: u32 = 0x10;
/// MSRs that are the clock's or the timer's: the clock is handled by itself, and the guest has no timer.
const CLOCK_MSRS: [u32; 3] = [MSR_TSC, 0x3b, 0x6e0];

/// Kernel structures that are plain integers without hidden padding: any bytes of their size are a value.
///
/// # Safety
/// Implementors must be exactly that.
unsafe trait Plain: Sized {
    fn encode(&self, w: &mut Writer) {
        // SAFETY: the implementor is `size_of` initialised bytes.
        w.raw(unsafe { std::slice::from_raw_parts((&raw const *self).cast::<u8>(), size_of::<Self>()) });
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, ExecError> {
        let bytes = r.raw(size_of::<Self>())?;
        let mut value = MaybeUninit::<Self>::uninit();
        // SAFETY: as many bytes as the value has are copied into it, and any bytes are a value.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), bytes.len());
            Ok(value.assume_init())
        }
    }
}

// SAFETY: integers and explicit padding only, as laid down in the kernel's interface; the tests check the sizes.
unsafe impl Plain for kvm_regs {}
// SAFETY: as above.
unsafe impl Plain for kvm_sregs {}
// SAFETY: as above.
unsafe impl Plain for kvm_debugregs {}
// SAFETY: as above.
unsafe impl Plain for kvm_vcpu_events {}
// SAFETY: as above.
unsafe impl Plain for kvm_xcrs {}
// SAFETY: an array of integers.
unsafe impl Plain for XsaveArea {}
// SAFETY: as above.
unsafe impl Plain for kvm_mp_state {}
// SAFETY: as above.
unsafe impl Plain for kvm_msr_entry {}
// SAFETY: as above.
unsafe impl Plain for kvm_cpuid_entry2 {}

/// FPU and vector registers in the processor's format.
type XsaveArea = [u32; 1024];

/// A paused guest without its memory.
#[derive(Clone, Debug)]
pub struct GuestState {
    /// Digest of the specification it belongs to.
    pub(super) spec: u64,
    /// Frequency of its clock in kHz.
    pub(super) tsc_khz: u32,
    pub(super) vcpus: Vec<VcpuState>,
}

/// One vCPU of it.
#[derive(Clone, Debug)]
pub(super) struct VcpuState {
    pub(super) regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: XsaveArea,
    xcrs: kvm_xcrs,
    debugregs: kvm_debugregs,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<kvm_msr_entry>,
    /// The clock at the moment of saving.
    tsc: u64,
    /// The clock when the phases began.
    pub(super) start_tsc: u64,
    pub(super) changes: Vec<PhaseChange>,
}

impl GuestState {
    /// The state as bytes: versioned, with a checksum. About 8 KiB per vCPU.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new(MAGIC, VERSION);
        w.u64(self.spec);
        w.u32(self.tsc_khz);
        w.count(self.vcpus.len());
        for vcpu in &self.vcpus {
            vcpu.encode(&mut w);
        }
        w.finish()
    }

    /// The state that [`GuestState::to_bytes`] wrote.
    ///
    /// # Errors
    /// Anything else than such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<GuestState, ExecError> {
        let mut r = Reader::new("guest state", bytes, MAGIC, VERSION)?;
        let spec = r.u64()?;
        let tsc_khz = r.u32()?;
        if tsc_khz == 0 {
            return Err(r.fault("a clock that stands still"));
        }
        let vcpus = (0..r.count(super::spec::MAX_VCPUS as usize)?).map(|_| VcpuState::decode(&mut r)).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(GuestState { spec, tsc_khz, vcpus })
    }
}

impl VcpuState {
    /// Takes the state of a stopped vCPU. `msrs` are those that can be read here.
    pub(super) fn save(fd: &VcpuFd, msrs: &[u32], start_tsc: u64, changes: Vec<PhaseChange>) -> Result<VcpuState, ExecError> {
        let fail = |call| move |e: kvm_ioctls::Error| ExecError::errno(call, e.errno());
        Ok(VcpuState {
            regs: fd.get_regs().map_err(fail("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(fail("KVM_GET_SREGS"))?,
            xsave: fd.get_xsave().map_err(fail("KVM_GET_XSAVE"))?.region,
            xcrs: fd.get_xcrs().map_err(fail("KVM_GET_XCRS"))?,
            debugregs: fd.get_debug_regs().map_err(fail("KVM_GET_DEBUGREGS"))?,
            events: fd.get_vcpu_events().map_err(fail("KVM_GET_VCPU_EVENTS"))?,
            mp_state: fd.get_mp_state().map_err(fail("KVM_GET_MP_STATE"))?,
            cpuid: fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(fail("KVM_GET_CPUID2"))?.as_slice().to_vec(),
            msrs: read_msrs(fd, msrs)?,
            tsc: clock(fd)?,
            start_tsc,
            changes,
        })
    }

    /// Puts the state into a vCPU that has never run; its clock goes on as if it had been running since `saved_at`.
    pub(super) fn restore(&self, fd: &VcpuFd, tsc_khz: u32, saved_at: Instant) -> Result<(), ExecError> {
        let fail = |call| move |e: kvm_ioctls::Error| ExecError::errno(call, e.errno());
        let cpuid = CpuId::from_entries(&self.cpuid).map_err(|_| ExecError::State("too many CPUID entries".to_owned()))?;
        fd.set_cpuid2(&cpuid).map_err(fail("KVM_SET_CPUID2"))?;
        set_frequency(fd, tsc_khz)?;
        fd.set_sregs(&self.sregs).map_err(fail("KVM_SET_SREGS"))?;
        fd.set_xcrs(&self.xcrs).map_err(fail("KVM_SET_XCRS"))?;
        let xsave = kvm_xsave { region: self.xsave, ..Default::default() };
        // SAFETY: the guest has no state component that is switched on on demand, so the kernel reads the 4 KiB of the
        // structure and no more.
        unsafe { fd.set_xsave(&xsave) }.map_err(fail("KVM_SET_XSAVE"))?;
        fd.set_regs(&self.regs).map_err(fail("KVM_SET_REGS"))?;
        fd.set_debug_regs(&self.debugregs).map_err(fail("KVM_SET_DEBUGREGS"))?;
        write_msrs(fd, &self.msrs)?;
        fd.set_vcpu_events(&self.events).map_err(fail("KVM_SET_VCPU_EVENTS"))?;
        fd.set_mp_state(self.mp_state).map_err(fail("KVM_SET_MP_STATE"))?;
        let ticks = saved_at.elapsed().as_nanos() * u128::from(tsc_khz) / 1_000_000;
        set_clock(fd, self.tsc.wrapping_add(ticks as u64))
    }

    fn encode(&self, w: &mut Writer) {
        self.regs.encode(w);
        self.sregs.encode(w);
        self.xsave.encode(w);
        self.xcrs.encode(w);
        self.debugregs.encode(w);
        self.events.encode(w);
        self.mp_state.encode(w);
        w.count(self.cpuid.len());
        self.cpuid.iter().for_each(|entry| entry.encode(w));
        w.count(self.msrs.len());
        self.msrs.iter().for_each(|entry| entry.encode(w));
        w.u64(self.tsc);
        w.u64(self.start_tsc);
        w.count(self.changes.len());
        for change in &self.changes {
            w.u64(change.step);
            w.u32(change.phase);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<VcpuState, ExecError> {
        let state = VcpuState {
            regs: kvm_regs::decode(r)?,
            sregs: kvm_sregs::decode(r)?,
            xsave: XsaveArea::decode(r)?,
            xcrs: kvm_xcrs::decode(r)?,
            debugregs: kvm_debugregs::decode(r)?,
            events: kvm_vcpu_events::decode(r)?,
            mp_state: kvm_mp_state::decode(r)?,
            cpuid: (0..r.count(KVM_MAX_CPUID_ENTRIES)?).map(|_| kvm_cpuid_entry2::decode(r)).collect::<Result<_, _>>()?,
            msrs: (0..r.count(MAX_MSRS)?).map(|_| kvm_msr_entry::decode(r)).collect::<Result<_, _>>()?,
            tsc: r.u64()?,
            start_tsc: r.u64()?,
            changes: (0..r.count(MAX_CHANGES)?)
                .map(|_| Ok(PhaseChange { step: r.u64()?, phase: r.u32()? }))
                .collect::<Result<Vec<_>, ExecError>>()?,
        };
        let in_order = state.changes.windows(2).all(|w| w[0].step <= w[1].step);
        if state.changes.first().is_none_or(|change| change.step != 0) || !in_order {
            return Err(r.fault("phases out of order"));
        }
        if state.xcrs.nr_xcrs as usize > state.xcrs.xcrs.len() {
            return Err(r.fault("more extended control registers than there are"));
        }
        Ok(state)
    }
}

/// The MSRs that this vCPU lets be read, but for its clock.
pub(super) fn readable_msrs(kvm: &Kvm, fd: &VcpuFd) -> Result<Vec<u32>, ExecError> {
    let list = kvm.get_msr_index_list().map_err(|e| ExecError::errno("KVM_GET_MSR_INDEX_LIST", e.errno()))?;
    let readable = |&index: &u32| !CLOCK_MSRS.contains(&index) && read_msrs(fd, &[index]).is_ok_and(|read| read.len() == 1);
    Ok(list.as_slice().iter().copied().filter(readable).take(MAX_MSRS).collect())
}

fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, ExecError> {
    let entries: Vec<kvm_msr_entry> = indices.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
    let mut msrs = Msrs::from_entries(&entries).map_err(|_| ExecError::State("too many MSRs".to_owned()))?;
    let read = fd.get_msrs(&mut msrs).map_err(|e| ExecError::errno("KVM_GET_MSRS", e.errno()))?;
    if read < indices.len() {
        return Err(ExecError::State(format!("MSR {:#x} cannot be read", indices[read])));
    }
    Ok(msrs.as_slice().to_vec())
}

/// Writes MSRs. One that cannot be written is passed over if it has the value already.
fn write_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), ExecError> {
    let mut rest = entries;
    while !rest.is_empty() {
        let msrs = Msrs::from_entries(rest).map_err(|_| ExecError::State("too many MSRs".to_owned()))?;
        let written = fd.set_msrs(&msrs).map_err(|e| ExecError::errno("KVM_SET_MSRS", e.errno()))?;
        let Some(refused) = rest.get(written) else { break };
        let has = read_msrs(fd, &[refused.index]).is_ok_and(|there| there[0].data == refused.data);
        if !has {
            return Err(ExecError::State(format!("MSR {:#x} cannot be set to {:#x} here", refused.index, refused.data)));
        }
        rest = &rest[written + 1..];
    }
    Ok(())
}

/// The guest's clock now.
pub(super) fn clock(fd: &VcpuFd) -> Result<u64, ExecError> {
    Ok(read_msrs(fd, &[MSR_TSC])?[0].data)
}

/// Frequencies that differ by less are the same: measurements of one crystal scatter this much between boots.
const SAME_FREQUENCY: f64 = 250e-6;

fn set_frequency(fd: &VcpuFd, khz: u32) -> Result<(), ExecError> {
    let here = fd.get_tsc_khz().map_err(|e| ExecError::errno("KVM_GET_TSC_KHZ", e.errno()))?;
    if (f64::from(here) / f64::from(khz) - 1.0).abs() <= SAME_FREQUENCY {
        return Ok(());
    }
    fd.set_tsc_khz(khz)
        .map_err(|_| ExecError::State(format!("its clock runs at {khz} kHz, this machine's at {here} kHz without scaling")))
}

/// Sets the clock exactly. Writing the MSR is not exact: KVM takes a write within a second of what it expects for an attempt to
/// synchronise vCPUs. So the offset is moved where the kernel has it (5.16 and later).
fn set_clock(fd: &VcpuFd, tsc: u64) -> Result<(), ExecError> {
    // The kernel reads and writes it behind the compiler's back.
    let offset = Cell::new(0u64);
    let attr =
        kvm_device_attr { group: KVM_VCPU_TSC_CTRL, attr: u64::from(KVM_VCPU_TSC_OFFSET), addr: offset.as_ptr() as u64, flags: 0 };
    if device_attr(fd, KVM_HAS_DEVICE_ATTR, &attr).is_err() {
        return write_msrs(fd, &[kvm_msr_entry { index: MSR_TSC, data: tsc, ..Default::default() }]);
    }
    device_attr(fd, KVM_GET_DEVICE_ATTR, &attr)?;
    offset.set(offset.get().wrapping_add(tsc.wrapping_sub(clock(fd)?)));
    device_attr(fd, KVM_SET_DEVICE_ATTR, &attr)
}

// `_IOW(0xAE, nr, struct kvm_device_attr)`; kvm-ioctls has them for devices and, on another architecture, for vCPUs.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const KVM_GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;
const KVM_HAS_DEVICE_ATTR: libc::c_ulong = 0x4018_aee3;

fn device_attr(fd: &VcpuFd, request: libc::c_ulong, attr: &kvm_device_attr) -> Result<(), ExecError> {
    // SAFETY: the attribute's address is that of a live word of the caller, the size that this attribute has.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, attr) } == 0 { Ok(()) } else { Err(ExecError::last("KVM_VCPU_TSC_OFFSET")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_structures_have_no_hidden_padding() {
        // Sizes from the kernel's interface; they are the sums of the fields.
        assert_eq!(size_of::<kvm_regs>(), 18 * 8);
        assert_eq!(size_of::<kvm_sregs>(), 8 * 24 + 2 * 16 + 7 * 8 + 4 * 8);
        assert_eq!(size_of::<XsaveArea>(), size_of::<kvm_xsave>());
        assert_eq!(size_of::<kvm_xcrs>(), 2 * 4 + 16 * 16 + 16 * 8);
        assert_eq!(size_of::<kvm_debugregs>(), 16 * 8);
        assert_eq!(size_of::<kvm_vcpu_events>(), 8 + 4 + 4 + 4 + 4 + 4 + 1 + 26 + 1 + 8);
        assert_eq!(size_of::<kvm_mp_state>(), 4);
        assert_eq!(size_of::<kvm_msr_entry>(), 16);
        assert_eq!(size_of::<kvm_cpuid_entry2>(), 40);
    }
}
