//! The connections of an intermediary: one on which a source leaves pages, and those on which a destination fetches them.

use super::Intermediary;
use super::deposit::{Buffers, Deposit};
use crate::wire::WireError;
use crate::wire::auth::{self, Greeting, Role};
use crate::wire::frame::{FrameReader, FrameWriter, HEADER, Header, Kind};
use crate::wire::page_sender::{PageSender, Treatment};
use crate::wire::pages::MAX_DATA;
use crate::wire::stage::StageMessage;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a read waits before it waits again: a connection may be silent for as long as nothing is to be kept or fetched.
const LOOK: Duration = Duration::from_millis(500);

impl Intermediary {
    /// Lets a connection in and serves it to its end.
    pub(crate) fn serve(&self, mut stream: TcpStream, greeting: Greeting) -> Result<(), WireError> {
        let deposit = self.deposit(greeting.session);
        let welcome = match greeting.role {
            Role::Stage => deposit.admit_source(&stream, greeting.epoch)?,
            Role::Fetch { .. } => deposit.admit_destination(&stream)?,
            Role::Control | Role::Fault | Role::Stream(_) | Role::Traffic { .. } => return Err(WireError::Malformed("role")),
        };
        auth::welcome(&mut stream, welcome)?;
        if !welcome {
            return Ok(());
        }
        stream.set_read_timeout(Some(LOOK))?;
        let socket = stream.try_clone()?;
        let out = FrameWriter::new(stream.try_clone()?, greeting.session, greeting.epoch);
        self.served.fetch_add(1, Ordering::Relaxed);
        let served = match greeting.role {
            Role::Fetch { urgent } => self.hand_out(&deposit, FrameReader::new(stream, 0), out, urgent, greeting),
            Role::Stage | Role::Control | Role::Fault | Role::Stream(_) | Role::Traffic { .. } => {
                let ended = self.take_in(&deposit, FrameReader::new(stream, MAX_DATA), out, greeting);
                deposit.give_up();
                ended
            }
        };
        self.served.fetch_sub(1, Ordering::Relaxed);
        // The deposit knows the socket too: without this the other end would not hear that nobody reads any more.
        let _ = socket.shutdown(Shutdown::Both);
        match served {
            // A socket that somebody has shut down or reset is one that is closed.
            Err(WireError::Closed | WireError::Outdated | WireError::Io(_)) => Ok(()),
            other => other,
        }
    }

    fn take_in(
        &self,
        deposit: &Deposit,
        mut reader: FrameReader<TcpStream>,
        mut out: FrameWriter<TcpStream>,
        greeting: Greeting,
    ) -> Result<(), WireError> {
        let mut buffers = Buffers::default();
        loop {
            let Some(header) = reader.next()? else { continue };
            check(&header, greeting)?;
            if header.kind == Kind::Pages {
                let done = deposit.put_down(&header, &mut reader, &mut buffers)?;
                self.pass(u64::from(header.data), false);
                out.message(&StageMessage::Stored { seq: header.seq, stored: done.stored, held: done.held })?;
                continue;
            }
            match reader.message(&header)? {
                StageMessage::Keep { pages, shared } => {
                    let (room, known) = deposit.keep(pages, shared)?;
                    out.message(&StageMessage::Kept { room, known })?;
                }
                StageMessage::Probe { runs, fingerprints } => {
                    let (found, held) = deposit.probe(header.epoch, &runs, &fingerprints)?;
                    self.pass(u64::from(header.body), false);
                    out.message(&StageMessage::Probed { seq: header.seq, found, held })?;
                }
                StageMessage::Free => {
                    self.free(greeting.session);
                    return Ok(());
                }
                StageMessage::Kept { .. }
                | StageMessage::Stored { .. }
                | StageMessage::Probed { .. }
                | StageMessage::Fetch { .. } => return Err(WireError::Malformed("message")),
            }
        }
    }

    fn hand_out(
        &self,
        deposit: &Deposit,
        mut reader: FrameReader<TcpStream>,
        mut out: FrameWriter<TcpStream>,
        urgent: bool,
        greeting: Greeting,
    ) -> Result<(), WireError> {
        let mut page_sender = PageSender::new();
        loop {
            let Some(header) = reader.next()? else { continue };
            check(&header, greeting)?;
            match reader.message(&header)? {
                StageMessage::Fetch { runs } => {
                    let (here, source) = deposit.hand_out(&runs)?;
                    let treatment = Treatment { elide: true, pack: deposit.packs() };
                    let bytes = page_sender.take_from(source.pages(), &here, treatment);
                    self.pass(bytes - HEADER as u64, urgent);
                    page_sender.send_from(source.pages(), &mut out)?;
                }
                StageMessage::Free => {
                    self.free(greeting.session);
                    return Ok(());
                }
                StageMessage::Keep { .. }
                | StageMessage::Kept { .. }
                | StageMessage::Stored { .. }
                | StageMessage::Probe { .. }
                | StageMessage::Probed { .. } => return Err(WireError::Malformed("message")),
            }
        }
    }

    /// So much moves, at the rate that this host has for it.
    fn pass(&self, bytes: u64, urgent: bool) {
        match &self.pace {
            Some(pace) if urgent => pace.count(bytes),
            Some(pace) => pace.take(bytes),
            None => {}
        }
    }
}

fn check(header: &Header, greeting: Greeting) -> Result<(), WireError> {
    let same = header.session == greeting.session && header.epoch == greeting.epoch;
    if same { Ok(()) } else { Err(WireError::Outdated) }
}
