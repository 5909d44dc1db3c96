//! The guest's code, as bytes to copy into it.

use std::arch::global_asm;
use std::ptr::addr_of;

global_asm!(include_str!("guest.S"));

unsafe extern "C" {
    static livemig_guest_start: u8;
    static livemig_guest_store1: u8;
    static livemig_guest_store2: u8;
    static livemig_guest_store3: u8;
    static livemig_guest_store4: u8;
    static livemig_guest_stored: u8;
    static livemig_guest_end: u8;
}

/// Port by which the guest sleeps until the deadline in its control page; also a time stamp.
pub(super) const PORT_SLEEP: u16 = 0x10;
/// Port by which the guest gives a time stamp.
pub(super) const PORT_STAMP: u16 = 0x11;

/// The code.
pub(super) fn code() -> &'static [u8] {
    // SAFETY: the two symbols bound read-only bytes that the assembler laid out in one section.
    unsafe {
        let start = addr_of!(livemig_guest_start);
        let len = usize::try_from(addr_of!(livemig_guest_end).offset_from(start)).expect("the end lies behind the start");
        std::slice::from_raw_parts(start, len)
    }
}

/// How many of a step's four stores are done when a vCPU has stopped at this offset into the code.
///
/// A vCPU can be stopped between any two instructions. Everywhere but among the stores the answer is 0: before them the step
/// has not begun to write, and behind the increment of the step counter the step counts as made.
pub(super) fn stores_done(offset: u64) -> u8 {
    let at = |label: *const u8| {
        let start = addr_of!(livemig_guest_start);
        // The stores follow the start in one section.
        (label as usize - start as usize) as u64
    };
    let labels = [
        addr_of!(livemig_guest_store2),
        addr_of!(livemig_guest_store3),
        addr_of!(livemig_guest_store4),
        addr_of!(livemig_guest_stored),
    ];
    debug_assert!(at(addr_of!(livemig_guest_store1)) < at(labels[0]));
    (1u8..).zip(labels).find(|&(_, label)| at(label) == offset).map_or(0, |(stores, _)| stores)
}
