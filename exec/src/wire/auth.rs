//! The first bytes of a connection: who is there, for which migration, and proof of the key.
//!
//! ```text
//! source       -> destination: greeting (magic, version, role, session, epoch, nonce)
//! destination  -> source:      nonce, keyed BLAKE3 of ("destination", greeting, nonce)
//! source       -> destination: keyed BLAKE3 of ("source", greeting, nonce)
//! destination  -> source:      1, once nothing of an older epoch is being applied
//! ```
//!
//! The key is made for one run and handed to the agents by whoever started them. It proves who is there; what follows is neither
//! encrypted nor signed. Agents on machines of their own are reached through a tunnel that does that.

use super::WireError;
use super::frame::VERSION;
use std::fs::File;
use std::io::{self, Read, Write};

/// The secret of a run.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new one, from the kernel.
    pub(crate) fn generate() -> io::Result<Key> {
        random().map(Key)
    }

    fn proof(&self, who: &str, greeting: &[u8; GREETING], nonce: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(who.as_bytes()).update(greeting).update(nonce);
        *hasher.finalize().as_bytes()
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Control,
    Fault,
    /// Pages and acknowledgements, with its index.
    Stream(u16),
    /// From a source to an intermediary: pages to keep.
    Stage,
    /// From a destination to an intermediary: pages handed out, on a connection of their own if the guest waits for them.
    Fetch {
        urgent: bool,
    },
    /// A flow of network traffic, whose number is the session; to the guest whose number is the epoch, or to the host.
    Traffic {
        to_guest: bool,
    },
}

impl Role {
    fn to_bytes(self) -> [u8; 4] {
        let (kind, index) = match self {
            Role::Control => (1u16, 0),
            Role::Fault => (2, 0),
            Role::Stream(index) => (3, index),
            Role::Stage => (4, 0),
            Role::Fetch { urgent } => (5, u16::from(urgent)),
            Role::Traffic { to_guest } => (6, u16::from(to_guest)),
        };
        let (kind, index) = (kind.to_le_bytes(), index.to_le_bytes());
        [kind[0], kind[1], index[0], index[1]]
    }

    fn from_bytes(bytes: [u8; 4]) -> Result<Role, WireError> {
        let index = u16::from_le_bytes([bytes[2], bytes[3]]);
        match (u16::from_le_bytes([bytes[0], bytes[1]]), index) {
            (1, 0) => Ok(Role::Control),
            (2, 0) => Ok(Role::Fault),
            (3, index) if index < super::message::MAX_STREAMS => Ok(Role::Stream(index)),
            (4, 0) => Ok(Role::Stage),
            (5, urgent @ 0..=1) => Ok(Role::Fetch { urgent: urgent == 1 }),
            (6, to_guest @ 0..=1) => Ok(Role::Traffic { to_guest: to_guest == 1 }),
            _ => Err(WireError::Malformed("role")),
        }
    }
}

/// What a connection says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) role: Role,
    pub(crate) session: u32,
    pub(crate) epoch: u32,
}

const MAGIC: [u8; 4] = *b"LMHS";
const GREETING: usize = 52;

impl Greeting {
    fn to_bytes(self, nonce: [u8; 32]) -> [u8; GREETING] {
        let mut bytes = [0; GREETING];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.role.to_bytes());
        bytes[12..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[20..].copy_from_slice(&nonce);
        bytes
    }

    fn from_bytes(bytes: &[u8; GREETING]) -> Result<Greeting, WireError> {
        if bytes[..4] != MAGIC {
            return Err(WireError::Foreign);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(WireError::Version { theirs: version, ours: VERSION });
        }
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        Ok(Greeting {
            role: Role::from_bytes(word(8))?,
            session: u32::from_le_bytes(word(12)),
            epoch: u32::from_le_bytes(word(16)),
        })
    }
}

