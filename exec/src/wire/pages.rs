//! Frames of pages: a [`table`](super::table) of extents, then the pages in pieces, each with its checksum behind.
//!
//! A piece stays in the core's cache while it is copied, summed and handed to the kernel by the [sender](super::page_sender), or
//! received, summed and [placed](super::landing).

use super::WireError;
use super::frame::SILENCE;
use super::packing::SUMS;
use crate::content::Page;
use crate::memory::ReadPages;
use livemig_core::push_plan::Extent;
use livemig_core::units::PAGE_SIZE;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Most pages of a frame, which is what is acknowledged: 1 MiB.
pub(crate) const MAX_PAGES: u64 = 256;
/// Most bytes of page data of a frame, with its checksums.
pub(crate) const MAX_DATA: u32 = (MAX_PAGES * PAGE_SIZE + MAX_PAGES.div_ceil(PIECE) * SUMS as u64) as u32;
/// Bytes of the checksum behind a piece.
pub(super) const SUM: usize = 8;
/// Pages of a piece but for the last: 256 KiB, which the second-level cache of a core holds along with the socket's copy.
pub(crate) const PIECE: u64 = 64;

/// Where pieces are received that are not received in place.
pub(crate) type Buffer = [Page; PIECE as usize];

pub(crate) fn new_buffer() -> Box<Buffer> {
    Box::new([Page::ZERO; PIECE as usize])
}

/// The checksum of the bytes of pages, one part behind the other.
pub(super) fn sum_of(parts: &[&[u8]]) -> [u8; SUM] {
    let sum = if let [bytes] = parts {
        xxh3_64(bytes)
    } else {
        let mut sum = Xxh3Default::new();
        parts.iter().for_each(|bytes| sum.update(bytes));
        sum.digest()
    };
    sum.to_le_bytes()
}

/// Copies a piece out of memory.
pub(super) fn copy_out<'a>(memory: &(impl ReadPages + ?Sized), piece: &[Extent], into: &'a mut Buffer) -> &'a mut [Page] {
    let mut copied = 0;
    for (page, copy) in piece.iter().flat_map(|e| e.iter()).zip(into.iter_mut()) {
        memory.read_page(page, copy);
        copied += 1;
    }
    &mut into[..copied]
}

/// Bytes of pages as the checksum takes them.
pub(super) fn bytes_of(pages: &[Page]) -> &[u8] {
    // SAFETY: a page is 512 words without padding, and any of its bytes may be read.
    unsafe { std::slice::from_raw_parts(pages.as_ptr().cast::<u8>(), size_of_val(pages)) }
}

pub(super) fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

pub(super) fn check(theirs: [u8; SUM], ours: [u8; SUM]) -> Result<(), WireError> {
    if ours == theirs { Ok(()) } else { Err(WireError::Checksum("pages")) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// Sends or receives all of the parts. Where the socket times out, nothing moving for [`SILENCE`] is an error.
///
/// # Safety
/// Every part must be memory that may be read (or, with `In`, written) until the call returns.
pub(super) unsafe fn transfer(socket: &TcpStream, mut parts: &mut [libc::iovec], direction: Direction) -> Result<(), WireError> {
    let mut moved = Instant::now();
    loop {
        // Empty parts have nothing to move.
        while parts.first().is_some_and(|p| p.iov_len == 0) {
            parts = &mut parts[1..];
        }
        if parts.is_empty() {
            return Ok(());
        }
        // SAFETY: a zeroed header is a valid one; it names parts that live during the call.
        let result = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = parts.len().min(1024);
            match direction {
                Direction::Out => libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL),
                Direction::In => libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_WAITALL),
            }
        };
        match usize::try_from(result) {
            Ok(0) => return Err(WireError::Closed),
            Ok(mut bytes) => {
                moved = Instant::now();
                for part in parts.iter_mut() {
                    let step = bytes.min(part.iov_len);
                    part.iov_base = part.iov_base.wrapping_byte_add(step);
                    part.iov_len -= step;
                    bytes -= step;
                }
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if moved.elapsed() <= SILENCE => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(WireError::Silence),
                    _ => return Err(WireError::Io(error)),
                }
            }
        }
    }
}
