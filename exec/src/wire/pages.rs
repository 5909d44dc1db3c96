//! Frames of pages: a table of extents with the checksum of the data, then the pages, straight from and to guest memory.
//!
//! What a guest may be writing is copied before its checksum is taken; what stands still is sent from where it lies. At the
//! destination pages go straight to their place as long as the guest has not started; the checksum is taken there.

use super::WireError;
use super::frame::{FrameReader, FrameWriter, Header, Kind, SILENCE};
use crate::content::Page;
use crate::memory::GuestMemory;
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Most pages of a frame.
pub(crate) const MAX_PAGES: u64 = 64;
/// Most bytes of page data of a frame.
pub(crate) const MAX_DATA: u32 = (MAX_PAGES * PAGE_SIZE) as u32;
/// Bytes of an entry of the table.
const ENTRY: usize = 16;

/// Pages of a frame that follow each other and are all zero, or all not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) extent: Extent,
    pub(crate) zero: bool,
}

/// Bytes of a page as the checksum takes them.
fn bytes_of(page: &Page) -> &[u8] {
    // SAFETY: a page is 512 words without padding, and any of its bytes may be read.
    unsafe { std::slice::from_raw_parts((&raw const page.0).cast::<u8>(), size_of_val(&page.0)) }
}

/// Makes frames of pages.
pub(crate) struct PageSender {
    /// Copies of pages that the guest may be writing.
    copies: Vec<Page>,
    runs: Vec<Run>,
    body: Vec<u8>,
}

impl PageSender {
    pub(crate) fn new() -> PageSender {
        PageSender { copies: vec![Page::ZERO; MAX_PAGES as usize], runs: Vec::new(), body: Vec::new() }
    }

    /// Takes these pages as they are now. With `still`, nobody writes to them before they are sent; with `elide`, pages of zeros
    /// become marks. Returns the bytes that the frame takes on the wire.
    pub(crate) fn take(&mut self, memory: &GuestMemory, extents: &[Extent], still: bool, elide: bool) -> u64 {
        self.runs.clear();
        let mut hasher = Xxh3::new();
        let mut copied = 0;
        let mut scratch = Page::ZERO;
        for page in extents.iter().flat_map(|e| e.iter()) {
            let mut zero = elide && memory.is_zero(page);
            if !zero {
                let copy = if still { &mut scratch } else { &mut self.copies[copied] };
                memory.read_page(page, copy);
                // A page that was zero a moment ago may be so no longer, and the other way round: the copy decides.
                zero = elide && *copy == Page::ZERO;
                if !zero {
                    hasher.update(bytes_of(copy));
                    copied += 1;
                }
            }
            self.append(page, zero);
        }
        self.body.clear();
        self.body.extend_from_slice(&hasher.digest().to_le_bytes());
        for Run { extent, zero } in &self.runs {
            self.body.extend_from_slice(&extent.first.0.to_le_bytes());
            self.body.extend_from_slice(&u32::try_from(extent.pages).unwrap_or(u32::MAX).to_le_bytes());
            self.body.extend_from_slice(&u32::from(*zero).to_le_bytes());
        }
        (super::frame::HEADER + self.body.len() + copied * PAGE_SIZE as usize) as u64
    }

    fn append(&mut self, page: PageIndex, zero: bool) {
        match self.runs.last_mut() {
            Some(Run { extent, zero: same }) if *same == zero && extent.first.0 + extent.pages == page.0 => extent.pages += 1,
            _ => self.runs.push(Run { extent: Extent { first: page, pages: 1 }, zero }),
        }
    }

    /// Sends what was taken.
    pub(crate) fn send(&mut self, memory: &GuestMemory, out: &mut FrameWriter<TcpStream>, still: bool) -> Result<(), WireError> {
        let pages: u64 = self.runs.iter().filter(|r| !r.zero).map(|r| r.extent.pages).sum();
        let data = (pages * PAGE_SIZE) as usize;
        let header = out.header(Kind::Pages, &self.body, data);
        let mut parts = vec![part(&header), part(&self.body)];
        if still {
            for run in self.runs.iter().filter(|r| !r.zero) {
                let range = memory.range(run.extent.first, run.extent.pages)?;
                parts.push(libc::iovec { iov_base: range.cast(), iov_len: range.len() });
            }
        } else if data > 0 {
            parts.push(libc::iovec { iov_base: self.copies.as_mut_ptr().cast(), iov_len: data });
        }
        // SAFETY: header, body and copies live until the call returns; guest memory as long as `memory`; all is only read.
        unsafe { transfer(&out.out, &mut parts, Direction::Out) }
    }
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// The table of a frame of pages, in the order in which the data comes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) runs: Vec<Run>,
    sum: u64,
}

impl Table {
    /// Reads the table in the body of the frame just read; every page must lie below `pages`.
    pub(crate) fn read<R>(&mut self, reader: &FrameReader<R>, header: &Header, pages: u64) -> Result<(), WireError> {
        let bad = WireError::Malformed("table of pages");
        let (Kind::Pages, Some((sum, entries))) = (header.kind, reader.body.split_first_chunk::<8>()) else { return Err(bad) };
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        self.runs.clear();
        self.sum = u64::from_le_bytes(*sum);
        let (mut all, mut data) = (0, 0);
        for entry in entries {
            let first = u64::from_le_bytes(entry[..8].try_into().expect("8 of 16 bytes"));
            let count = u64::from(u32::from_le_bytes(entry[8..12].try_into().expect("4 of 16 bytes")));
            let zero = match entry[12..] {
                [0, 0, 0, 0] => false,
                [1, 0, 0, 0] => true,
                _ => return Err(bad),
            };
            if count == 0 || count > MAX_PAGES || first.checked_add(count).is_none_or(|end| end > pages) {
                return Err(bad);
            }
            all += count;
            data += if zero { 0 } else { count * PAGE_SIZE };
            self.runs.push(Run { extent: Extent { first: PageIndex(first), pages: count }, zero });
        }
        if !rest.is_empty() || all > MAX_PAGES || data != u64::from(header.data) {
            return Err(bad);
        }
        Ok(())
    }

