//! The sending end of [frames of pages](super::pages).

use super::WireError;
use super::frame::{FrameWriter, HEADER, Kind};
use super::pages::{Buffer, Direction, PIECE, Run, SUM, bytes_of, copy_out, new_buffer, part, pieces, sum_of, transfer};
use crate::memory::{GuestMemory, ReadPages, Windows};
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::net::TcpStream;

/// Makes frames of pages.
pub(crate) struct PageSender {
    /// Copies of the pages of a piece.
    copies: Box<Buffer>,
    runs: Vec<Run>,
    body: Vec<u8>,
    /// Through which guest memory is read; without, where it is.
    windows: Option<Windows>,
}

impl PageSender {
    pub(crate) fn new() -> PageSender {
        PageSender { copies: new_buffer(), runs: Vec::new(), body: Vec::new(), windows: None }
    }

    /// One that maps what it reads, and unmaps it when it goes on.
    pub(crate) fn through(windows: Windows) -> PageSender {
        PageSender { windows: Some(windows), ..PageSender::new() }
    }

    /// Takes the pages for a frame; with `elide`, those that are zero just now become marks. (If the guest writes to one of them,
    /// it has been collected before, and will be again.) Returns the bytes that the frame takes on the wire.
    pub(crate) fn take(&mut self, memory: &GuestMemory, extents: &[Extent], elide: bool) -> Result<u64, WireError> {
        if let Some(windows) = &mut self.windows {
            windows.cover(memory, extents)?;
        }
        self.runs.clear();
        if elide {
            let pages = readable(self.windows.as_ref(), memory);
            extents.iter().flat_map(|e| e.iter()).for_each(|page| append(&mut self.runs, page, pages.is_zero(page)));
        } else {
            self.runs.extend(extents.iter().map(|&extent| Run { extent, zero: false }));
        }
        self.body.clear();
        for Run { extent, zero } in &self.runs {
            self.body.extend_from_slice(&extent.first.0.to_le_bytes());
            self.body.extend_from_slice(&u32::try_from(extent.pages).unwrap_or(u32::MAX).to_le_bytes());
            self.body.extend_from_slice(&u32::from(*zero).to_le_bytes());
        }
        let pages = self.data_pages();
        Ok((HEADER + self.body.len()) as u64 + pages * PAGE_SIZE + pages.div_ceil(PIECE) * SUM as u64)
    }

    fn data_pages(&self) -> u64 {
        self.runs.iter().filter(|r| !r.zero).map(|r| r.extent.pages).sum()
    }

    /// Sends what was taken, as it is now.
    pub(crate) fn send(&mut self, memory: &GuestMemory, out: &mut FrameWriter<TcpStream>) -> Result<(), WireError> {
        let header = out.header(Kind::Pages, &self.body, (self.data_pages() * PAGE_SIZE) as usize);
        let mut parts = vec![part(&header), part(&self.body)];
        for piece in pieces(&self.runs) {
            let copies = copy_out(readable(self.windows.as_ref(), memory), &piece, &mut self.copies);
            let sum = sum_of(copies);
            parts.extend([part(bytes_of(copies)), part(&sum)]);
            // SAFETY: header, body, copies and sum live until the call returns, and are only read.
            unsafe { transfer(&out.out, &mut parts, Direction::Out)? };
            parts.clear();
        }
        // A frame of marks alone has no piece.
        // SAFETY: as above.
        unsafe { transfer(&out.out, &mut parts, Direction::Out) }
    }
}

/// Where guest memory is read.
fn readable<'a>(windows: Option<&'a Windows>, memory: &'a GuestMemory) -> &'a dyn ReadPages {
    match windows {
        Some(windows) => windows,
        None => memory,
    }
}

fn append(runs: &mut Vec<Run>, page: PageIndex, zero: bool) {
    match runs.last_mut() {
        Some(Run { extent, zero: same }) if *same == zero && extent.first.0 + extent.pages == page.0 => extent.pages += 1,
        _ => runs.push(Run { extent: Extent { first: page, pages: 1 }, zero }),
    }
}
