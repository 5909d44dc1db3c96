//! A connection to an intermediary, on which pages are left there.

use super::Input;
use super::link::{self, Target, Unconnected};
use super::probing::{Errand, Parcel, contents_of};
use super::sender::Sender;
use super::sends::Lane;
use crate::wire::WireError;
use crate::wire::auth::Role;
use crate::wire::fingerprint::Fingerprints;
use crate::wire::frame::{FrameReader, FrameWriter, HEADER, SILENCE};
use crate::wire::page_sender::PageSender;
use crate::wire::stage::StageMessage;
use livemig_core::units::Bytes;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

/// What is new with the connection to an intermediary.
#[derive(Debug)]
pub(super) enum StageNews {
    Connected {
        epoch: u32,
        stream: TcpStream,
    },
    Unconnected(Unconnected),
    /// It has answered that it keeps pages, if it has room, and whether it has kept some of this session before.
    Kept {
        epoch: u32,
        room: bool,
        known: bool,
    },
    /// It keeps so much.
    Holds(Bytes),
    /// The connection is of no use any more.
    Broken {
        epoch: u32,
        why: WireError,
    },
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct StageLink {
    pub(super) epoch: u32,
    via: u16,
    socket: TcpStream,
    shared: Arc<Sender>,
    ending: Arc<AtomicBool>,
    /// Until the first batch is asked for, the writer is here.
    writer: Option<FrameWriter<TcpStream>>,
    fingerprints: Option<Fingerprints>,
    sending: Option<JoinHandle<Option<FrameWriter<TcpStream>>>>,
    hearing: Option<JoinHandle<()>>,
}

/// What its threads need.
#[derive(Clone)]
struct Server {
    via: u16,
    epoch: u32,
    session: u32,
    fingerprints: Option<Fingerprints>,
    shared: Arc<Sender>,
    news: mpsc::Sender<Input>,
    small: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
}

/// Connects on a thread of its own, once.
pub(super) fn connect_in_background(target: Target, via: u16, epoch: u32, news: mpsc::Sender<Input>) -> io::Result<()> {
    let body = move || {
        let opened = target.open(Role::Stage, epoch).map_err(Unconnected::from);
        let news_of = opened.map_or_else(StageNews::Unconnected, |stream| StageNews::Connected { epoch, stream });
        // A driver that is gone has ended its migration.
        let _ = news.send(Input::Stage(via, news_of));
    };
    std::thread::Builder::new().name("connector".to_owned()).spawn(body).map(drop)
}

impl StageLink {
    /// Asks the intermediary to keep pages of a guest that has so many, with `fingerprints` by their content; its answer is news.
    pub(super) fn open(
        (via, epoch, session): (u16, u32, u32),
        fingerprints: Option<Fingerprints>,
        stream: TcpStream,
        shared: &Arc<Sender>,
        news: &mpsc::Sender<Input>,
        small: &Arc<AtomicU64>,
    ) -> Result<StageLink, WireError> {
        let mut writer = FrameWriter::new(stream.try_clone()?, session, epoch);
        let bytes = writer.message(&StageMessage::Keep { pages: shared.memory.pages(), shared: fingerprints.is_some() })?;
        small.fetch_add(bytes, Ordering::Relaxed);
        let ending = Arc::new(AtomicBool::new(false));
        let server = Server {
            via,
            epoch,
            session,
            fingerprints,
            shared: shared.clone(),
            news: news.clone(),
            small: small.clone(),
            ending: ending.clone(),
        };
        let input = stream.try_clone()?;
        let hearing = std::thread::Builder::new().name("stored".to_owned()).spawn(move || server.watch(server.hear(input)))?;
        Ok(StageLink {
            epoch,
            via,
            socket: stream,
            shared: shared.clone(),
            ending,
            writer: Some(writer),
            fingerprints,
            sending: None,
            hearing: Some(hearing),
        })
    }

    /// The intermediary has room: pages may go there.
    pub(super) fn begin(&mut self, session: u32, news: &mpsc::Sender<Input>, small: &Arc<AtomicU64>) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let server = Server {
            via: self.via,
            epoch: self.epoch,
            session,
            fingerprints: self.fingerprints,
            shared: self.shared.clone(),
            news: news.clone(),
            small: small.clone(),
            ending: self.ending.clone(),
        };
        self.shared.stage_connected(self.via, self.epoch);
        self.sending = Some(std::thread::Builder::new().name("stage".to_owned()).spawn(move || server.send(writer))?);
        Ok(())
    }

