//! The destination's side of migrations: it listens, takes pages, does what it is told once, and runs the guest when told so. Pages
//! that are staged elsewhere it fetches, and goes on with that when the source is free.

mod book;
mod faults;
mod fetch;
mod gather;
mod heir;
mod intake;
mod orders;
mod places;
mod session;

use crate::agent::{Guests, Part, Reports};
use crate::bucket::Pace;
use crate::clock::Clock;
use crate::error::ExecError;
use crate::intermediary::Intermediary;
use crate::tls::Security;
use crate::wire::auth::{self, Key, Role};
use crate::wire::entrance::{Entrance, Waiting};
use crate::wire::frame::SILENCE;
use livemig_core::conductor::Remainder;
use livemig_core::units::Bytes;
use session::Session;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a destination needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) key: Key,
    /// Memory that all guests together may take.
    pub(crate) room: Option<Bytes>,
    /// The rate at which it takes in what migrations bring.
    pub(crate) reception: Option<Arc<Pace>>,
    pub(crate) clock: Clock,
    pub(crate) guests: Arc<Guests>,
    pub(crate) reports: Reports,
    /// How connections are protected.
    pub(crate) security: Security,
}

/// Connections that have not proven yet that they know the key, at most; more are closed at once.
const MOST_WAITING: usize = 128;

/// A listening destination.
#[derive(Debug)]
pub(crate) struct Reception {
    listener: TcpListener,
    sessions: Arc<Mutex<BTreeMap<u32, Arc<Session>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Reception {
    /// Listens for sources and, on behalf of the intermediary that this host may also be, for whoever stages and fetches.
    pub(crate) fn listen(address: SocketAddr, setup: Setup, intermediary: Arc<Intermediary>) -> io::Result<Reception> {
        let listener = TcpListener::bind(address)?;
        let sessions: Arc<Mutex<BTreeMap<u32, Arc<Session>>>> = Arc::default();
        let (accepting, all) = (listener.try_clone()?, sessions.clone());
        let body = move || {
            let entrance = Entrance::new(MOST_WAITING);
            loop {
                let stream = match accepting.accept() {
                    Ok((stream, _)) => stream,
                    // One that has given up while it waited.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(_) => return,
                };
                let Some(waiting) = entrance.wait() else { continue };
                let (setup, all, intermediary) = (setup.clone(), all.clone(), intermediary.clone());
                // Whoever is let in ends with its connection; a failed thread is a connection that is not answered.
                let _ = std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
                    if let Err(error) = receive(stream, waiting, &setup, &all, &intermediary) {
                        setup.reports.warn(format!("connection from another host: {error}"));
                    }
                });
            }
        };
        let thread = std::thread::Builder::new().name("listener".to_owned()).spawn(body)?;
        Ok(Reception { listener, sessions, thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn session(&self, session: u32) -> Option<Arc<Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }

    /// The source of a session is gone: the guest stops if it needs pages that are lost, or is lost in any case; how many pages
    /// those are, if it was here.
    pub(crate) fn source_dead(&self, session: u32, lost: bool) -> Option<u64> {
        self.session(session)?.source_dead(lost)
    }

    /// The source of a session is gone: what is left of the migration is the destination's.
    pub(crate) fn go_on(&self, session: u32, remainder: &Remainder) -> Result<(), ExecError> {
        let session = self.session(session).ok_or_else(|| ExecError::State(format!("there is no session {session}")))?;
        session.disconnect();
        session.go_on(remainder)
    }

    /// How what is coming in stands.
    pub(crate) fn part(&self) -> Part {
        let sessions: Vec<_> = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        sessions.iter().map(|session| session.part()).max().unwrap_or(Part::Over)
    }

    /// Stops guests that are here without all of their memory: which, and how many pages of each nobody has.
    pub(crate) fn give_up(&self) -> Vec<(u32, u64)> {
        let sessions: Vec<_> = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        sessions.iter().filter_map(|session| session.give_up()).collect()
    }

    /// An intermediary of a session is gone.
    pub(crate) fn stage_dead(&self, session: u32, via: u16) {
        if let Some(session) = self.session(session) {
            session.stage_gone(via);
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        // SAFETY: shuts down a socket that this value owns; whoever waits in `accept` returns.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            // It ends with the listener.
            let _ = thread.join();
        }
        for session in self.sessions.lock().unwrap_or_else(PoisonError::into_inner).values() {
            session.disconnect();
            session.close_gathering(false);
        }
    }
}

/// Lets a connection in and serves it to its end.
fn receive(
    tcp: TcpStream,
    waiting: Waiting,
    setup: &Setup,
    all: &Mutex<BTreeMap<u32, Arc<Session>>>,
    intermediary: &Intermediary,
) -> Result<(), crate::WireError> {
    tcp.set_nodelay(true)?;
    let mut stream = setup.security.accept(tcp)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let greeting = auth::challenge(&mut stream, &setup.key)?;
    drop(waiting);
    if let Role::Stage | Role::Fetch { .. } = greeting.role {
        return intermediary.serve(stream, greeting);
    }
    if let Role::Traffic { to_guest } = greeting.role {
        auth::welcome(&mut stream, true)?;
        let (to, guests) = (to_guest.then_some(greeting.epoch), &setup.guests);
        return guests.arrivals.receive(stream, greeting.session, to, guests);
    }
    let session = {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended and left nothing is forgotten.
        all.retain(|&id, session| id == greeting.session || !session.is_over());
        all.entry(greeting.session).or_insert_with(|| Arc::new(Session::new(greeting.session, setup.clone()))).clone()
    };
    let welcome = session.admit(&stream, greeting)?;
    auth::welcome(&mut stream, welcome)?;
    if welcome { session.serve(stream, greeting) } else { Ok(()) }
}
