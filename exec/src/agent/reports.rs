//! What an agent reports, from any of its threads, in the order in which each of them does.

use super::message::{FromAgent, Record};
use crate::wire::frame::FrameWriter;
use livemig_core::units::Span;
use std::io::{self, Write};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

/// Reports that may wait for a coordinator that is slow; whoever reports waits from then on.
const QUEUE: usize = 1 << 16;

/// A coordinator that takes longer to take reports is not waited for.
const FLUSH: Duration = Duration::from_secs(1);

/// Where reports go.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    queue: SyncSender<Item>,
}

#[derive(Debug)]
enum Item {
    Report(Box<FromAgent>),
    /// Everything before this has been written.
    Flushed(SyncSender<()>),
}

impl Reports {
    /// Writes reports to `output`, on a thread of its own, for as long as that takes them.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Reports> {
        let (queue, reports) = mpsc::sync_channel(QUEUE);
        let body = move || {
            let mut out = FrameWriter::new(output, 0, 0);
            for item in reports {
                match item {
                    Item::Report(report) => {
                        if out.message(&*report).is_err() {
                            return;
                        }
                    }
                    // Whoever waited may have given up.
                    Item::Flushed(done) => drop(done.try_send(())),
                }
            }
        };
        std::thread::Builder::new().name("reports".to_owned()).spawn(body)?;
        Ok(Reports { queue })
    }

    pub(crate) fn send(&self, report: FromAgent) {
        self.queue(Item::Report(Box::new(report)));
    }

    fn queue(&self, item: Item) {
        match self.queue.try_send(item) {
            // A coordinator that has hung up wants no reports; the agent ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(item)) => {
                let _ = self.queue.send(item);
            }
        }
    }

    /// Waits until everything reported so far is in the coordinator's socket, where the end of this process does not reach it.
    pub(crate) fn flush(&self) {
        let (done, flushed) = mpsc::sync_channel(1);
        self.queue(Item::Flushed(done));
        let _ = flushed.recv_timeout(FLUSH);
    }

    pub(crate) fn record(&self, session: u32, record: Record) {
        self.send(FromAgent::Record { session, record });
    }

    pub(crate) fn ended(&self, session: u32) {
        self.send(FromAgent::Ended { session });
    }

    pub(crate) fn handed_over(&self, session: u32) {
        self.send(FromAgent::HandedOver { session });
    }

    pub(crate) fn stalls(&self, session: u32, stalls: Vec<Span>) {
        self.send(FromAgent::Stalls { session, stalls });
    }

    pub(crate) fn warn(&self, text: String) {
        self.send(FromAgent::Warning { text });
    }
}