    /// Tells the intermediary that nothing is needed any more of what it keeps, and waits until it hangs up, or for as long as a
    /// silence is bearable.
    pub(super) fn free(mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.shared.stage_disconnected(self.via, false);
        let writer = self.writer.take().or_else(|| self.sending.take().and_then(|thread| thread.join().ok().flatten()));
        // One that has hung up already has nothing to free.
        if writer.is_some_and(|mut out| out.message(&StageMessage::Free).is_ok())
            && let Some(thread) = self.hearing.take()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for StageLink {
    /// Hangs up, and waits for the threads: nothing of this epoch happens afterwards.
    fn drop(&mut self) {
        self.shared.stage_disconnected(self.via, false);
        // Already closed is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
        // They end with their socket; one that failed has nothing more to say.
        if let Some(thread) = self.sending.take() {
            let _ = thread.join();
        }
        if let Some(thread) = self.hearing.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    /// Tells the driver that the connection is of no use any more.
    fn watch(&self, ended: Result<(), WireError>) {
        if let Err(why) = ended {
            self.tell(StageNews::Broken { epoch: self.epoch, why });
        }
    }

    fn tell(&self, news: StageNews) {
        // A driver that is gone has ended its migration.
        let _ = self.news.send(Input::Stage(self.via, news));
    }

    fn hear(&self, input: TcpStream) -> Result<(), WireError> {
        let mut reader = FrameReader::new(input, 0);
        let (mut heard, mut told, mut kept) = (Instant::now(), Bytes::ZERO, false);
        loop {
            let Some(header) = reader.next()? else {
                let owes = !kept || self.shared.awaits(self.via) || self.ending.load(Ordering::Relaxed);
                if owes && heard.elapsed() > SILENCE {
                    return Err(WireError::Silence);
                }
                continue;
            };
            heard = Instant::now();
            if header.session != self.session || header.epoch != self.epoch {
                return Err(WireError::Outdated);
            }
            self.small.fetch_add(u64::from(header.body) + HEADER as u64, Ordering::Relaxed);
            let (last, held) = match reader.message(&header)? {
                StageMessage::Kept { room, known } => {
                    kept = true;
                    self.tell(StageNews::Kept { epoch: self.epoch, room, known });
                    continue;
                }
                StageMessage::Stored { seq, stored, held } => (self.shared.stored(self.via, self.epoch, seq, stored), held),
                StageMessage::Probed { seq, found, held } => (self.shared.told(self.via, self.epoch, seq, &found)?, held),
                StageMessage::Keep { .. } | StageMessage::Fetch { .. } | StageMessage::Free | StageMessage::Probe { .. } => {
                    return Err(WireError::Malformed("message"));
                }
            };
            if last || super::staging::is_news(told, held) {
                told = held;
                self.tell(StageNews::Holds(held));
            }
        }
    }

    /// Sends batches until the connection is done with; the writer, if it can still be used.
    fn send(&self, mut out: FrameWriter<TcpStream>) -> Option<FrameWriter<TcpStream>> {
        let mut page_sender = PageSender::new();
        while let Some(parcel) = self.shared.next_staged(self.via, self.epoch, out.next_seq()) {
            if let Err(why) = self.pass_on(parcel, &mut page_sender, &mut out) {
                self.watch(Err(why));
                return None;
            }
        }
        Some(out)
    }

    /// Does what is to be done with a parcel.
    fn pass_on(&self, parcel: Parcel, page_sender: &mut PageSender, out: &mut FrameWriter<TcpStream>) -> Result<(), WireError> {
        let Parcel { flight, batch, errand } = parcel;
        match (errand, &self.fingerprints) {
            (Errand::Sort, Some(fingerprints)) => {
                let contents = contents_of(&*self.shared.memory, &batch, fingerprints);
                self.shared.spread(flight, &batch, contents);
                Ok(())
            }
            (Errand::Ask { fingerprints, .. }, _) => {
                let bytes = out.message(&StageMessage::probe(&batch.extents, fingerprints))?;
                self.shared.count(batch.send, bytes, Lane::Staged);
                Ok(())
            }
            (Errand::Send | Errand::Sort, _) => link::write(&self.shared, page_sender, &batch, out, Lane::Staged),
        }
    }
}
