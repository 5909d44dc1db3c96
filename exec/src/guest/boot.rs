//! The boot slot: code, page tables, compiled phases and one control page per vCPU, in a memory slot of its own behind the
//! largest possible guest. It is made from the specification on either side and never migrated, so that every byte of the
//! guest's own memory is accounted for by the page function.

use super::code;
use super::program::Table;
use super::spec::{GuestSpec, MAX_MEMORY};
use crate::error::ExecError;
use crate::memory::GuestMemory;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Span};
use std::sync::atomic::{AtomicU32, Ordering};

/// Guest-physical, and because of the identity map also linear, address of the boot slot.
pub(super) const BASE: u64 = MAX_MEMORY.0;

/// The words of a control page (byte offset divided by 8).
pub(super) mod control {
    pub(in crate::guest) const STEPS: usize = 0;
    pub(in crate::guest) const NOW: usize = 1;
    pub(in crate::guest) const LAST: usize = 2;
    pub(in crate::guest) const DEADLINE: usize = 3;
    pub(in crate::guest) const PHASE: usize = 4;
}

/// Pages in front of the control pages: code, task state segment.
const CONTROL: u64 = 2;
/// Where the map of ports begins in the task state segment; it allows ports 0 to 255.
const PORT_MAP: u64 = 104;
/// The segment ends with a byte of ones behind the map, as the processor wants it.
pub(super) const TASK_STATE_LIMIT: u32 = PORT_MAP as u32 + 32;

/// Words in front of the entries of a phase block.
const HEAD: usize = 8;
const ENTRY_BYTES: u64 = 32;
const TWO_MIB: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

// Accessed and dirty bits are set beforehand, so that the processor never writes to the tables.
const TABLE_FLAGS: u64 = 0x27; // present, writable, user, accessed
const PAGE_FLAGS: u64 = 0xe7; // and dirty, 2 MiB

/// The guest's pacing, in its own clock.
const TOLERANCE_MS: u64 = 1;
const STAMP_MS: u64 = 1;
const LEAST_SLEEP_US: u64 = 500;

/// The slot.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) memory: GuestMemory,
    /// Per vCPU and phase, the address of the block.
    blocks: Vec<Vec<u64>>,
    page_tables: u64,
    tsc_khz: AtomicU32,
}

impl Boot {
    /// Lays the slot out for guests whose clock has this frequency.
    pub(super) fn new(spec: &GuestSpec, tables: &[Vec<Table>], tsc_khz: u32) -> Result<Boot, ExecError> {
        let block_bytes = |t: &Table| (HEAD as u64 * 8 + t.entries.len() as u64 * ENTRY_BYTES).next_multiple_of(64);
        let mut next = PAGE_SIZE * (CONTROL + u64::from(spec.vcpus));
        let mut blocks = Vec::new();
        for vcpu in tables {
            let mut starts = Vec::new();
            for table in vcpu {
                starts.push(BASE + next);
                next += block_bytes(table);
            }
            blocks.push(starts);
        }
        let page_tables = next.next_multiple_of(PAGE_SIZE);
        let directories = spec.memory.0.div_ceil(GIB);
        let len = page_tables + (3 + directories) * PAGE_SIZE;
        if len > GIB {
            return Err(ExecError::Spec(format!("{len} B of tables, more than the boot slot holds")));
        }
        let boot = Boot {
            memory: GuestMemory::allocate(Bytes(len), false)?,
            blocks,
            page_tables: BASE + page_tables,
            tsc_khz: AtomicU32::new(tsc_khz),
        };
        boot.write_code();
        boot.write_blocks(tables, tsc_khz);
        boot.write_page_tables(directories);
        Ok(boot)
    }

    /// Frequency of the clock that it is laid out for, in kHz; never 0.
    pub(super) fn tsc_khz(&self) -> u32 {
        self.tsc_khz.load(Ordering::Relaxed).max(1)
    }

    /// Lays the pacing out for another clock. The vCPUs are stopped.
    pub(super) fn set_tsc_khz(&self, tables: &[Vec<Table>], khz: u32) {
        self.tsc_khz.store(khz, Ordering::Relaxed);
        self.write_blocks(tables, khz);
    }

