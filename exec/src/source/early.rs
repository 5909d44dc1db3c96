//! Pages that a destination asks for while it starts the guest: before the migration has ordered the push that they are part of.

use super::sends::{Frame, OutSend};
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PageIndex};
use std::collections::BTreeMap;

/// Pages served ahead of their send. The guest stands still here and is missing them there, so each has one version only.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// The source serves faults, and the push has not begun.
    pub(super) open: bool,
    /// The frame that each is on its way in; `None` once it has been acknowledged.
    pages: BTreeMap<PageIndex, Option<Frame>>,
    wire: Bytes,
}

impl Early {
    /// Whether this page is to be sent now, in this frame.
    pub(super) fn serve(&mut self, page: PageIndex, frame: Frame) -> bool {
        let fresh = self.open && !self.pages.contains_key(&page);
        if fresh {
            self.pages.insert(page, Some(frame));
        }
        fresh
    }

    /// A frame takes so many bytes on the wire.
    pub(super) fn count(&mut self, bytes: Bytes) {
        self.wire += bytes;
    }

    /// A frame has been applied: its page, if it is one of these.
    pub(super) fn acknowledged(&mut self, frame: Frame) -> Option<PageIndex> {
        let (page, of) = self.pages.iter_mut().find(|(_, of)| **of == Some(frame))?;
        *of = None;
        Some(*page)
    }

    /// What is on its way is lost, and will be asked for again.
    pub(super) fn take_back(&mut self) {
        self.pages.retain(|_, frame| frame.is_none());
    }

    /// The push begins: what it has less to send, and what is on its way of it.
    pub(super) fn hand_over(&mut self, send: &mut OutSend) {
        let Early { open: _, pages, wire } = std::mem::take(self);
        for (page, frame) in pages {
            if send.plan.fault(page)
                && let Some(frame) = frame
            {
                send.launch(frame, vec![Extent { first: page, pages: 1 }]);
            }
        }
        send.count(wire, super::sends::Lane::Fault);
    }
}
