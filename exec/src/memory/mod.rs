//! A guest's memory, the log of what it writes, and faults on what is not there yet.
//!
//! [`GuestMemory`] is shared between vCPUs that write to it whenever they run and host threads that copy from and to it. No
//! reference into it is made before the guest has gone for good; until then all access is by copying through raw pointers, as with
//! memory that a device writes. A copy taken while the guest runs may be torn; it is the dirty log's business to say that it must be
//! taken again.

mod dirty;
mod uffd;
mod window;

pub use dirty::DirtyTracker;
pub(crate) use dirty::runs_of;
pub use uffd::{Fault, Userfault};
pub(crate) use window::Windows;

use crate::content::{Page, WORDS};
use crate::error::ExecError;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory of this process, 2 MiB aligned, not backed until it is touched.
#[derive(Debug)]
pub struct GuestMemory {
    base: *mut u8,
    pages: u64,
    /// Where it lies in a file without a name; otherwise it is anonymous and private.
    file: Option<OwnedFd>,
    /// Nobody writes to it any more.
    still: AtomicBool,
}

/// Where pages are read.
pub(crate) trait ReadPages {
    /// Copies a page out.
    ///
    /// # Panics
    /// When it is not there.
    fn read_page(&self, page: PageIndex, into: &mut Page);

    /// Whether the page is all zeros just now.
    ///
    /// # Panics
    /// When it is not there.
    fn is_zero(&self, page: PageIndex) -> bool;

    /// Pages to be read where they are; `None` as long as somebody may write to them, or if they are not there in a row.
    fn still(&self, _: Extent) -> Option<&[u8]> {
        None
    }
}

// SAFETY: the mapping belongs to this value alone and lives as long as it; all access goes through raw copies, which the module
// head allows to race with the guest.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

const ALIGN: usize = 2 << 20;

impl GuestMemory {
    /// Memory of `bytes`, rounded up to whole pages; all zero, none of it backed. With `huge`, the kernel is asked for 2 MiB
    /// pages, which make filling and running faster and missing-page faults impossible to tell apart below 2 MiB: not for
    /// memory that is to be registered with [`Userfault`].
    ///
    /// # Errors
    /// When the kernel does not give it.
    pub fn allocate(bytes: Bytes, huge: bool) -> Result<GuestMemory, ExecError> {
        let pages = bytes.pages();
        let len = usize::try_from(pages * PAGE_SIZE).map_err(|_| ExecError::Spec(format!("memory of {bytes}")))?;
        let padded = len.checked_add(ALIGN).ok_or_else(|| ExecError::Spec(format!("memory of {bytes}")))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), padded, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(ExecError::last("mmap of guest memory"));
        }
        let front = (start as usize).next_multiple_of(ALIGN) - start as usize;
        // SAFETY: both cuts are page aligned and inside the mapping just made, outside of the part that is kept.
        let base = unsafe {
            let base = start.cast::<u8>().add(front);
            if front > 0 {
                libc::munmap(start, front);
            }
            if ALIGN > front {
                libc::munmap(base.add(len).cast(), ALIGN - front);
            }
            base
        };
        let memory = GuestMemory { base, pages, file: None, still: AtomicBool::new(false) };
        memory.advise(PageIndex(0), pages, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE })?;
        Ok(memory)
    }

    /// The same in a file without a name, of which parts can be mapped a second time; in pages of 4 KiB, so that a mapping has an
    /// entry for each.
    ///
    /// # Errors
    /// When the kernel does not give it.
    pub(crate) fn in_file(bytes: Bytes) -> Result<GuestMemory, ExecError> {
        let mut memory = GuestMemory::allocate(bytes, false)?;
        let len = memory.range(PageIndex(0), memory.pages)?.len();
        // SAFETY: the name is a string that ends with a zero.
        let fd = unsafe { libc::memfd_create(c"guest memory".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(ExecError::last("memfd_create"));
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let end = libc::off_t::try_from(len).map_err(|_| ExecError::Spec(format!("memory of {bytes}")))?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::ftruncate(file.as_raw_fd(), end) } != 0 {
            return Err(ExecError::last("ftruncate of guest memory"));
        }
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it takes the place of the mapping just made, to which nobody has a pointer yet, and of nothing else.
        if unsafe { libc::mmap(memory.base.cast(), len, protection, flags, file.as_raw_fd(), 0) } == libc::MAP_FAILED {
            return Err(ExecError::last("mmap of guest memory"));
        }
        memory.file = Some(file);
        memory.advise(PageIndex(0), memory.pages, libc::MADV_NOHUGEPAGE)?;
        Ok(memory)
    }

    /// Whether it lies in a file, and parts of it can be mapped a second time.
    pub(crate) fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Where `pages` pages from `first` on lie, for vectored I/O straight from and to the guest. Valid as long as `self`; the
    /// guest may write there at any time.
    ///
    /// # Errors
    /// When they are not all inside memory.
    pub fn range(&self, first: PageIndex, pages: u64) -> Result<*mut [u8], ExecError> {
        if first.0.checked_add(pages).is_none_or(|end| end > self.pages) {
            return Err(ExecError::OutOfMemoryRange { first, pages, memory: self.pages });
        }
        // SAFETY: the offset was checked to be inside the mapping, or just behind it for no pages.
        let start = unsafe { self.base.add((first.0 * PAGE_SIZE) as usize) };
        Ok(ptr::slice_from_raw_parts_mut(start, (pages * PAGE_SIZE) as usize))
    }

    /// Nobody writes to it any more, ever: its guest runs elsewhere.
    pub(crate) fn keep_still(&self) {
        self.still.store(true, Ordering::Release);
    }

    /// Copies a page out.
    ///
    /// # Panics
    /// When it is not inside memory.
    pub fn read_page(&self, page: PageIndex, into: &mut Page) {
        // SAFETY: `words` is a whole page inside the mapping.
        unsafe { copy_words(self.words(page), into) };
    }

    /// Copies a page in.
    ///
    /// # Panics
    /// When it is not inside memory.
    pub fn write_page(&self, page: PageIndex, from: &Page) {
        let into = self.words(page);
        // SAFETY: `words` is a whole page inside the mapping, and `from` is another page.
        unsafe { ptr::copy_nonoverlapping(from.0.as_ptr(), into, WORDS) };
    }

    /// Whether the page is all zeros just now.
    ///
    /// # Panics
    /// When it is not inside memory.
    #[must_use]
    pub fn is_zero(&self, page: PageIndex) -> bool {
        // SAFETY: `words` is a whole page inside the mapping.
        unsafe { is_zero_at(self.words(page)) }
    }

    /// Drops pages: they read as zeros, or are missing again where faults are registered.
    ///
    /// # Errors
    /// When they are not inside memory, or the kernel refuses.
    pub fn discard(&self, first: PageIndex, pages: u64) -> Result<(), ExecError> {
        // What is in a file stays there when it is only not needed.
        self.advise(first, pages, if self.is_in_file() { libc::MADV_REMOVE } else { libc::MADV_DONTNEED })
    }

    /// Lets the kernel make huge pages of small ones, in time.
    pub(crate) fn allow_huge_pages(&self) {
        // Advice about huge pages never fails.
        let _ = self.advise(PageIndex(0), self.pages, libc::MADV_HUGEPAGE);
    }

    fn advise(&self, first: PageIndex, pages: u64, advice: libc::c_int) -> Result<(), ExecError> {
        let range = self.range(first, pages)?;
        // SAFETY: the range is inside this mapping, and none of the advices used here takes it away.
        let result = unsafe { libc::madvise(range.cast(), range.len(), advice) };
        // A kernel without huge pages refuses advice about them, which changes nothing.
        if result == 0 || advice == libc::MADV_HUGEPAGE || advice == libc::MADV_NOHUGEPAGE {
            return Ok(());
        }
        Err(ExecError::last("madvise of guest memory"))
    }

    fn words(&self, page: PageIndex) -> *mut u64 {
        assert!(page.0 < self.pages, "page {} of {}", page.0, self.pages);
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.add((page.0 * PAGE_SIZE) as usize).cast() }
    }
}