/// The source's part; returns once the destination has let the connection in. Reading must time out.
pub(crate) fn introduce(stream: &mut (impl Read + Write), greeting: Greeting, key: &Key) -> Result<(), WireError> {
    let hello = greeting.to_bytes(random()?);
    stream.write_all(&hello)?;
    let (mut nonce, mut proof) = ([0; 32], [0; 32]);
    receive(stream, &mut nonce)?;
    receive(stream, &mut proof)?;
    // Comparison of hashes takes the same time wherever they differ.
    if blake3::Hash::from_bytes(proof) != blake3::Hash::from_bytes(key.proof("destination", &hello, &nonce)) {
        return Err(WireError::Unauthenticated);
    }
    stream.write_all(&key.proof("source", &hello, &nonce))?;
    let mut welcome = [0; 1];
    receive(stream, &mut welcome)?;
    if welcome == [1] { Ok(()) } else { Err(WireError::Outdated) }
}

/// The destination's part, up to the proof; [`welcome`] is to follow.
pub(crate) fn challenge(stream: &mut (impl Read + Write), key: &Key) -> Result<Greeting, WireError> {
    let mut hello = [0; GREETING];
    receive(stream, &mut hello)?;
    let greeting = Greeting::from_bytes(&hello)?;
    let nonce = random()?;
    stream.write_all(&[nonce, key.proof("destination", &hello, &nonce)].concat())?;
    let mut proof = [0; 32];
    receive(stream, &mut proof)?;
    if blake3::Hash::from_bytes(proof) == blake3::Hash::from_bytes(key.proof("source", &hello, &nonce)) {
        Ok(greeting)
    } else {
        Err(WireError::Unauthenticated)
    }
}

/// Lets a connection in, or sends it away.
pub(crate) fn welcome(stream: &mut impl Write, is_welcome: bool) -> Result<(), WireError> {
    Ok(stream.write_all(&[u8::from(is_welcome)])?)
}

fn receive(stream: &mut impl Read, into: &mut [u8]) -> Result<(), WireError> {
    stream.read_exact(into).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::Silence,
        _ => WireError::Io(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const GREETING: Greeting = Greeting { role: Role::Stream(3), session: 5, epoch: 9 };

    fn shake(source: Key, destination: Key, welcomes: bool) -> (Result<(), WireError>, Result<Greeting, WireError>) {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                let greeting = challenge(&mut b, &destination)?;
                welcome(&mut b, welcomes)?;
                Ok(greeting)
            });
            let here = introduce(&mut a, GREETING, &source);
            drop(a);
            (here, there.join().unwrap())
        })
    }

    #[test]
    fn whoever_knows_the_key_is_let_in_and_nobody_else() {
        let key = Key::generate().unwrap();
        let (here, there) = shake(key, key, true);
        assert!(here.is_ok());
        assert_eq!(there.unwrap(), GREETING);
        let (here, _) = shake(key, key, false);
        assert!(matches!(here, Err(WireError::Outdated)));
        let (here, there) = shake(key, Key([0; 32]), true);
        assert!(matches!(here, Err(WireError::Unauthenticated)), "a destination that does not know the key is not talked to");
        assert!(there.is_err());
    }

    #[test]
    fn a_source_without_the_key_learns_nothing_that_helps() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let there = std::thread::spawn(move || challenge(&mut b, &Key([7; 32])));
        a.write_all(&GREETING.to_bytes([0; 32])).unwrap();
        let mut answer = [0; 64];
        a.read_exact(&mut answer).unwrap();
        // What the destination proved is no proof of the source.
        a.write_all(&answer[32..]).unwrap();
        assert!(matches!(there.join().unwrap(), Err(WireError::Unauthenticated)));
    }

    #[test]
    fn greetings_of_others_are_refused() {
        let good = GREETING.to_bytes([1; 32]);
        assert_eq!(Greeting::from_bytes(&good).unwrap(), GREETING);
        let both = [false, true];
        let others = both.map(|urgent| Role::Fetch { urgent }).into_iter().chain(both.map(|to_guest| Role::Traffic { to_guest }));
        for role in [Role::Control, Role::Fault, Role::Stage].into_iter().chain(others) {
            let other = Greeting { role, ..GREETING };
            assert_eq!(Greeting::from_bytes(&other.to_bytes([1; 32])).unwrap(), other);
        }
        for (at, value) in [(0, 0), (4, 9), (8, 4), (8, 7), (10, 255)] {
            let mut bad = good;
            bad[at] = value;
            assert!(Greeting::from_bytes(&bad).is_err(), "{at}");
        }
    }
}
