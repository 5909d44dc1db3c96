//! A stand-in for a network that knows frames, and damages the ones that it is told to, one after the other.
//!
//! After each damage it leaves the connections of that epoch alone, which are of no use any more, and waits for those of the next.

use livemig_exec::run::Route;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Bytes of a frame's header.
const HEADER: usize = 48;
/// What source and destination say before frames.
const FORTH: [usize; 2] = [52, 32];
const BACK: [usize; 2] = [64, 1];

/// A frame that is looked for: the connection's role, whether it goes to the destination, and how its body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) role: u8,
    pub(crate) forth: bool,
    pub(crate) content: Content,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Pages,
    /// A message of this variant; of orders and answers, of this variant too.
    Message(u8, Option<u8>),
}

/// A place in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Header(usize),
    Body(Part),
    Data(Part),
    /// The checksum behind the last piece of data.
    Sum,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    First,
    Middle,
    Last,
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// This bit of the byte there.
    Flip(Place, u8),
    /// Nothing comes from there on.
    CutOff(Place),
    LeaveOut,
    Double,
    /// The next one comes first.
    Swap,
}

impl How {
    fn is_about_data(self) -> bool {
        matches!(self, How::Flip(Place::Data(_) | Place::Sum, _) | How::CutOff(Place::Data(_) | Place::Sum))
    }
}

/// What is to happen to which frame.
pub(crate) type Hit = (Sort, How);

/// What is still to happen, and the epoch of the connections that were damaged last.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) left: VecDeque<Hit>,
    epoch: u32,
}

/// A route on which all of this happens.
pub(crate) fn through(hits: Vec<Hit>) -> (Route, Arc<Mutex<Plan>>) {
    let plan = Arc::new(Mutex::new(Plan { left: hits.into(), epoch: 0 }));
    let shared = plan.clone();
    (Arc::new(move |to| listen(to, &shared)), plan)
}

fn listen(to: SocketAddr, plan: &Arc<Mutex<Plan>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, plan) = (listener.local_addr().unwrap(), plan.clone());
    std::thread::spawn(move || {
        for source in listener.incoming() {
            let (Ok(source), Ok(destination)) = (source, TcpStream::connect(to)) else { return };
            let plan = plan.clone();
            std::thread::spawn(move || connection(&source, &destination, &plan));
        }
    });
    address
}

/// Carries a connection to its end.
fn connection(source: &TcpStream, destination: &TcpStream, plan: &Mutex<Plan>) {
    for socket in [source, destination] {
        socket.set_nodelay(true).unwrap();
    }
    let mut greeting = [0; FORTH[0]];
    let mut from: &TcpStream = source;
    if from.read_exact(&mut greeting).is_err() {
        return;
    }
    let role = greeting[8];
    let epoch = u32::from_le_bytes(greeting[16..20].try_into().unwrap());
    let hang_up = || [source, destination].map(|socket| socket.shutdown(Shutdown::Both));
    std::thread::scope(|scope| {
        let carry = |from: &TcpStream, mut into: &TcpStream, forth: bool, begin: &[u8]| {
            // Whatever ends one direction ends the other.
            let _ = into.write_all(begin).and_then(|()| Carrier { from, into, role, forth, epoch, plan }.carry());
            let _ = hang_up();
        };
        scope.spawn(move || carry(source, destination, true, &greeting));
        scope.spawn(move || carry(destination, source, false, &[]));
    });
}

struct Carrier<'a> {
    from: &'a TcpStream,
    into: &'a TcpStream,
    role: u8,
    forth: bool,
    epoch: u32,
    plan: &'a Mutex<Plan>,
}

/// A whole frame.
struct Frame {
    bytes: Vec<u8>,
    body: usize,
}

impl Carrier<'_> {
    fn carry(&mut self) -> io::Result<()> {
        let greeting = if self.forth { &FORTH[1..] } else { &BACK[..] };
        for &size in greeting {
            let bytes = self.read(size)?;
            self.into.write_all(&bytes)?;
        }
        loop {
            let frame = self.frame()?;
            let mut bytes = frame.bytes.clone();
            match self.hit(&frame) {
                None => {}
                Some(How::Flip(place, bit)) => bytes[frame.offset(place)] ^= 1 << bit,
                Some(How::CutOff(place)) => {
                    self.into.write_all(&bytes[..frame.offset(place)])?;
                    return Ok(());
                }
                Some(How::LeaveOut) => continue,
                Some(How::Double) => bytes.extend_from_slice(&frame.bytes),
                Some(How::Swap) => {
                    let next = self.frame()?;
                    bytes.splice(0..0, next.bytes);
                }
            }
            self.into.write_all(&bytes)?;
        }
    }

    fn read(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn frame(&mut self) -> io::Result<Frame> {
        let mut bytes = self.read(HEADER)?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (body, data) = (word(20), word(24));
        let rest = self.read(body + data)?;
        bytes.extend(rest);
        Ok(Frame { bytes, body })
    }

    /// What is to happen to this frame, which is then done with.
    fn hit(&self, frame: &Frame) -> Option<How> {
        let sort = |content| Sort { role: self.role, forth: self.forth, content };
        let mut plan = self.plan.lock().unwrap();
        let &(wanted, how) = plan.left.front()?;
        let is_it = match wanted.content {
            Content::Pages => frame.bytes[6] == 2,
            Content::Message(of, kind) => frame.is_message(of, kind),
        };
        // A frame of nothing but zeros has no data.
        let is_it = is_it && (!how.is_about_data() || frame.bytes.len() > HEADER + frame.body);
        if !is_it || wanted != sort(wanted.content) || self.epoch <= plan.epoch {
            return None;
        }
        plan.left.pop_front();
        plan.epoch = self.epoch;
        Some(how)
    }
}

impl Frame {
    /// Whether it is a message of this variant: the first byte of its body. Orders and answers have a number of seven bits a byte, and
    /// then their own variant.
    fn is_message(&self, of: u8, kind: Option<u8>) -> bool {
        let body = &self.bytes[HEADER..HEADER + self.body];
        let after_number = || 2 + body[1..].iter().take_while(|b| **b & 0x80 != 0).count();
        self.bytes[6] == 1 && body[0] == of && kind.is_none_or(|kind| body[after_number()] == kind)
    }

    fn offset(&self, place: Place) -> usize {
        let within = |from: usize, size: usize, part| match part {
            _ if size == 0 => panic!("there is no {place:?}"),
            Part::First => from,
            Part::Middle => from + size / 2,
            Part::Last => from + size - 1,
        };
        let data = HEADER + self.body;
        match place {
            Place::Header(at) => at,
            Place::Body(part) => within(HEADER, self.body, part),
            Place::Data(part) => within(data, self.bytes.len().saturating_sub(data + 8), part),
            Place::Sum => self.bytes.len() - 3,
        }
    }
}
