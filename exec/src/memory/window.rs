//! Windows onto guest memory: parts of it that a thread maps once more while it reads them, and unmaps when it goes on.
//!
//! Song et al. (VEE 2013) migrate from a process that maps what it sends, task by task. To map and to unmap takes the
//! lock of the address space, for which the threads that do so compete: with each other, and with every fault that the lock of its
//! mapping does not serve.

use super::{GuestMemory, ReadPages, copy_words, is_zero_at};
use crate::content::Page;
use crate::error::ExecError;
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::os::fd::AsRawFd;
use std::ptr;

/// The windows of a thread, each of one task.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Pages of a task; at least 1.
    task: u64,
    open: Vec<Window>,
}

/// A part of guest memory that is mapped once more.
#[derive(Debug)]
struct Window {
    task: u64,
    start: *mut u8,
    pages: u64,
}

// SAFETY: the mapping belongs to this value alone and lives as long as it; it is only read, by raw copies.
unsafe impl Send for Window {}

impl Windows {
    /// Windows for tasks of so many pages.
    ///
    /// # Panics
    /// When tasks have no pages.
    pub(crate) fn new(task: u64) -> Windows {
        assert!(task > 0, "tasks of no pages");
        Windows { task, open: Vec::new() }
    }

    /// Maps the tasks of these pages, and unmaps all others. The page tables are filled at once, as they are by mapping the memory of
    /// another machine.
    ///
    /// # Errors
    /// Pages beyond memory, memory that is not in a file, or what the kernel refuses.
    pub(crate) fn cover(&mut self, memory: &GuestMemory, extents: &[Extent]) -> Result<(), ExecError> {
        let mut tasks: Vec<u64> =
            extents.iter().flat_map(|e| e.first.0 / self.task..=(e.first.0 + e.pages - 1) / self.task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        self.open.retain(|window| tasks.binary_search(&window.task).is_ok());
        for task in tasks {
            if !self.open.iter().any(|window| window.task == task) {
                self.open.push(Window::open(memory, task, self.task)?);
            }
        }
        Ok(())
    }

    fn words(&self, page: PageIndex) -> *const u64 {
        let (task, at) = (page.0 / self.task, page.0 % self.task);
        let window = self.open.iter().find(|window| window.task == task).expect("covered before it is read");
        assert!(at < window.pages, "page {} beyond its window", page.0);
        // SAFETY: inside the window's mapping, as just checked.
        unsafe { window.start.add((at * PAGE_SIZE) as usize).cast() }
    }
}

impl ReadPages for Windows {
    fn read_page(&self, page: PageIndex, into: &mut Page) {
        // SAFETY: `words` is a whole page of an open window.
        unsafe { copy_words(self.words(page), into) }
    }

    fn is_zero(&self, page: PageIndex) -> bool {
        // SAFETY: as above.
        unsafe { is_zero_at(self.words(page)) }
    }
}

impl Window {
    fn open(memory: &GuestMemory, task: u64, size: u64) -> Result<Window, ExecError> {
        let first = PageIndex(task * size);
        let pages = size.min(memory.pages().saturating_sub(first.0));
        let len = memory.range(first, pages.max(1))?.len();
        let file = memory.file.as_ref().ok_or_else(|| ExecError::errno("a window onto memory in no file", libc::EBADF))?;
        let offset = libc::off_t::try_from(first.0 * PAGE_SIZE).map_err(|_| ExecError::errno("a window", libc::EOVERFLOW))?;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, flags, file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(ExecError::last("mmap of a window"));
        }
        Ok(Window { task, start: start.cast(), pages })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and `Windows` gives no pointer into it away.
        unsafe { libc::munmap(self.start.cast(), (self.pages * PAGE_SIZE) as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use livemig_core::units::Bytes;

    fn extent(first: u64, pages: u64) -> Extent {
        Extent { first: PageIndex(first), pages }
    }

    #[test]
    fn a_window_shows_what_is_in_memory_now() {
        let memory = GuestMemory::in_file(Bytes::from_pages(100)).unwrap();
        Content::new(5).with_zero_share(0.3).fill(&memory, 1);
        let mut windows = Windows::new(16);
        windows.cover(&memory, &[extent(14, 4), extent(95, 5)]).unwrap();
        assert_eq!(windows.open.iter().map(|w| (w.task, w.pages)).collect::<Vec<_>>(), [(0, 16), (1, 16), (5, 16), (6, 4)]);
        let mut page = Page::ZERO;
        page.0[7] = 1;
        memory.write_page(PageIndex(15), &page);
        for index in (0..32).chain(80..100).map(PageIndex) {
            let (mut seen, mut there) = (Page::ZERO, Page::ZERO);
            windows.read_page(index, &mut seen);
            memory.read_page(index, &mut there);
            assert_eq!(seen, there, "page {index:?}");
            assert_eq!(windows.is_zero(index), memory.is_zero(index));
        }
        let kept = windows.open[1].start;
        windows.cover(&memory, &[extent(20, 1), extent(40, 1)]).unwrap();
        assert_eq!(windows.open.iter().map(|w| w.task).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(windows.open[0].start, kept, "a task that goes on keeps its window");
        assert!(windows.cover(&memory, &[extent(112, 1)]).is_err());
    }

    #[test]
    fn memory_that_is_in_no_file_has_no_windows() {
        let memory = GuestMemory::allocate(Bytes::from_pages(10), false).unwrap();
        assert!(Windows::new(4).cover(&memory, &[extent(0, 1)]).is_err());
    }

    #[test]
    fn what_is_dropped_in_a_file_is_zero_in_every_window() {
        let memory = GuestMemory::in_file(Bytes::from_pages(4)).unwrap();
        Content::new(5).fill(&memory, 1);
        let mut windows = Windows::new(4);
        windows.cover(&memory, &[extent(0, 4)]).unwrap();
        memory.discard(PageIndex(1), 1).unwrap();
        assert!(windows.is_zero(PageIndex(1)) && memory.is_zero(PageIndex(1)) && !windows.is_zero(PageIndex(2)));
    }
}
