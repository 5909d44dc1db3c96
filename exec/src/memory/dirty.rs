//! The dirty tracker: KVM's log of written pages, and pages that were given back.
//!
//! Whatever is in the log or in [`DirtyTracker::give_back`]'s set is dirty. Collecting clears the log *before* the pages are
//! handed over, and write protection is back in place when the clearing returns, so a write after that is logged again: what is
//! copied after collecting is either the newest version or will be collected once more.
//!
//! Where the kernel lets the log be read without clearing it, peeking disturbs nothing, a limited collection clears only what
//! it takes, and switching the log on protects nothing until the first collection. Elsewhere reading clears, and what was read
//! is kept here.

use super::GuestMemory;
use crate::error::ExecError;
use crate::guest::{MEMORY_SLOT, set_slot};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1};
use kvm_ioctls::VmFd;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// `KVM_CLEAR_DIRTY_LOG`, which kvm-ioctls does not have: `_IOWR(0xAE, 0xc0, struct kvm_clear_dirty_log)`.
const KVM_CLEAR_DIRTY_LOG: libc::c_ulong = 0xc018_aec0;

/// Pages cleared in one call: the kernel holds its lock meanwhile, and the guest's write faults wait for it.
const CLEAR_AT_ONCE: u64 = 1 << 16;

/// Logs a guest's writes while it lives.
#[derive(Debug)]
pub struct DirtyTracker {
    vm: Arc<VmFd>,
    memory: Arc<GuestMemory>,
    manual_clear: bool,
    /// Dirty beside what the log says.
    kept: Bitmap,
    /// Where the next limited collection begins.
    next: PageIndex,
}

impl DirtyTracker {
    /// Switches the log on; every page is dirty.
    pub(crate) fn start(vm: Arc<VmFd>, memory: Arc<GuestMemory>, manual_clear: bool) -> Result<DirtyTracker, ExecError> {
        set_slot(&vm, MEMORY_SLOT, 0, &memory, KVM_MEM_LOG_DIRTY_PAGES)?;
        let kept = all(memory.pages());
        Ok(DirtyTracker { vm, memory, manual_clear, kept, next: PageIndex(0) })
    }

    /// Whether the kernel lets the log be read without clearing it.
    #[must_use]
    pub fn clears_manually(&self) -> bool {
        self.manual_clear
    }

    /// How much is dirty; nothing is cleared.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn peek(&mut self) -> Result<Bytes, ExecError> {
        Ok(self.dirty()?.len())
    }

    /// What is dirty; nothing is cleared, and what is in the log stays dirty until it is collected.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn log(&mut self) -> Result<Bitmap, ExecError> {
        self.dirty()
    }

    /// Takes dirty pages out, all of them or at most `limit` of memory in address order, going on where the last limited
    /// collection ended and round to the beginning. They count as clean from then on.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is lost then.
    pub fn collect(&mut self, limit: Option<Bytes>) -> Result<Bitmap, ExecError> {
        let mut dirty = self.dirty()?;
        let taken = match limit {
            Some(limit) if limit < dirty.len() => take_round_robin(&mut dirty, limit.pages(), &mut self.next),
            _ => std::mem::take(&mut dirty),
        };
        if self.manual_clear {
            self.clear(&taken)?;
            for page in taken.iter() {
                self.kept.remove(page);
            }
        } else {
            self.kept = dirty;
        }
        Ok(taken)
    }

    /// Takes pages back that were collected and not sent: they are dirty again.
    pub fn give_back(&mut self, pages: &Bitmap) {
        for run in runs_of(pages) {
            self.kept.insert_run(run.first, run.pages);
        }
    }

    /// What is dirty now.
    fn dirty(&mut self) -> Result<Bitmap, ExecError> {
        let size = (self.memory.pages() * PAGE_SIZE) as usize;
        let words = self.vm.get_dirty_log(MEMORY_SLOT, size).map_err(|e| ExecError::errno("KVM_GET_DIRTY_LOG", e.errno()))?;
        let mut dirty = self.kept.clone();
        for (word, bits) in (0..).zip(words) {
            insert_word(&mut dirty, word, bits);
        }
        if !self.manual_clear {
            self.kept = dirty.clone();
        }
        Ok(dirty)
    }

    /// Clears pages in the log, and protects them again.
    fn clear(&self, pages: &Bitmap) -> Result<(), ExecError> {
        let all = self.memory.pages();
        let mut from = PageIndex(0);
        while let Some(page) = pages.next_at(from) {
            // Calls start at a multiple of 64 pages and end at one or at the end of memory.
            let first = page.0 / 64 * 64;
            let count = CLEAR_AT_ONCE.min(all - first);
            let mut words = vec![0u64; count.div_ceil(64) as usize];
            let mut next = PageIndex(first);
            while let Some(page) = pages.next_at(next).filter(|page| page.0 < first + count) {
                let offset = page.0 - first;
                words[(offset / 64) as usize] |= 1 << (offset % 64);
                next = PageIndex(page.0 + 1);
            }
            self.clear_range(first, count, &mut words)?;
            from = PageIndex(first + count);
        }
        Ok(())
    }

    fn clear_range(&self, first: u64, pages: u64, words: &mut [u64]) -> Result<(), ExecError> {
        let argument = kvm_clear_dirty_log {
            slot: MEMORY_SLOT,
            num_pages: u32::try_from(pages).expect("cleared in small ranges"),
            first_page: first,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 { dirty_bitmap: words.as_mut_ptr().cast() },
        };
        // SAFETY: the bitmap has a bit for each page of the range, and lives as long as the call.
        if unsafe { libc::ioctl(self.vm.as_raw_fd(), KVM_CLEAR_DIRTY_LOG, &argument) } == 0 {
            Ok(())
        } else {
            Err(ExecError::last("KVM_CLEAR_DIRTY_LOG"))
        }
    }
}

