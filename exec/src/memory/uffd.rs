//! Faults on pages that are not there yet: thin bindings of Linux' userfaultfd (see `userfaultfd(2)`, `ioctl_userfaultfd(2)`).

use super::GuestMemory;
use crate::content::Page;
use crate::error::ExecError;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

// Numbers of linux/userfaultfd.h: `_IOWR(0xAA, nr, struct)`, `_IOR` for wake and unregister.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
/// `_IO(0xAA, 0)` of /dev/userfaultfd.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;

const UFFD_API: u64 = 0xaa;
const REGISTER_MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1;
/// Ioctls that a registered range must offer: wake, copy, zeropage (bits are the numbers above).
const NEEDED: u64 = 1 << 2 | 1 << 3 | 1 << 4;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    zeropage: i64,
}

/// `struct uffd_msg` with the fields of a page fault.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

/// Messages read in one go.
const MESSAGES: usize = 64;

/// A fault of a vCPU, or of a host thread, on a missing page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page.
    pub page: PageIndex,
    /// Whether it was a write. KVM may ask for write access on a read.
    pub write: bool,
}

/// Watches all of a guest's memory: access to a page that is not there waits until the page is placed.
///
/// Dropping it ends the watch: pages that are still missing read as zeros from then on, so a destination that lost its source
/// must stop the guest first.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
    memory: Arc<GuestMemory>,
}

impl Userfault {
    /// Watches `memory`. Pages that are there already stay there.
    ///
    /// # Errors
    /// When the kernel does not let this process watch faults that KVM makes: it needs root, `CAP_SYS_PTRACE`, access to
    /// /dev/userfaultfd, or `vm.unprivileged_userfaultfd = 1`.
    pub fn watch(memory: Arc<GuestMemory>) -> Result<Userfault, ExecError> {
        let fd = open()?;
        let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
        ioctl(&fd, "UFFDIO_API", UFFDIO_API, &raw mut api)?;
        memory.advise(PageIndex(0), memory.pages(), libc::MADV_NOHUGEPAGE)?;
        let range = range_of(&memory, PageIndex(0), memory.pages())?;
        let mut register = Register { range, mode: REGISTER_MODE_MISSING, ioctls: 0 };
        ioctl(&fd, "UFFDIO_REGISTER", UFFDIO_REGISTER, &raw mut register)?;
        if register.ioctls & NEEDED != NEEDED {
            return Err(ExecError::errno("UFFDIO_REGISTER without copy, zeropage and wake", libc::EOPNOTSUPP));
        }
        Ok(Userfault { fd, memory })
    }

