//! Receiving ends of flows: what comes is counted, and is of no use otherwise.

use super::{Life, PIECE, STILL, TICK};
use crate::agent::Guests;
use crate::wire::WireError;
use crate::wire::frame::SILENCE;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a read waits before it waits again.
const LOOK: Duration = Duration::from_millis(100);

/// What has come, by the numbers of flows.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<BTreeMap<u32, Arrival>>);

#[derive(Debug, Default)]
struct Arrival {
    bytes: u64,
    /// How much of it has been reported.
    reported: u64,
    /// How many connections it has had; only the last one counts.
    connections: u64,
    connection: Option<TcpStream>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes of each flow have come until now, of those of which some have come since this was last asked.
    pub(crate) fn news(&self) -> Vec<(u32, u64)> {
        let mut all = self.lock();
        let fresh = all.iter_mut().filter(|(_, arrival)| arrival.bytes > arrival.reported);
        let reported = fresh.map(|(&flow, arrival)| {
            arrival.reported = arrival.bytes;
            (flow, arrival.bytes)
        });
        reported.collect()
    }

    /// A flow has a new connection, and its earlier one ends; the number of this one.
    fn begin(&self, flow: u32, stream: &TcpStream) -> io::Result<u64> {
        let mut all = self.lock();
        let arrival = all.entry(flow).or_default();
        if let Some(earlier) = arrival.connection.replace(stream.try_clone()?) {
            // One that has ended by itself is as good.
            let _ = earlier.shutdown(Shutdown::Both);
        }
        arrival.connections += 1;
        Ok(arrival.connections)
    }

    /// So much more has come, if this is still the flow's connection.
    fn count(&self, flow: u32, connection: u64, bytes: u64) -> bool {
        let mut all = self.lock();
        let Some(arrival) = all.get_mut(&flow).filter(|arrival| arrival.connections == connection) else { return false };
        arrival.bytes += bytes;
        true
    }

    /// Reads a flow to its end: for as long as the guest that it is for runs, or always if it is for the host.
    pub(crate) fn receive(&self, mut stream: TcpStream, flow: u32, to: Option<u32>, guests: &Guests) -> Result<(), WireError> {
        stream.set_read_timeout(Some(LOOK))?;
        let connection = self.begin(flow, &stream)?;
        let Some(life) = arrived(to, guests) else { return Ok(()) };
        let (mut buffer, mut pulse) = (vec![0; PIECE], Pulse::of(&life));
        while self.count(flow, connection, 0) {
            if !pulse.beats(&life) {
                // One that has left does not come back by this connection.
                if to.is_some_and(|vm| guests.with(vm, |_| Ok(())).is_err()) {
                    return Ok(());
                }
                std::thread::sleep(TICK);
                continue;
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    self.count(flow, connection, read as u64);
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {}
                // Whoever has been cut off connects again.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The end that a flow is for; a guest is waited for, but not for ever.
fn arrived(to: Option<u32>, guests: &Guests) -> Option<Life> {
    let deadline = Instant::now() + SILENCE;
    loop {
        match Life::of(to, guests) {
            None if Instant::now() < deadline => std::thread::sleep(TICK),
            life => return life,
        }
    }
}

/// Whether somebody lives.
#[derive(Debug)]
struct Pulse {
    lived: Duration,
    seen: Instant,
}

impl Pulse {
    fn of(life: &Life) -> Pulse {
        Pulse { lived: life.lived(), seen: Instant::now() }
    }

    fn beats(&mut self, life: &Life) -> bool {
        let lived = life.lived();
        if lived != self.lived {
            *self = Pulse { lived, seen: Instant::now() };
        }
        self.seen.elapsed() < STILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (out, listener.accept().unwrap().0)
    }

    #[test]
    fn only_the_last_connection_of_a_flow_counts() {
        let arrivals = Arrivals::default();
        let (mut out, into) = pair();
        let first = arrivals.begin(7, &into).unwrap();
        assert!(arrivals.count(7, first, 100));
        let (_other, replacing) = pair();
        let second = arrivals.begin(7, &replacing).unwrap();
        assert!(!arrivals.count(7, first, 1000) && arrivals.count(7, second, 11));
        assert_eq!(out.read(&mut [0; 1]).unwrap(), 0, "the first has been shut down");
        assert_eq!(arrivals.news(), [(7, 111)]);
        assert_eq!(arrivals.news(), []);
        assert!(arrivals.count(7, second, 1));
        assert_eq!(arrivals.news(), [(7, 112)]);
    }
}
