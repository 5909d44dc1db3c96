//! Agents that stand on machines of their own, as a coordinator reaches them.

use crate::agent::message::{Hello, Welcome};
use crate::error::ExecError;
use crate::tls::Security;
use crate::wire::WireError;
use crate::wire::dial::Way;
use crate::wire::frame::{FrameReader, FrameWriter, SILENCE};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Once an agent has not acknowledged what it was sent for so long, it is gone.
const GONE: Duration = Duration::from_secs(10);

/// How long an agent may be busy.
const BUSY: Duration = Duration::from_secs(5);

/// Machines with agents, by the names of the scenario's hosts.
#[derive(Clone, Debug)]
pub struct Lab {
    /// What this coordinator proves who it is with.
    pub security: Security,
    /// The agents.
    pub agents: BTreeMap<String, Remote>,
}

/// A standing agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it listens: `HOST:PORT`.
    pub address: String,
    /// The name in its certificate; the host of the address when it is another.
    pub name: Option<String>,
    /// The address by which other agents reach it for migrations, when not the same.
    pub migration: Option<IpAddr>,
}

/// A connection to one.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    /// Where other agents find it.
    pub(super) address: IpAddr,
    /// The name that its certificate has.
    pub(super) name: String,
}

impl Lab {
    /// Connects to the agent of a host.
    pub(super) fn reach(&self, host: &str) -> Result<Reached, ExecError> {
        let remote = self.agents.get(host).ok_or_else(|| ExecError::Run(format!("there is no agent for host `{host}`")))?;
        let fail = |why: &dyn std::fmt::Display| ExecError::Run(format!("agent of host `{host}` at {}: {why}", remote.address));
        let mut last = None;
        for address in remote.address.to_socket_addrs().map_err(|e| fail(&e))? {
            match self.enter_soon(address, remote.certified()) {
                Ok(stream) => {
                    let address = remote.migration.unwrap_or(address.ip());
                    return Ok(Reached { stream, address, name: remote.certified().to_owned() });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| fail(&"it has no address"), |error| fail(&error)))
    }

    /// Enters, and waits a while for an agent that is busy: it may have to clear away after our last run.
    fn enter_soon(&self, address: SocketAddr, name: &str) -> Result<TcpStream, WireError> {
        let deadline = Instant::now() + BUSY;
        loop {
            match self.enter(address, name)? {
                Some(stream) => return Ok(stream),
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                None => {
                    return Err(WireError::Refused(
                        "this agent serves another coordinator, or ends what a lost one has begun".to_owned(),
                    ));
                }
            }
        }
    }

    /// `None` when the agent is busy.
    fn enter(&self, address: SocketAddr, name: &str) -> Result<Option<TcpStream>, WireError> {
        let tcp = Way::to(address).connect()?;
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(GONE))?;
        let stream = self.security.connect(tcp, Some(name))?;
        stream.set_read_timeout(Some(SILENCE))?;
        FrameWriter::new(&stream, 0, 0).message(&Hello {})?;
        let mut reader = FrameReader::new(&stream, 0);
        let header = reader.next()?.ok_or(WireError::Silence)?;
        match reader.message(&header)? {
            Welcome::In => {}
            Welcome::Busy => return Ok(None),
            Welcome::Refused(why) => return Err(WireError::Refused(why)),
        }
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(Some(stream))
    }
}

impl Remote {
    /// The name that its certificate must have.
    fn certified(&self) -> &str {
        let host = || self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        self.name.as_deref().unwrap_or_else(|| host().trim_start_matches('[').trim_end_matches(']'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_certificate_is_the_host_s_unless_it_is_given() {
        let remote = |address: &str| Remote { address: address.to_owned(), name: None, migration: None };
        for (address, name) in [("lab1:7000", "lab1"), ("10.0.0.1:7000", "10.0.0.1"), ("[fe80::1]:7000", "fe80::1")] {
            assert_eq!(remote(address).certified(), name);
        }
        assert_eq!(Remote { name: Some("x".to_owned()), ..remote("lab1:7000") }.certified(), "x");
    }
}