    /// Waits at most `limit` for faults and adds them to `faults`; how many there were. At most 64 at a time. A vCPU that is
    /// kicked while it waits faults on the same page again.
    ///
    /// # Errors
    /// When the kernel refuses, or reports what was not asked for.
    pub fn read_faults(&self, limit: Duration, faults: &mut Vec<Fault>) -> Result<usize, ExecError> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, alive during the call.
        if unsafe { libc::poll(&raw mut poll, 1, millis) } < 0 {
            return interrupted_or("poll of userfaultfd");
        }
        if poll.revents & (libc::POLLERR | libc::POLLNVAL) != 0 {
            return Err(ExecError::errno("poll of userfaultfd", libc::EIO));
        }
        let mut messages = [Message::default(); MESSAGES];
        // SAFETY: the kernel writes at most the size of the array, and any bytes are a message.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), messages.as_mut_ptr().cast(), size_of_val(&messages)) };
        let Ok(bytes) = usize::try_from(read) else { return interrupted_or("read of userfaultfd") };
        let messages = &messages[..bytes / size_of::<Message>()];
        for message in messages {
            faults.push(self.fault(message)?);
        }
        Ok(messages.len())
    }

    /// Places neighbouring pages, and wakes whoever waits for them; pages that are there already are left as they are. How
    /// many were not there.
    ///
    /// # Errors
    /// Pages beyond memory, or what the kernel refuses.
    pub fn place(&self, first: PageIndex, contents: &[Page]) -> Result<u64, ExecError> {
        self.place_or(first, contents, |_, _| {})
    }

    /// Places neighbouring pages, and overwrites those that are there already: for memory that nobody accesses. This is the cheapest
    /// way to fill memory that was never touched, for no page is cleared first and there is no fault for each.
    ///
    /// # Errors
    /// Pages beyond memory, or what the kernel refuses.
    pub fn fill(&self, first: PageIndex, contents: &[Page]) -> Result<(), ExecError> {
        self.place_or(first, contents, |page, content| self.memory.write_page(page, content)).map(drop)
    }

    fn place_or(&self, first: PageIndex, contents: &[Page], there: impl Fn(PageIndex, &Page)) -> Result<u64, ExecError> {
        let range = self.range(first, contents.len() as u64)?;
        let (mut done, mut fresh) = (0, 0);
        while let Some(rest) = contents.get(done..).filter(|rest| !rest.is_empty()) {
            let dst = range.start + done as u64 * PAGE_SIZE;
            let mut copy = Copy { dst, src: rest.as_ptr() as u64, len: size_of_val(rest) as u64, mode: 0, copy: 0 };
            let result = ioctl(&self.fd, "UFFDIO_COPY", UFFDIO_COPY, &raw mut copy);
            let copied = u64::try_from(copy.copy).unwrap_or(0) / PAGE_SIZE;
            done += copied as usize;
            fresh += copied;
            let at = PageIndex(first.0 + done as u64);
            if self.settle(at, result)? {
                there(at, &contents[done]);
                done += 1;
            }
        }
        Ok(fresh)
    }

    /// Places neighbouring pages of zeros, and wakes whoever waits for them; pages that are there already are left as they are. How
    /// many were not there.
    ///
    /// # Errors
    /// Pages beyond memory, or what the kernel refuses.
    pub fn place_zeros(&self, first: PageIndex, pages: u64) -> Result<u64, ExecError> {
        let (mut done, mut fresh) = (0, 0);
        while done < pages {
            let at = PageIndex(first.0 + done);
            let mut zero = ZeroPage { range: self.range(at, pages - done)?, mode: 0, zeropage: 0 };
            let result = ioctl(&self.fd, "UFFDIO_ZEROPAGE", UFFDIO_ZEROPAGE, &raw mut zero);
            let placed = u64::try_from(zero.zeropage).unwrap_or(0) / PAGE_SIZE;
            done += placed;
            fresh += placed;
            if self.settle(PageIndex(first.0 + done), result)? {
                done += 1;
            }
        }
        Ok(fresh)
    }

    /// Lets whoever waits for these pages try again.
    ///
    /// # Errors
    /// Pages beyond memory, or what the kernel refuses.
    pub fn wake(&self, first: PageIndex, pages: u64) -> Result<(), ExecError> {
        let mut range = self.range(first, pages)?;
        ioctl(&self.fd, "UFFDIO_WAKE", UFFDIO_WAKE, &raw mut range)
    }

    /// Whether placing stopped at `page` because it was there; whoever waits for it is woken. Neither success nor a request to
    /// call again is an error.
    fn settle(&self, page: PageIndex, result: Result<(), ExecError>) -> Result<bool, ExecError> {
        let Err(error) = result else { return Ok(false) };
        match errno_of(&error) {
            // The address space was changing, or the call ended early.
            Some(libc::EAGAIN) => Ok(false),
            Some(libc::EEXIST) => self.wake(page, 1).map(|()| true),
            _ => Err(error),
        }
    }

    fn fault(&self, message: &Message) -> Result<Fault, ExecError> {
        let start = self.range(PageIndex(0), 0)?.start;
        let page = message.address.wrapping_sub(start) / PAGE_SIZE;
        if message.event != EVENT_PAGEFAULT || page >= self.memory.pages() {
            return Err(ExecError::errno("an unknown message of userfaultfd", libc::EPROTO));
        }
        Ok(Fault { page: PageIndex(page), write: message.flags & FLAG_WRITE != 0 })
    }

    fn range(&self, first: PageIndex, pages: u64) -> Result<Range, ExecError> {
        range_of(&self.memory, first, pages)
    }
}

impl Drop for Userfault {
    fn drop(&mut self) {
        // Closing does the same; this says it, and wakes whoever waits.
        if let Ok(mut range) = self.range(PageIndex(0), self.memory.pages()) {
            let _ = ioctl(&self.fd, "UFFDIO_UNREGISTER", UFFDIO_UNREGISTER, &raw mut range);
        }
    }
}

fn range_of(memory: &GuestMemory, first: PageIndex, pages: u64) -> Result<Range, ExecError> {
    let range = memory.range(first, pages)?;
    Ok(Range { start: range.cast::<u8>() as u64, len: pages * PAGE_SIZE })
}

/// Opens a userfaultfd that also sees faults made by the kernel on KVM's behalf.
fn open() -> Result<OwnedFd, ExecError> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if let Ok(fd) = i32::try_from(fd).and_then(u32::try_from) {
        // SAFETY: the kernel has just given this descriptor to us.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) });
    }
    let refused = ExecError::last("userfaultfd");
    let Ok(device) = File::options().read(true).write(true).open("/dev/userfaultfd") else { return Err(refused) };
    // SAFETY: this request takes flags and returns a descriptor.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
    if fd < 0 {
        return Err(ExecError::last("USERFAULTFD_IOC_NEW"));
    }
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ioctl<T>(fd: &OwnedFd, call: &'static str, request: libc::c_ulong, argument: *mut T) -> Result<(), ExecError> {
    // SAFETY: each request is called with the structure that it is defined for, alive during the call; memory that it names is
    // inside the guest's mapping.
    if unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) } == 0 { Ok(()) } else { Err(ExecError::last(call)) }
}

fn interrupted_or(call: &'static str) -> Result<usize, ExecError> {
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        Some(libc::EINTR | libc::EAGAIN) => Ok(0),
        _ => Err(ExecError::Kernel { call, source }),
    }
}

fn errno_of(error: &ExecError) -> Option<i32> {
    match error {
        ExecError::Kernel { source, .. } => source.raw_os_error(),
        _ => None,
    }
}
