//! What an agent reports, from any of its threads, in the order in which each of them does.

use super::message::{FromAgent, Record};
use crate::wire::frame::FrameWriter;
use livemig_core::units::Span;
use std::io::{self, Write};
use std::sync::mpsc::{self, SyncSender, TrySendError};

/// Reports that may wait for a coordinator that is slow; whoever reports waits from then on.
const QUEUE: usize = 1 << 16;

/// Where reports go.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    queue: SyncSender<FromAgent>,
}

impl Reports {
    /// Writes reports to `output`, on a thread of its own, for as long as that takes them.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Reports> {
        let (queue, reports) = mpsc::sync_channel(QUEUE);
        let body = move || {
            let mut out = FrameWriter::new(output, 0, 0);
            for report in reports {
                if out.message(&report).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("reports".to_owned()).spawn(body)?;
        Ok(Reports { queue })
    }

    pub(crate) fn send(&self, report: FromAgent) {
        match self.queue.try_send(report) {
            // A coordinator that has hung up wants no reports; the agent ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(report)) => {
                let _ = self.queue.send(report);
            }
        }
    }

    pub(crate) fn record(&self, session: u32, record: Record) {
        self.send(FromAgent::Record { session, record });
    }

    pub(crate) fn ended(&self, session: u32) {
        self.send(FromAgent::Ended { session });
    }

    pub(crate) fn stalls(&self, session: u32, stalls: Vec<Span>) {
        self.send(FromAgent::Stalls { session, stalls });
    }

    pub(crate) fn warn(&self, text: String) {
        self.send(FromAgent::Warning { text });
    }
}
