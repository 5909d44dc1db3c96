//! Frames of pages: a table of extents, then the pages in pieces, each with its checksum behind.
//!
//! The guest may be writing what is sent, so that it is copied before its checksum is taken. At the destination pages that are
//! there already are received in place as long as the guest has not started. A piece stays in the core's cache while it is
//! copied, summed and handed to the kernel, or received, summed and placed. Nothing of a piece counts before its checksum has
//! been compared.

use super::WireError;
use super::frame::{FrameReader, Header, Kind, SILENCE};
use super::packing::{SUMS, WHOLE, unpack_piece};
use crate::content::Page;
use crate::memory::{GuestMemory, ReadPages};
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Most pages of a frame, which is what is acknowledged: 1 MiB.
pub(crate) const MAX_PAGES: u64 = 256;
/// Most bytes of page data of a frame, with its checksums.
pub(crate) const MAX_DATA: u32 = (MAX_PAGES * PAGE_SIZE + MAX_PAGES.div_ceil(PIECE) * SUMS as u64) as u32;
/// Bytes of an entry of the table.
pub(super) const ENTRY: usize = 16;
/// Bytes of the checksum behind a piece.
pub(super) const SUM: usize = 8;
/// Pages of a piece but for the last: 256 KiB, which the second-level cache of a core holds along with the socket's copy.
pub(crate) const PIECE: u64 = 64;

/// Where pieces are received that are not received in place.
pub(crate) type Buffer = [Page; PIECE as usize];

pub(crate) fn new_buffer() -> Box<Buffer> {
    Box::new([Page::ZERO; PIECE as usize])
}

/// Pages of a frame that follow each other and are all zero, or all not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) extent: Extent,
    pub(crate) zero: bool,
}

/// The pages of these runs that have data, in pieces.
pub(super) fn pieces(runs: &[Run]) -> Vec<Vec<Extent>> {
    let (mut pieces, mut room) = (Vec::new(), 0);
    for &Run { mut extent, .. } in runs.iter().filter(|r| !r.zero) {
        while extent.pages > 0 {
            if room == 0 {
                pieces.push(Vec::<Extent>::new());
                room = PIECE;
            }
            let pages = extent.pages.min(room);
            pieces.last_mut().expect("there is room").push(Extent { pages, ..extent });
            extent = Extent { first: PageIndex(extent.first.0 + pages), pages: extent.pages - pages };
            room -= pages;
        }
    }
    pieces
}

/// Bytes that a frame has behind its table when so many pages go as they are.
pub(super) fn plain_data(pages: u64) -> u64 {
    pages * PAGE_SIZE + pages.div_ceil(PIECE) * SUM as u64
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

fn part_of(memory: &GuestMemory, extent: Extent) -> Result<libc::iovec, WireError> {
    let range = memory.range(extent.first, extent.pages)?;
    Ok(libc::iovec { iov_base: range.cast(), iov_len: range.len() })
}

/// The table of a frame of pages, in the order in which the data comes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) runs: Vec<Run>,
    /// Whether the pages with data are packed.
    pub(crate) packed: bool,
    /// Bytes of each packed page.
    pub(super) sizes: Vec<u16>,
}

/// What the pages of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain = 0,
    Zero = 1,
    /// Packed, with the bytes that each takes behind the entry.
    Packed = 2,
}

impl Table {
    /// Reads the table in the body of the frame just read; every page must lie below `pages`.
    pub(crate) fn read<R>(&mut self, reader: &FrameReader<R>, header: &Header, pages: u64) -> Result<(), WireError> {
        let bad = || WireError::Malformed("table of pages");
        if header.kind != Kind::Pages {
            return Err(bad());
        }
        self.runs.clear();
        self.sizes.clear();
        let (mut all, mut plain, mut rest) = (0, 0, reader.body.as_slice());
        while let Some((entry, behind)) = rest.split_first_chunk::<ENTRY>() {
            let first = u64::from_le_bytes(entry[..8].try_into().expect("8 of 16 bytes"));
            let count = u64::from(u32::from_le_bytes(entry[8..12].try_into().expect("4 of 16 bytes")));
            if count == 0 || count > MAX_PAGES || first.checked_add(count).is_none_or(|end| end > pages) {
                return Err(bad());
            }
            all += count;
            rest = behind;
            let zero = match entry[12..] {
                [0, 0, 0, 0] => {
                    plain += count;
                    false
                }
                [1, 0, 0, 0] => true,
                [2, 0, 0, 0] => {
                    rest = self.read_sizes(rest, count as usize).ok_or_else(bad)?;
                    false
                }
                _ => return Err(bad()),
            };
            self.runs.push(Run { extent: Extent { first: PageIndex(first), pages: count }, zero });
        }
        self.packed = !self.sizes.is_empty();
        let data = if self.packed { self.packed_data() } else { plain_data(plain) };
        // Pages are packed all or none.
        if !rest.is_empty() || all > MAX_PAGES || (self.packed && plain > 0) || data != u64::from(header.data) {
            return Err(bad());
        }
        Ok(())
    }

