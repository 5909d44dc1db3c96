//! Sending ends of flows.

use super::{Flow, Life, PIECE, STILL, TICK};
use crate::agent::Guests;
use crate::bucket::Bucket;
use crate::error::ExecError;
use crate::tls::Security;
use crate::wire::WireError;
use crate::wire::auth::{self, Greeting, Role};
use crate::wire::dial::RETRY;
use crate::wire::frame::SILENCE;
use livemig_core::units::{PAGE_SIZE, Rate};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a flow offers that takes whatever it gets: more than this machine moves.
const UNLIMITED: Rate = Rate(5e9);
/// What may wait in the socket of a flow beyond what is on its way.
const UNSENT: libc::c_int = 128 << 10;

/// The taps of a host, by the numbers of their flows.
#[derive(Debug)]
pub(crate) struct Taps {
    guests: Arc<Guests>,
    security: Security,
    open: BTreeMap<u32, Arc<Tap>>,
}

/// One sending end.
#[derive(Debug)]
pub(super) struct Tap {
    flow: Flow,
    guests: Arc<Guests>,
    security: Security,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    connection: Option<TcpStream>,
}

impl Taps {
    pub(crate) fn new(guests: Arc<Guests>, security: Security) -> Taps {
        Taps { guests, security, open: BTreeMap::new() }
    }

    /// Opens the tap of a flow, in place of an earlier one.
    pub(crate) fn open(&mut self, flow: Flow) -> Result<(), ExecError> {
        let number = flow.number;
        let tap = Tap { flow, guests: self.guests.clone(), security: self.security.clone(), state: Mutex::default() };
        let tap = Arc::new(tap);
        self.close(number);
        self.open.insert(number, tap.clone());
        let thread = std::thread::Builder::new().name("traffic".to_owned()).spawn(move || tap.run());
        thread.map(drop).map_err(|source| ExecError::Kernel { call: "starting a thread for traffic", source })
    }

    /// Closes the tap of a flow, if there is one.
    pub(crate) fn close(&mut self, flow: u32) {
        if let Some(tap) = self.open.remove(&flow) {
            tap.close();
        }
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        self.open.values().for_each(|tap| tap.close());
    }
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if let Some(connection) = state.connection.take() {
            // One that the other end has closed is closed.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// The thread: connects again and again, whatever becomes of the connection, until the tap is closed.
    fn run(&self) {
        while !self.is_closed() {
            if let Some(life) = Life::of(self.flow.from, &self.guests) {
                // Whoever is not there any more, or cut off, is tried again.
                let _ = self.carry(&life);
            }
            std::thread::sleep(RETRY);
        }
    }

    fn carry(&self, life: &Life) -> Result<(), WireError> {
        let mut stream = self.connect()?;
        let start = Instant::now();
        let before = life.lived();
        let mut bucket = Bucket::lenient(self.flow.rate.unwrap_or(UNLIMITED), start, STILL);
        let piece = usize::try_from(bucket.batch() * PAGE_SIZE).unwrap_or(PIECE).min(PIECE);
        let nothing = vec![0; piece];
        while !self.is_closed() {
            // The bucket's clock is the guest's.
            let wait = bucket.wait(start + life.lived().saturating_sub(before));
            if wait.is_zero() {
                let sent = stream.write(&nothing)?;
                if sent == 0 {
                    return Err(WireError::Closed);
                }
                bucket.spend(sent as u64);
            } else {
                std::thread::sleep(wait.clamp(Duration::from_micros(200), TICK));
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<TcpStream, WireError> {
        let Flow { number, to, ref way, ref key, .. } = self.flow;
        let mut stream = way.dial(&self.security)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let role = Role::Traffic { to_guest: to.is_some() };
        auth::introduce(&mut stream, Greeting { role, session: number, epoch: to.unwrap_or(0) }, key)?;
        keep_short(&stream)?;
        let mut state = self.state();
        state.connection = Some(stream.try_clone()?);
        Ok(stream)
    }
}

/// What waits in a socket goes out whatever becomes of the guest that sent it: it shall be little.
fn keep_short(stream: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (bytes, length) = (UNSENT, size_of_val(&UNSENT) as libc::socklen_t);
    // SAFETY: reads one integer of this length.
    let set = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), length)
    };
    // The local end of a connection that is encrypted elsewhere is no TCP socket, and its buffer is short anyway.
    let error = io::Error::last_os_error();
    if set == 0 || error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(()) } else { Err(error) }
}
