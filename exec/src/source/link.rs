//! The source's connections to the destination: how they are set up, and the threads that serve them.

use super::Input;
use super::sender::{Batch, Sender};
use super::sends::Lane;
use crate::tls::Security;
use crate::wire::WireError;
use crate::wire::auth::{self, Greeting, Key, Role};
use crate::wire::dial::{RETRY, Way};
use crate::wire::frame::{FrameReader, FrameWriter, Header, Kind, SILENCE};
use crate::wire::message::Message;
use crate::wire::page_sender::PageSender;
use livemig_core::units::PageIndex;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a read waits before it looks whether there has been silence.
const LOOK: Duration = Duration::from_millis(500);

/// Where the destination is, and how it is to be talked to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Streams are spread over these; control and faults take the first. Never empty.
    pub(super) ways: Vec<Way>,
    pub(super) security: Security,
    pub(super) key: Key,
    pub(super) session: u32,
    pub(super) streams: u16,
}

/// Connections that the destination has let in.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) epoch: u32,
    control: TcpStream,
    fault: TcpStream,
    streams: Vec<TcpStream>,
}

/// Why there are none.
#[derive(Debug)]
pub(super) struct Unconnected {
    /// The host is there and nobody listens.
    pub(super) refused: bool,
    pub(super) why: WireError,
}

impl Target {
    /// Where the destination listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.ways[0].to
    }

    /// Sets all connections up, once.
    fn connect(&self, epoch: u32) -> Result<Connections, Unconnected> {
        let open = |role| self.open(role, epoch).map_err(Unconnected::from);
        let (control, fault) = (open(Role::Control)?, open(Role::Fault)?);
        let streams = (0..self.streams).map(|index| open(Role::Stream(index))).collect::<Result<_, _>>()?;
        Ok(Connections { epoch, control, fault, streams })
    }

    pub(super) fn open(&self, role: Role, epoch: u32) -> Result<TcpStream, WireError> {
        let way = match role {
            Role::Stream(index) => usize::from(index) % self.ways.len(),
            Role::Control | Role::Fault | Role::Stage | Role::Fetch { .. } | Role::Traffic { .. } => 0,
        };
        let mut stream = self.ways[way].dial(&self.security)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        auth::introduce(&mut stream, Greeting { role, session: self.session, epoch }, &self.key)?;
        stream.set_read_timeout(Some(LOOK))?;
        Ok(stream)
    }

    /// Sets connections up on a thread of its own, each attempt in a new epoch; with `again`, until it succeeds or nobody listens to
    /// the news any more. The driver hears of every attempt.
    pub(super) fn connect_in_background(self, epochs: Arc<AtomicU32>, again: bool, news: mpsc::Sender<Input>) -> io::Result<()> {
        let body = move || {
            loop {
                let result = self.connect(epochs.fetch_add(1, Ordering::Relaxed) + 1);
                let done = result.is_ok() || !again;
                let input = match result {
                    Ok(connections) => Input::Connected(connections),
                    Err(why) => Input::Unconnected(why),
                };
                if news.send(input).is_err() || done {
                    return;
                }
                std::thread::sleep(RETRY);
            }
        };
        std::thread::Builder::new().name("connector".to_owned()).spawn(body).map(drop)
    }
}

impl From<WireError> for Unconnected {
    fn from(why: WireError) -> Unconnected {
        let refused = matches!(&why, WireError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused);
        Unconnected { refused, why }
    }
}

/// Connections in use.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) epoch: u32,
    control: FrameWriter<TcpStream>,
    fault: Arc<Mutex<FrameWriter<TcpStream>>>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    /// Bytes of messages other than orders, in both directions.
    small: Arc<AtomicU64>,
    shared: Arc<Sender>,
    pinged: Instant,
}

/// What a thread that serves a connection needs.
struct Server {
    epoch: u32,
    session: u32,
    shared: Arc<Sender>,
    news: mpsc::Sender<Input>,
    small: Arc<AtomicU64>,
}

impl Link {
    /// Puts connections to use.
    pub(super) fn start(
        connections: Connections,
        session: u32,
        shared: &Arc<Sender>,
        news: &mpsc::Sender<Input>,
        small: &Arc<AtomicU64>,
    ) -> io::Result<Link> {
        let Connections { epoch, control, fault, streams } = connections;
        let server = || Server { epoch, session, shared: shared.clone(), news: news.clone(), small: small.clone() };
        let mut sockets = vec![control.try_clone()?, fault.try_clone()?];
        for stream in &streams {
            sockets.push(stream.try_clone()?);
        }
        let fault_out = Arc::new(Mutex::new(FrameWriter::new(fault.try_clone()?, session, epoch)));
        let count = u16::try_from(streams.len()).unwrap_or(u16::MAX);
        let mut link = Link {
            epoch,
            control: FrameWriter::new(control.try_clone()?, session, epoch),
            fault: fault_out.clone(),
            sockets,
            threads: Vec::new(),
            small: small.clone(),
            shared: shared.clone(),
            pinged: Instant::now(),
        };
        // A stream's thread that finds its epoch not in use ends.
        shared.connected(epoch, count);
        let (s, input) = (server(), control);
        link.thread("control", move || s.watch("control", s.serve_control(input)))?;
        let (s, input) = (server(), fault);
        link.thread("fault", move || s.watch("fault", s.serve_faults(input, &fault_out)))?;
        for (index, stream) in (0..).zip(streams) {
            let (s, input) = (server(), stream.try_clone()?);
            link.thread("acks", move || s.watch("stream", s.serve_acks(input, index)))?;
            let s = server();
            link.thread("stream", move || s.watch("stream", s.send(stream, index)))?;
        }
        Ok(link)
    }