    /// Reads the sizes of packed pages; what is behind them, if they are there and may be.
    fn read_sizes<'a>(&mut self, bytes: &'a [u8], pages: usize) -> Option<&'a [u8]> {
        let (sizes, rest) = bytes.split_at_checked(2 * pages)?;
        for &size in sizes.as_chunks::<2>().0 {
            let size = u16::from_le_bytes(size);
            if size == 0 || size > WHOLE {
                return None;
            }
            self.sizes.push(size);
        }
        Some(rest)
    }

    /// The pages that are zero.
    pub(crate) fn zeros(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().filter(|run| run.zero).map(|run| run.extent)
    }

    /// The pages that have data, in the pieces in which it comes.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let mut sizes = self.sizes.as_slice();
        let piece = |extents: Vec<Extent>| {
            let pages: u64 = extents.iter().map(|e| e.pages).sum();
            let these = if self.packed { sizes.split_off(..pages as usize).unwrap_or_default() } else { &[] };
            Piece { extents, sizes: these.to_vec() }
        };
        pieces(&self.runs).into_iter().map(piece).collect()
    }

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

/// Pages whose data comes together.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) extents: Vec<Extent>,
    /// Bytes of each page, if they are packed.
    sizes: Vec<u16>,
}

impl Piece {
    pub(crate) fn is_packed(&self) -> bool {
        !self.sizes.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::wire::frame::FrameWriter;
    use crate::wire::page_sender::{PageSender, Treatment};
    use livemig_core::units::Bytes;
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

    /// A frame with this table, and so much said to be behind it.
    fn table(body: &[u8], data: u64) -> Result<Table, WireError> {
        let header = FrameWriter::new(Vec::new(), 1, 1).header(Kind::Pages, body, data as usize);
        let bytes = [header.as_slice(), body].concat();
        let mut reader = FrameReader::new(bytes.as_slice(), MAX_DATA);
        let header = reader.next()?.expect("no timeout");
        let mut table = Table::default();
        table.read(&reader, &header, 100)?;
        Ok(table)
    }

    #[test]
    fn tables_that_do_not_say_what_comes_are_refused() {
        let entry =
            |first: u64, count: u32, form: u32| [&first.to_le_bytes()[..], &count.to_le_bytes(), &form.to_le_bytes()].concat();
        let sizes = |sizes: &[u16]| sizes.iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<u8>>();
        let packed = |of: &[u16]| [entry(3, 2, 2), sizes(of)].concat();
        assert_eq!(table(&packed(&[10, 4096]), 10 + 4096 + 16).unwrap().sizes, [10, 4096]);
        assert_eq!(table(&[entry(3, 2, 1), entry(9, 1, 0)].concat(), 4096 + 8).unwrap().runs.len(), 2);
        let bad = [
            (packed(&[10, 4096]), 10 + 4096 + 8),
            (packed(&[0, 4096]), 4096 + 16),
            (packed(&[10, 4097]), 10 + 4097 + 16),
            (packed(&[10]), 10 + 16),
            (packed(&[10, 10, 10]), 30 + 16),
            ([packed(&[10, 10]), entry(9, 1, 0)].concat(), 20 + 16 + 4096 + 8),
            (entry(3, 2, 3), 8192 + 8),
            (entry(99, 2, 1), 0),
            (entry(3, 2, 1)[..15].to_vec(), 0),
        ];
        for (body, data) in bad {
            assert!(matches!(table(&body, data), Err(WireError::Malformed(_))), "{body:?}");
        }
    }

    #[test]
    fn pages_beyond_memory_are_refused_before_they_are_read() {
        let bytes = frame(&memory(), true, false);
        let small = GuestMemory::allocate(Bytes::from_pages(99), false).unwrap();
        assert!(matches!(receive(&bytes, &small, true), Err(WireError::Malformed(_))));
    }
}
