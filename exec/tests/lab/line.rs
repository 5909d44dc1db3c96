//! The lines between a coordinator and agents, which somebody can cut.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Connections between one coordinator and its agents.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    ends: Arc<Mutex<Vec<TcpStream>>>,
    dead: Arc<AtomicBool>,
}

impl Lines {
    /// Where the coordinator finds an agent.
    pub(crate) fn to(&self, agent: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, lines) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(agent)) else { return };
                for (from, into) in [(&near, &far), (&far, &near)] {
                    lines.ends.lock().unwrap().push(from.try_clone().unwrap());
                    let (from, into, dead) = (from.try_clone().unwrap(), into.try_clone().unwrap(), lines.dead.clone());
                    std::thread::spawn(move || carry(from, into, &dead));
                }
            }
        });
        address
    }

    /// Ends every connection, as the kernel does for a process that is killed: nothing that one of them might cause is said on another.
    pub(crate) fn cut(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// From now on connections can be made again.
    pub(crate) fn mend(&self) {
        self.dead.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut into: TcpStream, dead: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if dead.load(Ordering::SeqCst) || into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
