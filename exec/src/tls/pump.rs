//! Carries bytes between a TLS connection and an ordinary socket, in both directions, on one thread.
//!
//! What waits is bounded: nothing more is read from the ordinary socket before the last of it has gone out, nor from the other end before
//! what came was taken. When either side hangs up the rest is delivered, and the other is hung up on. Silence is not noticed here; whoever
//! uses the socket notices, and hangs up.

use crate::wire::WireError;
use crate::wire::frame::SILENCE;
use rustls::Connection;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Read at once from the ordinary socket.
const CHUNK: usize = 256 << 10;

/// Starts a thread; the socket to be used in place of `tcp`.
pub(super) fn start(mut tls: Connection, tcp: TcpStream) -> Result<TcpStream, WireError> {
    let (ours, theirs) = UnixStream::pair()?;
    // Frames are large; the kernel allows what it allows.
    for socket in [&ours, &theirs] {
        let _ = socket2::SockRef::from(socket).set_send_buffer_size(4 * CHUNK);
    }
    tcp.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    // What goes in is bounded by `Pump`.
    tls.set_buffer_limit(None);
    let pump = Pump { tls, tcp, plain: ours, inbound: Vec::new(), taken: 0, chunk: vec![0; CHUNK], closing: false, deaf: false };
    std::thread::Builder::new().name("tls".to_owned()).spawn(move || pump.run())?;
    // A socket is a socket: whoever gets it reads, writes and shuts it down.
    Ok(TcpStream::from(OwnedFd::from(theirs)))
}

struct Pump {
    tls: Connection,
    tcp: TcpStream,
    plain: UnixStream,
    /// What has come and the ordinary socket has not taken, from `taken` on.
    inbound: Vec<u8>,
    taken: usize,
    chunk: Vec<u8>,
    /// The ordinary socket has been hung up on: what is left goes out, and that is all.
    closing: bool,
    /// The ordinary socket takes nothing any more, but may still have something.
    deaf: bool,
}

/// Whether to go on.
type Step = io::Result<bool>;

impl Pump {
    fn run(mut self) {
        // Whatever has ended it, both sides see a closed connection; frames tell whether something is missing.
        let _ = self.carry();
        let _ = self.plain.shutdown(Shutdown::Both);
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    fn carry(&mut self) -> io::Result<()> {
        loop {
            let (from_net, from_plain) = self.wait()?;
            if from_net && !self.receive()? {
                // What has come is still delivered, as far as it is taken.
                self.plain.set_nonblocking(false)?;
                self.plain.set_write_timeout(Some(SILENCE))?;
                return self.plain.write_all(&self.inbound[self.taken..]);
            }
            if from_plain && !self.closing {
                self.closing = !self.take_in()?;
            }
            self.deliver()?;
            self.transmit()?;
            if self.closing && !self.tls.wants_write() {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done; whether something may be read from the network, and from the ordinary socket.
    fn wait(&mut self) -> io::Result<(bool, bool)> {
        let (sending, delivering) = (self.tls.wants_write(), self.taken < self.inbound.len());
        let events = |read: bool, write: bool| if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        let hear_plain = !sending && !self.closing;
        let hear_net = !delivering && !self.closing && !self.deaf;
        let mut polled = [
            libc::pollfd { fd: self.tcp.as_raw_fd(), events: events(hear_net, sending), revents: 0 },
            libc::pollfd { fd: self.plain.as_raw_fd(), events: events(hear_plain, delivering), revents: 0 },
        ];
        // A socket that is hung up on says so whatever is asked of it, again and again.
        if polled[1].events == 0 {
            polled[1].fd = -1;
        }
        // What cannot be sent while closing is not waited for any longer than silence is.
        let patience = if self.closing { SILENCE.as_millis() as libc::c_int } else { -1 };
        // SAFETY: an array of two that lives during the call.
        match unsafe { libc::poll(polled.as_mut_ptr(), 2, patience) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() == ErrorKind::Interrupted { Ok((false, false)) } else { Err(error) }
            }
            0 => Err(ErrorKind::TimedOut.into()),
            _ => {
                let failed = libc::POLLHUP | libc::POLLERR;
                let readable = |p: &libc::pollfd| p.revents & (libc::POLLIN | failed) != 0;
                let from_net = readable(&polled[0]) && (hear_net || polled[0].revents & failed != 0);
                Ok((from_net && !self.closing, readable(&polled[1]) && hear_plain))
            }
        }
    }

    /// From the network.
    fn receive(&mut self) -> Step {
        match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(true),
            Err(e) => return Err(e),
        }
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        let (plain, closed) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        let from = self.inbound.len();
        self.inbound.resize(from + plain, 0);
        self.tls.reader().read_exact(&mut self.inbound[from..])?;
        Ok(!closed)
    }

    /// From the ordinary socket.
    fn take_in(&mut self) -> Step {
        match self.plain.read(&mut self.chunk) {
            Ok(0) => {
                self.tls.send_close_notify();
                Ok(false)
            }
            Ok(n) => self.tls.writer().write_all(&self.chunk[..n]).map(|()| true),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// To the ordinary socket.
    fn deliver(&mut self) -> io::Result<()> {
        while self.taken < self.inbound.len() && !self.closing && !self.deaf {
            match self.plain.write(&self.inbound[self.taken..]) {
                Ok(n) => self.taken += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => self.deaf = true,
                Err(e) => return Err(e),
            }
        }
        self.inbound.clear();
        self.taken = 0;
        Ok(())
    }

    /// To the network.
    fn transmit(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
