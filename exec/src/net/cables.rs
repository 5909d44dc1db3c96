//! Cables of hosts that are connected by loopback: once they are pulled nothing gets through.
//!
//! Every host has a loopback address of its own, at which it listens and from which it connects. A pulled cable is a filter on sockets,
//! by which the kernel drops whatever arrives: at the host itself on every socket, and at each of the others on those that lead to it. As
//! with a cable nobody is told, neither end closes, and what was sent is sent again once the filter is gone, unless the silence was too
//! long for whoever waited. The sockets to the coordinator are of another kind and are left alone.

use socket2::{SockFilter, SockRef};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Returns 0: of every packet nothing is kept.
const DROP: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// What is pulled, as seen from this process, which is one host.
#[derive(Debug)]
struct Pulled {
    own: bool,
    others: BTreeSet<IpAddr>,
}

static PULLED: Mutex<Pulled> = Mutex::new(Pulled { own: false, others: BTreeSet::new() });

/// The loopback address of a host, by its index.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    // More hosts than there are addresses would share the last.
    let offset = u32::try_from(host).unwrap_or(u32::MAX).min(u32::from(Ipv4Addr::new(127, 255, 255, 254)) - first);
    Ipv4Addr::from(first + offset)
}

/// The cables of this host, or of the one at an address, are pulled or plugged in again.
///
/// # Errors
/// When the kernel does not let us.
pub(crate) fn pull(of: Option<IpAddr>, pulled: bool) -> io::Result<()> {
    let mut state = lock();
    match of {
        None => state.own = pulled,
        Some(address) if pulled => drop(state.others.insert(address)),
        Some(address) => drop(state.others.remove(&address)),
    }
    // A socket that is made meanwhile waits to learn what holds now.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: only asked what it is and, if it is a socket of the internet's, given or relieved of a filter; if another thread closes
        // it meanwhile that fails, or happens to the connection that has taken its number, which it is right for as well.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = SockRef::from(&fd);
        if socket.local_addr().is_ok_and(|address| address.as_socket().is_some()) {
            let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
            match state.apply(&socket, peer.map(|peer| peer.ip())) {
                // It has been closed meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK)) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Whether anything gets through a socket that is to connect to an address.
///
/// # Errors
/// When the kernel does not let us.
pub(crate) fn plug(socket: &socket2::Socket, to: IpAddr) -> io::Result<()> {
    let state = lock();
    if state.own || !state.others.is_empty() { state.apply(&SockRef::from(socket), Some(to)) } else { Ok(()) }
}

fn lock() -> MutexGuard<'static, Pulled> {
    PULLED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pulled {
    fn apply(&self, socket: &SockRef<'_>, peer: Option<IpAddr>) -> io::Result<()> {
        if self.own || peer.is_some_and(|peer| self.others.contains(&peer)) {
            return socket.attach_filter(&DROP);
        }
        match socket.detach_filter() {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            // There may have been none.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn nothing_gets_through_until_the_cable_is_plugged_in_again() {
        // Addresses of no other test: what is pulled is the whole process's.
        let (here, there) = (address(100_000), address(100_001));
        let listener = TcpListener::bind((there, 0)).unwrap();
        let connect = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            plug(&socket, there.into())?;
            socket.bind(&std::net::SocketAddr::from((here, 0)).into())?;
            socket.connect_timeout(&listener.local_addr()?.into(), Duration::from_millis(300))?;
            io::Result::Ok(TcpStream::from(socket))
        };
        let (mut out, (mut back, from)) = (connect().unwrap(), listener.accept().unwrap());
        assert_eq!(from.ip(), IpAddr::from(here));

        pull(Some(there.into()), true).unwrap();
        back.write_all(b"lost?").unwrap();
        out.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(out.read(&mut [0; 8]).is_err() && connect().is_err());
        pull(Some(there.into()), false).unwrap();
        out.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = [0; 5];
        out.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"lost?");
        connect().unwrap();
    }
}
