//! The destination's side of migrations: it listens, takes pages, does what it is told once, and runs the guest when told so.

mod book;
mod faults;
mod orders;
mod session;

use crate::agent::{Guests, Reports};
use crate::clock::Clock;
use crate::wire::auth::{self, Key};
use crate::wire::frame::SILENCE;
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
    pub(crate) clock: Clock,
    pub(crate) guests: Arc<Guests>,
    pub(crate) reports: Reports,
}

/// A listening destination.
#[derive(Debug)]
pub(crate) struct Reception {
    listener: TcpListener,
    sessions: Arc<Mutex<BTreeMap<u32, Arc<Session>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Reception {
    pub(crate) fn listen(address: SocketAddr, setup: Setup) -> io::Result<Reception> {
        let listener = TcpListener::bind(address)?;
        let sessions: Arc<Mutex<BTreeMap<u32, Arc<Session>>>> = Arc::default();
        let (accepting, all) = (listener.try_clone()?, sessions.clone());
        let body = move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (setup, all) = (setup.clone(), all.clone());
                // Whoever is let in ends with its connection; a failed thread is a connection that is not answered.
                let _ = std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
                    if let Err(error) = receive(stream, &setup, &all) {
                        setup.reports.warn(format!("connection at the destination: {error}"));
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

    /// The source of a session is gone: the guest stops if it needs pages that are lost; how many those are, if it was here.
    pub(crate) fn source_dead(&self, session: u32) -> Option<u64> {
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()?;
        session.source_dead()
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
        }
    }
}

/// Lets a connection in and serves it to its end.
fn receive(mut stream: TcpStream, setup: &Setup, all: &Mutex<BTreeMap<u32, Arc<Session>>>) -> Result<(), crate::WireError> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let greeting = auth::challenge(&mut stream, &setup.key)?;
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
