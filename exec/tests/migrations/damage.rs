//! A stand-in for a network that damages what goes through it, once.

use livemig_exec::run::Route;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What happens to the bytes around a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One bit.
    Flip,
    /// Some bytes are missing.
    LeaveOut,
    /// What is behind the place comes first.
    Swap,
    /// Nothing more comes.
    Cut,
}

/// One damage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    /// The connections are numbered in the order in which they are opened.
    pub(crate) connection: usize,
    /// From source to destination.
    pub(crate) forth: bool,
    /// Bytes before it.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
}

/// A route on which it happens, and whether it has.
pub(crate) fn through(damage: Damage) -> (Route, Arc<AtomicBool>) {
    let done = Arc::new(AtomicBool::new(false));
    let noted = done.clone();
    (Arc::new(move |to| listen(to, damage, &noted)), done)
}

fn listen(to: SocketAddr, damage: Damage, done: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let done = done.clone();
    std::thread::spawn(move || {
        for (index, source) in listener.incoming().enumerate() {
            let (Ok(source), Ok(destination)) = (source, TcpStream::connect(to)) else { return };
            for socket in [&source, &destination] {
                socket.set_nodelay(true).unwrap();
            }
            for (from, into, forth) in [(&source, &destination, true), (&destination, &source, false)] {
                let (from, into, done) = (from.try_clone().unwrap(), into.try_clone().unwrap(), done.clone());
                let damage = (index == damage.connection && forth == damage.forth).then_some(damage);
                std::thread::spawn(move || carry(from, into, damage, &done));
            }
        }
    });
    address
}

fn carry(mut from: TcpStream, mut into: TcpStream, damage: Option<Damage>, done: &AtomicBool) {
    let (mut buffer, mut before) = (vec![0; 1 << 16], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut bytes = buffer[..read].to_vec();
        let hit = damage.filter(|d| !done.load(Ordering::SeqCst) && d.at < before + read as u64);
        let mut more = true;
        if let Some(damage) = hit {
            more = apply(damage, usize::try_from(damage.at.saturating_sub(before)).unwrap(), &mut bytes);
            done.store(bytes != buffer[..read], Ordering::SeqCst);
        }
        before += read as u64;
        if into.write_all(&bytes).is_err() || !more {
            break;
        }
    }
    // Closed by one, closed for the other.
    let _ = into.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Damages bytes at a place; whether anything comes behind them.
fn apply(damage: Damage, at: usize, bytes: &mut Vec<u8>) -> bool {
    match damage.kind {
        Kind::Flip => bytes[at] ^= 1 << (damage.at % 8),
        Kind::LeaveOut => drop(bytes.drain(at..bytes.len().min(at + 100))),
        Kind::Swap => bytes.rotate_left(at.max(1)),
        Kind::Cut => bytes.truncate(at),
    }
    !matches!(damage.kind, Kind::Cut)
}