    /// Receives the data to where it belongs, which nobody else accesses.
    pub(crate) fn receive_in_place(&self, input: &TcpStream, memory: &GuestMemory) -> Result<(), WireError> {
        let mut parts = Vec::with_capacity(self.runs.len());
        for run in self.runs.iter().filter(|r| !r.zero) {
            let range = memory.range(run.extent.first, run.extent.pages)?;
            parts.push(libc::iovec { iov_base: range.cast(), iov_len: range.len() });
        }
        // SAFETY: guest memory lives as long as `memory`, and is written by raw copies only, as everywhere.
        unsafe { transfer(input, &mut parts, Direction::In)? };
        let mut hasher = Xxh3::new();
        let mut copy = Page::ZERO;
        for page in self.runs.iter().filter(|r| !r.zero).flat_map(|r| r.extent.iter()) {
            memory.read_page(page, &mut copy);
            hasher.update(bytes_of(&copy));
        }
        self.check(hasher.digest())
    }

    /// Receives the data to a buffer, the pages one behind the other.
    pub(crate) fn receive_aside(&self, input: &TcpStream, buffer: &mut [Page]) -> Result<(), WireError> {
        let pages: u64 = self.runs.iter().filter(|r| !r.zero).map(|r| r.extent.pages).sum();
        let buffer = &mut buffer[..pages as usize];
        let mut parts = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size_of_val(buffer) }];
        // SAFETY: the buffer is as long as said, lives until the call returns, and any bytes are pages.
        unsafe { transfer(input, &mut parts, Direction::In)? };
        let mut hasher = Xxh3::new();
        buffer.iter().for_each(|page| hasher.update(bytes_of(page)));
        self.check(hasher.digest())
    }

    fn check(&self, sum: u64) -> Result<(), WireError> {
        if sum == self.sum { Ok(()) } else { Err(WireError::Checksum("pages")) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// Sends or receives all of the parts. Where the socket times out, nothing moving for [`SILENCE`] is an error.
///
/// # Safety
/// Every part must be memory that may be read (or, with `In`, written) until the call returns.
unsafe fn transfer(socket: &TcpStream, mut parts: &mut [libc::iovec], direction: Direction) -> Result<(), WireError> {
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
        Content::new(5).with_zero_share(0.3).fill(&memory, 1);
        memory
    }

    fn page(memory: &GuestMemory, index: u64) -> Page {
        let mut page = Page::ZERO;
        memory.read_page(PageIndex(index), &mut page);
        page
    }

    const EXTENTS: [Extent; 2] = [Extent { first: PageIndex(3), pages: 20 }, Extent { first: PageIndex(90), pages: 10 }];

    /// The bytes of one frame with these pages.
    fn frame(memory: &GuestMemory, still: bool, elide: bool) -> Vec<u8> {
        let (out, mut input) = pair();
        let mut writer = FrameWriter::new(out, 1, 1);
        let mut sender = PageSender::new();
        let size = sender.take(memory, &EXTENTS, still, elide);
        sender.send(memory, &mut writer, still).unwrap();
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
        let mut table = Table::default();
        table.read(&reader, &header, into.pages())?;
        if in_place {
            table.receive_in_place(&reader.input, into)?;
        } else {
            let mut buffer = vec![Page::ZERO; MAX_PAGES as usize];
            table.receive_aside(&reader.input, &mut buffer)?;
            let pages = table.runs.iter().filter(|r| !r.zero).flat_map(|r| r.extent.iter());
            pages.zip(&buffer).for_each(|(at, content)| into.write_page(at, content));
        }
        Ok(table)
    }

    #[test]
    fn pages_arrive_whichever_way_they_go() {
        let from = memory();
        for (still, elide, in_place) in [(true, true, true), (false, true, false), (true, false, false), (false, false, true)] {
            let into = GuestMemory::allocate(Bytes::from_pages(100), false).unwrap();
            let table = receive(&frame(&from, still, elide), &into, in_place).unwrap();
            assert_eq!(table.runs.iter().any(|r| r.zero), elide);
            assert_eq!(table.runs.iter().map(|r| r.extent.pages).sum::<u64>(), 30);
            for index in 0..100 {
                let sent = EXTENTS.iter().any(|e| e.iter().any(|p| p.0 == index));
                assert_eq!(page(&into, index), if sent { page(&from, index) } else { Page::ZERO }, "page {index}");
            }
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_in_a_frame_is_found() {
        let from = memory();
        let bytes = frame(&from, true, true);
        let into = GuestMemory::allocate(Bytes::from_pages(100), false).unwrap();
        // Every bit of header and table, and of the data one in 1009, which is prime to everything.
        let table = (super::super::frame::HEADER + 8 + 16 * 20) * 8;
        for bit in (0..table).chain((table..bytes.len() * 8).step_by(1009)) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(receive(&damaged, &into, bit % 2 == 0).is_err(), "bit {bit}");
        }
        for cut in [1, 4096, bytes.len() - 60] {
            assert!(receive(&bytes[..bytes.len() - cut], &into, true).is_err(), "{cut} bytes cut off");
        }
    }

    #[test]
    fn pages_beyond_memory_are_refused_before_they_are_read() {
        let bytes = frame(&memory(), true, true);
        let small = GuestMemory::allocate(Bytes::from_pages(99), false).unwrap();
        assert!(matches!(receive(&bytes, &small, true), Err(WireError::Malformed(_))));
    }
}