impl Drop for DirtyTracker {
    fn drop(&mut self) {
        // A log left on costs the guest time and nothing else.
        let _ = set_slot(&self.vm, MEMORY_SLOT, 0, &self.memory, 0);
    }
}

fn all(pages: u64) -> Bitmap {
    let mut set = Bitmap::default();
    set.insert_run(PageIndex(0), pages);
    set
}

/// Puts the pages of one word of a log in.
fn insert_word(set: &mut Bitmap, word: u64, mut bits: u64) {
    while bits != 0 {
        let from = bits.trailing_zeros();
        let run = (bits >> from).trailing_ones();
        set.insert_run(PageIndex(word * 64 + u64::from(from)), u64::from(run));
        bits &= !((u64::MAX >> (64 - run)) << from);
    }
}

/// The runs of neighbouring pages of a set, in ascending order.
pub(crate) fn runs_of(set: &Bitmap) -> impl Iterator<Item = Extent> + '_ {
    let mut from = PageIndex(0);
    std::iter::from_fn(move || {
        let first = set.next_at(from)?;
        let run = Extent { first, pages: set.run_from(first, u64::MAX) };
        from = PageIndex(first.0 + run.pages);
        Some(run)
    })
}

/// Takes `pages` pages from `next` on and round, and moves `next` behind the last of them.
fn take_round_robin(set: &mut Bitmap, pages: u64, next: &mut PageIndex) -> Bitmap {
    let mut taken = Bitmap::default();
    while taken.count() < pages {
        let Some(first) = set.next_at(*next) else {
            if next.0 == 0 {
                break;
            }
            *next = PageIndex(0);
            continue;
        };
        let run = set.run_from(first, pages - taken.count());
        set.remove_run(first, run);
        taken.insert_run(first, run);
        *next = PageIndex(first.0 + run);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn words_of_a_log_are_pages(words in proptest::collection::vec(any::<u64>(), 1..5)) {
            let mut set = Bitmap::default();
            for (word, &bits) in (0..).zip(&words) {
                insert_word(&mut set, word, bits);
            }
            let bit = |page: u64| words[(page / 64) as usize] >> (page % 64) & 1 == 1;
            let pages = words.len() as u64 * 64;
            prop_assert!((0..pages).all(|page| set.contains(PageIndex(page)) == bit(page)));
            prop_assert_eq!(set.count(), (0..pages).filter(|&page| bit(page)).count() as u64);
        }

        #[test]
        fn limited_collections_go_round(pages in proptest::collection::btree_set(0u64..200, 1..60), limit in 1u64..20) {
            let mut set: Bitmap = pages.iter().copied().map(PageIndex).collect();
            let (mut next, mut order) = (PageIndex(0), Vec::new());
            while !set.is_empty() {
                let taken = take_round_robin(&mut set, limit, &mut next);
                prop_assert!(taken.count() == limit || set.is_empty());
                order.extend(taken.iter().map(|p| p.0));
            }
            prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), pages.clone());
            prop_assert_eq!(order, pages.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_limited_collection_does_not_starve_what_comes_later() {
        let mut next = PageIndex(0);
        let dirty = || [1, 2, 100, 150].into_iter().map(PageIndex).collect::<Bitmap>();
        let pages = |b: Bitmap| b.iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(pages(take_round_robin(&mut dirty(), 2, &mut next)), [1, 2]);
        assert_eq!(pages(take_round_robin(&mut dirty(), 3, &mut next)), [1, 100, 150]);
        assert_eq!(pages(take_round_robin(&mut dirty(), 2, &mut next)), [2, 100]);
    }
}