    fn thread(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// Sends a message on the control connection; how many bytes that took.
    pub(super) fn post(&mut self, message: &Message) -> Result<u64, WireError> {
        self.pinged = Instant::now();
        self.control.message(message)
    }

    /// Gives a sign of life when it is time for one; when it will be time again.
    pub(super) fn ping(&mut self) -> Result<Duration, WireError> {
        let since = self.pinged.elapsed();
        if since < LOOK {
            return Ok(LOOK - since);
        }
        let bytes = self.post(&Message::Ping)?;
        self.small.fetch_add(bytes, Ordering::Relaxed);
        Ok(LOOK)
    }

    /// Sends what the destination has asked for and could not be sent then.
    pub(super) fn serve_wanted(&self) -> Result<(), WireError> {
        let mut page_sender = None;
        loop {
            let mut out = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(batch) = self.shared.next_wanted(self.epoch, out.next_seq()) else { return Ok(()) };
            write(&self.shared, page_sender.get_or_insert_with(PageSender::new), &batch, &mut out, Lane::Fault)?;
        }
    }
}

impl Drop for Link {
    /// Hangs up, and waits for the threads: nothing of this epoch happens afterwards.
    fn drop(&mut self) {
        self.shared.disconnected();
        for socket in &self.sockets {
            // Already closed is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // They end with their sockets; one that failed has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Server {
    /// Tells the driver that the connections are of no use any more.
    fn watch(&self, connection: &'static str, ended: Result<(), WireError>) {
        if let Err(why) = ended {
            // A driver that is gone has ended its migration.
            let _ = self.news.send(Input::Broken { epoch: self.epoch, connection, why });
        }
    }

    fn check(&self, header: &Header) -> Result<(), WireError> {
        if header.kind != Kind::Message {
            return Err(WireError::Malformed("message"));
        }
        if header.session == self.session && header.epoch == self.epoch { Ok(()) } else { Err(WireError::Outdated) }
    }

    fn serve_control(&self, input: TcpStream) -> Result<(), WireError> {
        let mut reader = FrameReader::new(input, 0);
        let mut heard = Instant::now();
        loop {
            let Some(header) = reader.next()? else {
                if heard.elapsed() > SILENCE {
                    return Err(WireError::Silence);
                }
                continue;
            };
            heard = Instant::now();
            self.check(&header)?;
            self.small.fetch_add(u64::from(header.body) + crate::wire::frame::HEADER as u64, Ordering::Relaxed);
            match reader.message(&header)? {
                Message::Answer { id, answer } => {
                    if self.news.send(Input::Answer { id, answer }).is_err() {
                        return Ok(());
                    }
                }
                Message::Ping => {}
                Message::Order { .. } | Message::Ack { .. } | Message::Ask { .. } => return Err(WireError::Malformed("message")),
            }
        }
    }

    fn serve_faults(&self, input: TcpStream, out: &Mutex<FrameWriter<TcpStream>>) -> Result<(), WireError> {
        let mut reader = FrameReader::new(input, 0);
        let mut page_sender = PageSender::new();
        loop {
            let Some(header) = reader.next()? else { continue };
            self.check(&header)?;
            self.small.fetch_add(u64::from(header.body) + crate::wire::frame::HEADER as u64, Ordering::Relaxed);
            match reader.message(&header)? {
                Message::Ask { page } => {
                    if page >= self.shared.memory.pages() {
                        return Err(WireError::Malformed("request for a page"));
                    }
                    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(batch) = self.shared.asked(self.epoch, PageIndex(page), out.next_seq()) {
                        write(&self.shared, &mut page_sender, &batch, &mut out, Lane::Fault)?;
                    }
                }
                Message::Ack { seq } => self.shared.acknowledged(self.epoch, (Lane::Fault, seq)),
                Message::Ping => {}
                Message::Order { .. } | Message::Answer { .. } => return Err(WireError::Malformed("message")),
            }
        }
    }

    fn serve_acks(&self, input: TcpStream, stream: u16) -> Result<(), WireError> {
        let mut reader = FrameReader::new(input, 0);
        loop {
            let Some(header) = reader.next()? else { continue };
            self.check(&header)?;
            let Message::Ack { seq } = reader.message(&header)? else { return Err(WireError::Malformed("message")) };
            self.small.fetch_add(u64::from(header.body) + crate::wire::frame::HEADER as u64, Ordering::Relaxed);
            self.shared.acknowledged(self.epoch, (Lane::Stream(stream), seq));
        }
    }

    fn send(&self, stream: TcpStream, index: u16) -> Result<(), WireError> {
        let mut out = FrameWriter::new(stream, self.session, self.epoch);
        // How pages are read is known when there are some to send.
        let mut page_sender = None;
        while let Some(batch) = self.shared.next(self.epoch, index, out.next_seq()) {
            let page_sender = page_sender.get_or_insert_with(|| self.shared.page_sender());
            write(&self.shared, page_sender, &batch, &mut out, Lane::Stream(index))?;
        }
        Ok(())
    }
}

/// Takes the pages of a batch as they are now, and writes them.
pub(super) fn write(
    shared: &Sender,
    page_sender: &mut PageSender,
    batch: &Batch,
    out: &mut FrameWriter<TcpStream>,
    lane: Lane,
) -> Result<(), WireError> {
    let bytes = page_sender.take(&shared.memory, &batch.extents, batch.treatment)?;
    shared.count(batch.send, bytes, lane);
    page_sender.send(&shared.memory, out)
}
