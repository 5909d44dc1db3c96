//! How agents reach each other: by which addresses, under which name, and the connection itself.

use super::WireError;
use crate::tls::Security;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Between two attempts to connect again.
pub(crate) const RETRY: Duration = Duration::from_millis(50);
/// An agent that refuses connections for this long is gone.
pub(crate) const REFUSED: Duration = Duration::from_secs(1);

/// One way to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The address to leave from; `None` for whichever the system takes.
    pub(crate) from: Option<IpAddr>,
    /// Where the other listens.
    pub(crate) to: SocketAddr,
    /// The name in its certificate, when it shows one.
    pub(crate) name: Option<String>,
}

impl Way {
    /// The way that the system chooses.
    pub(crate) fn to(to: SocketAddr) -> Way {
        Way { from: None, to, name: None }
    }

    /// Connects, and finds out whether the other end is who it should be.
    pub(crate) fn dial(&self, security: &Security) -> Result<TcpStream, WireError> {
        let tcp = self.connect()?;
        tcp.set_nodelay(true)?;
        security.connect(tcp, self.name.as_deref())
    }

    /// Connects.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        crate::net::cables::plug(&socket, self.to.ip())?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&self.to.into(), CONNECT)?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn connections_leave_from_the_address_that_they_are_to_leave_from() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
        for (from, expected) in [(None, IpAddr::V4(Ipv4Addr::LOCALHOST)), (Some(other), other)] {
            let _out = Way { from, ..Way::to(to) }.connect().unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), expected);
        }
        drop(listener);
        assert_eq!(Way::to(to).connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