impl ReadPages for GuestMemory {
    fn read_page(&self, page: PageIndex, into: &mut Page) {
        GuestMemory::read_page(self, page, into);
    }

    fn is_zero(&self, page: PageIndex) -> bool {
        GuestMemory::is_zero(self, page)
    }

    fn still(&self, extent: Extent) -> Option<&[u8]> {
        let range = self.range(extent.first, extent.pages).ok()?;
        // SAFETY: the range is inside the mapping, which lives as long as `self`; nobody writes to it.
        self.still.load(Ordering::Acquire).then(|| unsafe { &*range.cast_const() })
    }
}

/// Copies a page.
///
/// # Safety
/// `from` must be a whole page of mapped memory; the guest may be writing it.
unsafe fn copy_words(from: *const u64, into: &mut Page) {
    // SAFETY: as the caller says, and `into` is another page.
    unsafe { ptr::copy_nonoverlapping(from, into.0.as_mut_ptr(), WORDS) };
}

/// Whether a page is all zeros.
///
/// # Safety
/// `from` must be a whole page of mapped memory; the guest may be writing it.
unsafe fn is_zero_at(from: *const u64) -> bool {
    let line = |at: usize| {
        // SAFETY: the eight words from `at` on are inside the page; volatile, since the guest may be writing them.
        (at..at + 8).fold(0, |bits, i| bits | unsafe { from.add(i).read_volatile() })
    };
    (0..WORDS).step_by(8).all(|at| line(at) == 0)
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody else holds on to it: vCPUs keep a reference to the value.
        unsafe { libc::munmap(self.base.cast(), (self.pages * PAGE_SIZE) as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_where_they_should_be_and_nowhere_else() {
        let memory = GuestMemory::allocate(Bytes(5 * 4096 - 1), false).unwrap();
        assert_eq!(memory.pages(), 5);
        let mut page = Page::ZERO;
        page.0[511] = 7;
        assert!(memory.is_zero(PageIndex(4)));
        memory.write_page(PageIndex(4), &page);
        assert!(!memory.is_zero(PageIndex(4)) && memory.is_zero(PageIndex(3)));
        let mut back = Page::ZERO;
        memory.read_page(PageIndex(4), &mut back);
        assert_eq!(back, page);
        memory.discard(PageIndex(4), 1).unwrap();
        assert!(memory.is_zero(PageIndex(4)));
        assert_eq!(memory.range(PageIndex(3), 2).unwrap().len(), 8192);
        assert!(memory.range(PageIndex(4), 2).is_err() && memory.range(PageIndex(u64::MAX), 2).is_err());
        assert!(memory.discard(PageIndex(5), 1).is_err());
    }

    #[test]
    #[should_panic(expected = "page 5 of 5")]
    fn a_page_beyond_memory_is_a_bug() {
        let memory = GuestMemory::allocate(Bytes::from_pages(5), false).unwrap();
        let _ = memory.is_zero(PageIndex(5));
    }
}
