//! What source and destination agents say to each other, and how: see `docs/REAL_MODE.md` for the sequence.
//!
//! A migration has a *control* connection (orders and answers), a *fault* connection (requests for pages and the pages
//! asked for) and some *streams* (pages and acknowledgements), all opened by the source. Every connection begins with a
//! [`handshake`](auth), in which both ends prove that they know the migration's key, and which names session and epoch. After it
//! there are [`frames`](frame) only.
//!
//! An intermediary has a *stage* connection from the source and two *fetch* connections from the destination; what is said on them
//! is in [`stage`].
//!
//! The source begins a new *epoch* whenever connections have broken. The destination ends the connections of older epochs, and
//! waits until nothing of theirs is being applied, before it lets one of a newer epoch in: a page that was taken back and sent
//! again in a newer version is never overwritten by the older one. Orders are numbered: one that comes twice is answered twice and
//! carried out once.

pub(crate) mod auth;
pub(crate) mod dial;
pub(crate) mod entrance;
pub(crate) mod fingerprint;
pub(crate) mod frame;
pub(crate) mod landing;
pub(crate) mod message;
mod packing;
pub(crate) mod page_sender;
pub(crate) mod pages;
pub(crate) mod stage;
pub(crate) mod table;

use thiserror::Error;

/// What is wrong with a connection.
#[derive(Debug, Error)]
pub enum WireError {
    /// The other end has closed it, perhaps in the middle of a frame.
    #[error("closed by the other end")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(std::io::Error),
    /// A checksum does not fit what it belongs to.
    #[error("wrong checksum of a frame's {0}")]
    Checksum(&'static str),
    /// A frame is missing, doubled or out of order.
    #[error("frame {found} where frame {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// The bytes are not livemig's.
    #[error("the other end speaks another protocol")]
    Foreign,
    /// The other end is of another version.
    #[error("the other end speaks version {theirs} of the protocol, this one {ours}")]
    Version {
        /// The version of the other end.
        theirs: u16,
        /// The version of this one.
        ours: u16,
    },
    /// A field has a value that it must not have.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A message does not decode.
    #[error("message: {0}")]
    Encoding(postcard::Error),
    /// A frame has begun and does not go on, or nothing has come for too long.
    #[error("silence")]
    Silence,
    /// The other end does not know the key.
    #[error("the other end does not know the key of this migration")]
    Unauthenticated,
    /// The other end has heard who this is and does not want it.
    #[error("{0}")]
    Refused(String),
    /// The protection of the connection failed: a certificate was refused, or what came was not TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection belongs to a session or an epoch that is over.
    #[error("it belongs to a session or an epoch that is over")]
    Outdated,
    /// Guest memory refused what arrived.
    #[error("guest memory: {0}")]
    Memory(Box<crate::error::ExecError>),
}

impl From<std::io::Error> for WireError {
    fn from(error: std::io::Error) -> WireError {
        WireError::Io(error)
    }
}

impl From<crate::error::ExecError> for WireError {
    fn from(error: crate::error::ExecError) -> WireError {
        WireError::Memory(Box::new(error))
    }
}