    /// How long so many ticks of the guest's clock are.
    pub(super) fn span(&self, ticks: u64) -> Span {
        Span(u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(self.tsc_khz())).unwrap_or(u64::MAX))
    }

    /// Address of the first page table.
    pub(super) fn root(&self) -> u64 {
        self.page_tables
    }

    /// Address of the task state segment.
    pub(super) fn task_state(&self) -> u64 {
        BASE + PAGE_SIZE
    }

    /// Address of a vCPU's control page.
    pub(super) fn control(&self, vcpu: usize) -> u64 {
        BASE + PAGE_SIZE * (CONTROL + vcpu as u64)
    }

    /// Address of a vCPU's block for a phase.
    pub(super) fn block(&self, vcpu: usize, phase: usize) -> u64 {
        self.blocks[vcpu][phase]
    }

    /// A word of a vCPU's control page, as it is just now.
    pub(super) fn read_control(&self, vcpu: usize, word: usize) -> u64 {
        // SAFETY: `word_at` is inside the slot; volatile, since the vCPU may be writing it.
        unsafe { self.word_at(self.control(vcpu) + word as u64 * 8).read_volatile() }
    }

    /// Sets a word of a vCPU's control page.
    pub(super) fn write_control(&self, vcpu: usize, word: usize, value: u64) {
        self.write(self.control(vcpu) + word as u64 * 8, value);
    }

    /// Whether everything but the control pages is as it was made: the guest has not got at its own code and tables.
    pub(super) fn is_intact(&self, spec: &GuestSpec, tables: &[Vec<Table>], tsc_khz: u32) -> Result<bool, ExecError> {
        let fresh = Boot::new(spec, tables, tsc_khz)?;
        let same = |page: PageIndex| {
            let (mut mine, mut theirs) = (crate::content::Page::ZERO, crate::content::Page::ZERO);
            self.memory.read_page(page, &mut mine);
            fresh.memory.read_page(page, &mut theirs);
            mine == theirs
        };
        let first_table = CONTROL + u64::from(spec.vcpus);
        Ok((0..CONTROL).map(PageIndex).all(same) && (first_table..self.memory.pages()).map(PageIndex).all(same))
    }

    fn write_code(&self) {
        let code = code::code();
        assert!(code.len() as u64 <= PAGE_SIZE, "the code fits its page");
        for (i, bytes) in code.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.write(BASE + i as u64 * 8, u64::from_le_bytes(word));
        }
        // The offset of the map is the 16-bit word at byte 102.
        self.write(self.task_state() + 96, PORT_MAP << 48);
        self.write(self.task_state() + PORT_MAP + 32, u64::MAX);
    }

    fn write_blocks(&self, tables: &[Vec<Table>], tsc_khz: u32) {
        let khz = u64::from(tsc_khz);
        for (vcpu, phases) in tables.iter().enumerate() {
            for (phase, table) in phases.iter().enumerate() {
                let block = self.block(vcpu, phase);
                let entry_at = |i: u64| block + HEAD as u64 * 8 + i * ENTRY_BYTES;
                let interval = (table.chunk as f64 / table.rate * khz as f64 * 1000.0).round() as u64;
                let head = [
                    table.chunk,
                    interval,
                    TOLERANCE_MS * khz,
                    LEAST_SLEEP_US * khz / 1000,
                    STAMP_MS * khz,
                    table.stride,
                    table.entries.len() as u64,
                    u64::from(table.turns),
                ];
                for (i, value) in (0..).zip(head) {
                    self.write(block + i * 8, value);
                }
                for (i, entry) in (0..).zip(&table.entries) {
                    for (field, value) in (0..).zip([entry.cut, entry_at(entry.alias), entry.base, entry.count]) {
                        self.write(entry_at(i) + field * 8, value);
                    }
                }
            }
        }
    }

    /// One identity map of 2 MiB pages: the guest's memory, rounded up, and the boot slot. What is mapped and not backed by a
    /// slot is never accessed.
    fn write_page_tables(&self, directories: u64) {
        let (pml4, pdpt) = (self.page_tables, self.page_tables + PAGE_SIZE);
        let directory = |i: u64| pdpt + PAGE_SIZE * (1 + i);
        self.write(pml4, pdpt | TABLE_FLAGS);
        let map = |gib: u64, i: u64| {
            self.write(pdpt + gib * 8, directory(i) | TABLE_FLAGS);
            for page in 0..GIB / TWO_MIB {
                self.write(directory(i) + page * 8, (gib * GIB + page * TWO_MIB) | PAGE_FLAGS);
            }
        };
        (0..directories).for_each(|gib| map(gib, gib));
        map(BASE / GIB, directories);
    }

    fn write(&self, address: u64, value: u64) {
        // SAFETY: `word_at` is inside the slot.
        unsafe { self.word_at(address).write_volatile(value) };
    }

    fn word_at(&self, address: u64) -> *mut u64 {
        let offset = address - BASE;
        let page = self.memory.range(PageIndex(offset / PAGE_SIZE), 1).expect("an address inside the boot slot");
        assert!(offset.is_multiple_of(8), "an aligned word");
        // SAFETY: the offset is below a page, and the page is inside the slot.
        unsafe { page.cast::<u8>().add((offset % PAGE_SIZE) as usize).cast() }
    }
}
