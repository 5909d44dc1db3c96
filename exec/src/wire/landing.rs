//! Pieces of pages as they arrive: aside, to be placed, or in place, where pages are there already and the guest has not started.
//!
//! Nothing of a piece counts before its checksum has been compared.

use super::WireError;
use super::packing::{SUMS, unpack_piece};
use super::pages::{Buffer, Direction, SUM, bytes_of, check, copy_out, new_buffer, sum_of, transfer};
use super::table::{Piece, Table};
use crate::content::Page;
use crate::memory::GuestMemory;
use livemig_core::push_plan::Extent;
use std::net::TcpStream;

impl Table {
    /// Receives the data, piece after piece: with `in_place` to where it belongs, which nobody else accesses then, otherwise to the
    /// buffer. `take` hears of every piece that is right, and gets those that lie in the buffer.
    pub(crate) fn receive(
        &self,
        input: &TcpStream,
        memory: &GuestMemory,
        landing: &mut Landing,
        in_place: bool,
        mut take: impl FnMut(&[Extent], &[Page]) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        for piece in self.pieces() {
            if in_place && !piece.is_packed() {
                receive_in_place(input, memory, &piece)?.check(memory, &piece, landing)?;
                continue;
            }
            let pages = receive_aside(input, &piece, landing)?.check()?;
            if in_place {
                write_pages(memory, &piece.extents, pages);
            } else {
                take(&piece.extents, pages)?;
            }
        }
        Ok(())
    }
}

/// Where a thread receives pieces, and unpacks them.
#[derive(Debug)]
pub(crate) struct Landing {
    pages: Box<Buffer>,
    packed: Vec<u8>,
}

impl Default for Landing {
    fn default() -> Landing {
        Landing { pages: new_buffer(), packed: Vec::new() }
    }
}

/// Writes the pages of a piece where they belong, which nobody else accesses.
pub(crate) fn write_pages(memory: &GuestMemory, piece: &[Extent], pages: &[Page]) {
    piece.iter().flat_map(|e| e.iter()).zip(pages).for_each(|(page, content)| memory.write_page(page, content));
}

/// A piece that was received aside, to be believed when its checksums have been compared.
#[must_use]
pub(crate) struct Aside<'a> {
    pages: &'a mut [Page],
    received: Received<'a>,
}

enum Received<'a> {
    Plain { sum: [u8; SUM] },
    Packed { bytes: &'a [u8], sizes: &'a [u16] },
}

impl<'a> Aside<'a> {
    /// Its pages, one behind the other, if they are what was sent.
    pub(crate) fn check(self) -> Result<&'a [Page], WireError> {
        match self.received {
            Received::Plain { sum } => check(sum, sum_of(&[bytes_of(self.pages)]))?,
            Received::Packed { bytes, sizes } => unpack_piece(bytes, sizes, self.pages)?,
        }
        Ok(self.pages)
    }
}

/// A piece that was received where it belongs, to be believed when its checksum has been compared.
#[must_use]
pub(crate) struct InPlace {
    sum: [u8; SUM],
}

impl InPlace {
    /// Whether it is what was sent.
    pub(crate) fn check(self, memory: &GuestMemory, piece: &Piece, landing: &mut Landing) -> Result<(), WireError> {
        check(self.sum, sum_of(&[bytes_of(copy_out(memory, &piece.extents, &mut landing.pages))]))
    }
}

/// Receives a piece aside.
pub(crate) fn receive_aside<'a>(input: &TcpStream, piece: &'a Piece, landing: &'a mut Landing) -> Result<Aside<'a>, WireError> {
    let count: u64 = piece.extents.iter().map(|e| e.pages).sum();
    let pages = &mut landing.pages[..count as usize];
    if piece.is_packed() {
        let bytes = &mut landing.packed;
        bytes.resize(piece.sizes.iter().map(|&size| usize::from(size)).sum::<usize>() + SUMS, 0);
        let mut parts = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }];
        // SAFETY: it is as long as said, and lives until the call returns.
        unsafe { transfer(input, &mut parts, Direction::In)? };
        return Ok(Aside { pages, received: Received::Packed { bytes, sizes: &piece.sizes } });
    }
    let parts = vec![libc::iovec { iov_base: pages.as_mut_ptr().cast(), iov_len: size_of_val(pages) }];
    // SAFETY: the buffer is as long as said, lives until the call returns, and any bytes are pages.
    let sum = unsafe { receive(input, parts)? };
    Ok(Aside { pages, received: Received::Plain { sum } })
}

fn part_of(memory: &GuestMemory, extent: Extent) -> Result<libc::iovec, WireError> {
    let range = memory.range(extent.first, extent.pages)?;
    Ok(libc::iovec { iov_base: range.cast(), iov_len: range.len() })
}

/// Receives a piece, which is not packed, where it belongs, which nobody else may access.
pub(crate) fn receive_in_place(input: &TcpStream, memory: &GuestMemory, piece: &Piece) -> Result<InPlace, WireError> {
    let parts = piece.extents.iter().map(|&extent| part_of(memory, extent)).collect::<Result<_, _>>()?;
    // SAFETY: guest memory lives as long as `memory`, and is written by raw copies only, as everywhere.
    let sum = unsafe { receive(input, parts)? };
    Ok(InPlace { sum })
}

/// Receives the parts and the checksum behind them.
///
/// # Safety
/// Every part must be memory that may be written until the call returns.
unsafe fn receive(input: &TcpStream, mut parts: Vec<libc::iovec>) -> Result<[u8; SUM], WireError> {
    let mut sum = [0; SUM];
    parts.push(libc::iovec { iov_base: sum.as_mut_ptr().cast(), iov_len: SUM });
    // SAFETY: the caller says so of the parts; the checksum is ours.
    unsafe { transfer(input, &mut parts, Direction::In)? };
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::memory::ReadPages;
    use crate::wire::frame::{FrameReader, FrameWriter};
    use crate::wire::packing::WHOLE;
    use crate::wire::page_sender::{PageSender, Treatment};
    use crate::wire::pages::MAX_DATA;
    use livemig_core::units::{Bytes, PageIndex};
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (out, listener.accept().unwrap().0)
    }

    fn memory() -> GuestMemory {
        let memory = GuestMemory::allocate(Bytes::from_pages(100), false).unwrap();
        Content::new(5).with_zero_share(0.3).with_compressed(0.5).fill(&memory, 1);
        // One that packing makes no smaller.
        let mut page = Page::ZERO;
        Content::new(6).make(PageIndex(85), &mut page);
        memory.write_page(PageIndex(85), &page);
        memory
    }

    fn page(memory: &GuestMemory, index: u64) -> Page {
        let mut page = Page::ZERO;
        memory.read_page(PageIndex(index), &mut page);
        page
    }

    /// More than a piece, in two.
    const EXTENTS: [Extent; 2] = [Extent { first: PageIndex(3), pages: 60 }, Extent { first: PageIndex(80), pages: 20 }];

    /// The bytes of one frame with these pages.
    fn frame(memory: &GuestMemory, elide: bool, pack: bool) -> Vec<u8> {
        let (out, mut input) = pair();
        let mut writer = FrameWriter::new(out, 1, 1);
        let mut sender = PageSender::new();
        let size = sender.take(memory, &EXTENTS, Treatment { elide, pack }).unwrap();
        sender.send(memory, &mut writer).unwrap();
        let mut bytes = vec![0; size as usize];
        input.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn receive(bytes: &[u8], into: &GuestMemory, in_place: bool) -> Result<Table, WireError> {
        let (mut out, input) = pair();
        out.write_all(bytes).unwrap();
        drop(out);
        let mut reader = FrameReader::new(input, MAX_DATA);
        let header = reader.next()?.expect("no timeout");
        let (mut table, mut arrived) = (Table::default(), 0);
        table.read(&reader, &header, into.pages())?;
        table.receive(&reader.input, into, &mut Landing::default(), in_place, |piece, pages| {
            arrived += pages.len() as u64;
            write_pages(into, piece, pages);
            Ok(())
        })?;
        let data = table.runs.iter().filter(|r| !r.zero).map(|r| r.extent.pages).sum();
        assert_eq!(arrived, if in_place { 0 } else { data });
        Ok(table)
    }

    #[test]
    fn pages_arrive_whichever_way_they_go() {
        let from = memory();
        for case in 0..8 {
            let (elide, in_place, pack) = (case & 1 != 0, case & 2 != 0, case & 4 != 0);
            let into = GuestMemory::allocate(Bytes::from_pages(100), false).unwrap();
            let bytes = frame(&from, elide, pack);
            let table = receive(&bytes, &into, in_place).unwrap();
            assert_eq!((table.packed, table.sizes.contains(&WHOLE)), (pack, pack));
            assert!(bytes.len() < 64 * 4096 * if pack { 6 } else { 10 } / 10 || !elide, "{} bytes", bytes.len());
            assert_eq!(table.runs.iter().any(|r| r.zero), elide);
            assert_eq!(table.runs.iter().map(|r| r.extent.pages).sum::<u64>(), 80);
            for index in 0..100 {
                let sent = EXTENTS.iter().any(|e| e.iter().any(|p| p.0 == index));
                assert_eq!(page(&into, index), if sent { page(&from, index) } else { Page::ZERO }, "page {index}");
            }
        }
    }

    #[test]
    fn what_lies_still_is_sent_from_where_it_is_and_looks_the_same() {
        let memory = memory();
        assert!(memory.still(EXTENTS[0]).is_none(), "somebody may be writing");
        let copied = [true, false].map(|elide| frame(&memory, elide, false));
        memory.keep_still();
        let (first, beyond) = (memory.still(EXTENTS[0]).unwrap(), Extent { first: PageIndex(99), pages: 2 });
        assert_eq!(first[..8], page(&memory, 3).0[0].to_ne_bytes());
        assert!(memory.still(beyond).is_none());
        assert_eq!([true, false].map(|elide| frame(&memory, elide, false)), copied);
    }

    #[test]
    fn one_flipped_bit_anywhere_in_a_frame_is_found() {
        let from = memory();
        let into = GuestMemory::allocate(Bytes::from_pages(100), false).unwrap();
        for pack in [false, true] {
            let bytes = frame(&from, true, pack);
            // Every bit of header and table, and of the data one in 1009, which is prime to everything.
            let table = (super::super::frame::HEADER + 16 * 40) * 8;
            for bit in (0..table).chain((table..bytes.len() * 8).step_by(1009)) {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(receive(&damaged, &into, bit % 2 == 0).is_err(), "bit {bit}");
            }
            for cut in [1, 4096, bytes.len() - 60] {
                assert!(receive(&bytes[..bytes.len() - cut], &into, true).is_err(), "{cut} bytes cut off");
            }
        }
    }

    #[test]
    fn pages_beyond_memory_are_refused_before_they_are_read() {
        let bytes = frame(&memory(), true, false);
        let small = GuestMemory::allocate(Bytes::from_pages(99), false).unwrap();
        assert!(matches!(receive(&bytes, &small, true), Err(WireError::Malformed(_))));
    }
}
