//! Frames: what every byte between two processes is part of.
//!
//! A frame is a header, a body and perhaps page data. The header says how long the other two are and carries checksums of itself
//! and of the body; page data is followed by its own. Frames of one direction of a connection are numbered, so that one
//! that is left out, comes twice or out of order is found like a flipped bit. What is wrong ends the connection: it is the next
//! connection, with a newer epoch, that makes up for it.

use super::WireError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// `LMF1`, the first bytes of every frame.
const MAGIC: u32 = u32::from_le_bytes(*b"LMF1");
/// The version of the protocol; others are refused.
pub(crate) const VERSION: u16 = 5;
/// Bytes of a header.
pub(crate) const HEADER: usize = 48;
/// Most bytes of a body: the set of pages to discard of the largest guest, and some.
pub(crate) const MAX_BODY: u32 = 16 << 20;
/// Once a frame has begun, its next byte must come within this time.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message, encoded by postcard.
    Message = 1,
    /// Pages.
    Pages = 2,
}

/// A frame without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Which migration it belongs to.
    pub(crate) session: u32,
    /// How often the connections of the session have been set up.
    pub(crate) epoch: u32,
    /// Its number in this direction of the connection, from 0.
    pub(crate) seq: u32,
    /// Bytes of the body.
    pub(crate) body: u32,
    /// Bytes behind it: page data, with its checksums.
    pub(crate) data: u32,
    /// Checksum of the body.
    pub(crate) sum: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(4, &VERSION.to_le_bytes());
        put(6, &(self.kind as u16).to_le_bytes());
        put(8, &self.session.to_le_bytes());
        put(12, &self.epoch.to_le_bytes());
        put(16, &self.seq.to_le_bytes());
        put(20, &self.body.to_le_bytes());
        put(24, &self.data.to_le_bytes());
        put(32, &self.sum.to_le_bytes());
        let sum = xxh3_64(&bytes[..HEADER - 8]);
        bytes[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEADER], max_data: u32) -> Result<Header, WireError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        // The checksum first: with it, a wrong magic number or version is another program and no flipped bit.
        if xxh3_64(&bytes[..HEADER - 8]) != long(HEADER - 8) {
            return Err(WireError::Checksum("header"));
        }
        if word(0) != MAGIC {
            return Err(WireError::Foreign);
        }
        let (version, kind) = ((word(4) & 0xffff) as u16, word(4) >> 16);
        if version != VERSION {
            return Err(WireError::Version { theirs: version, ours: VERSION });
        }
        let kind = match kind {
            1 => Kind::Message,
            2 => Kind::Pages,
            _ => return Err(WireError::Malformed("kind")),
        };
        let header =
            Header { kind, session: word(8), epoch: word(12), seq: word(16), body: word(20), data: word(24), sum: long(32) };
        if header.body > MAX_BODY || header.data > max_data || word(28) != 0 {
            return Err(WireError::Malformed("length"));
        }
        Ok(header)
    }
}

/// The sending end of one direction of a connection.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    pub(crate) out: W,
    session: u32,
    epoch: u32,
    seq: u32,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub(crate) fn new(out: W, session: u32, epoch: u32) -> FrameWriter<W> {
        FrameWriter { out, session, epoch, seq: 0, buffer: Vec::new() }
    }

    /// The number that the next frame gets.
    pub(crate) fn next_seq(&self) -> u32 {
        self.seq
    }

    /// The header of the next frame, with this body. The caller writes header, body and data.
    pub(crate) fn header(&mut self, kind: Kind, body: &[u8], data: usize) -> [u8; HEADER] {
        let length = |n: usize| u32::try_from(n).expect("what is written is bounded where it is made");
        assert!(length(body.len()) <= MAX_BODY, "a body of {} bytes", body.len());
        let sum = xxh3_64(body);
        let header = Header {
            kind,
            session: self.session,
            epoch: self.epoch,
            seq: self.seq,
            body: length(body.len()),
            data: length(data),
            sum,
        };
        // After 2^32 frames numbers come again; a frame that late would have been found by its connection's age long before.
        self.seq = self.seq.wrapping_add(1);
        header.to_bytes()
    }

    /// Writes a message; how many bytes that took.
    pub(crate) fn message<M: Serialize>(&mut self, message: &M) -> Result<u64, WireError> {
        let body = postcard::to_stdvec(message).map_err(WireError::Encoding)?;
        let header = self.header(Kind::Message, &body, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&header);
        buffer.extend_from_slice(&body);
        let written = self.out.write_all(&buffer);
        let length = buffer.len() as u64;
        if buffer.capacity() <= 1 << 16 {
            self.buffer = buffer;
        }
        written.map_err(WireError::Io)?;
        Ok(length)
    }
}

/// The receiving end of one direction of a connection.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    pub(crate) input: R,
    seq: u32,
    max_data: u32,
    /// The body of the last frame.
    pub(crate) body: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// Frames with at most `max_data` bytes behind their bodies. Where reading times out, a frame that has begun and does not go on for
    /// [`SILENCE`] is an error.
    pub(crate) fn new(input: R, max_data: u32) -> FrameReader<R> {
        FrameReader { input, seq: 0, max_data, body: Vec::new() }
    }

    /// The next frame's header, with its body in [`FrameReader::body`]; `None` when reading timed out before it began. Its data
    /// is the caller's to read.
    pub(crate) fn next(&mut self) -> Result<Option<Header>, WireError> {
        let mut bytes = [0; HEADER];
        if !read_all(&mut self.input, &mut bytes, true)? {
            return Ok(None);
        }
        let header = Header::from_bytes(&bytes, self.max_data)?;
        if header.seq != self.seq {
            return Err(WireError::Sequence { expected: self.seq, found: header.seq });
        }
        self.seq = self.seq.wrapping_add(1);
        self.body.resize(header.body as usize, 0);
        read_all(&mut self.input, &mut self.body, false)?;
        if xxh3_64(&self.body) != header.sum {
            return Err(WireError::Checksum("body"));
        }
        Ok(Some(header))
    }

    /// The message in the body of the frame just read.
    pub(crate) fn message<M: DeserializeOwned>(&self, header: &Header) -> Result<M, WireError> {
        if header.kind != Kind::Message || header.data != 0 {
            return Err(WireError::Malformed("kind"));
        }
        let (message, rest) = postcard::take_from_bytes(&self.body).map_err(WireError::Encoding)?;
        if rest.is_empty() { Ok(message) } else { Err(WireError::Malformed("message")) }
    }
}

/// Fills `into`. `false` when reading timed out before the first byte, and `may_wait` allows that.
fn read_all(input: &mut impl Read, into: &mut [u8], may_wait: bool) -> Result<bool, WireError> {
    let (mut done, mut heard) = (0, Instant::now());
    while done < into.len() {
        match input.read(&mut into[done..]) {
            Ok(0) => return Err(WireError::Closed),
            Ok(n) => {
                done += n;
                heard = Instant::now();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if done == 0 && may_wait {
                    return Ok(false);
                }
                if heard.elapsed() > SILENCE {
                    return Err(WireError::Silence);
                }
            }
            Err(e) => return Err(WireError::Io(e)),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new(), 7, 3);
        for message in ["first", "second", ""] {
            writer.message(&message.to_owned()).unwrap();
        }
        writer.out
    }

    /// What comes out of these bytes before something is wrong.
    fn read(bytes: &[u8]) -> (Vec<String>, Result<(), WireError>) {
        let mut reader = FrameReader::new(bytes, 0);
        let mut messages = Vec::new();
        loop {
            match reader.next().and_then(|header| reader.message::<String>(&header.expect("no timeout"))) {
                Ok(message) => messages.push(message),
                Err(error) => return (messages, Err(error)),
            }
        }
    }

    #[test]
    fn frames_come_back_in_order() {
        let bytes = frames();
        let (messages, end) = read(&bytes);
        assert_eq!(messages, ["first", "second", ""]);
        assert!(matches!(end, Err(WireError::Closed)));
        let header = FrameReader::new(bytes.as_slice(), 0).next().unwrap().unwrap();
        assert_eq!((header.session, header.epoch, header.seq), (7, 3, 0));
    }

    #[test]
    fn every_flipped_bit_is_found_and_nothing_wrong_comes_out() {
        let bytes = frames();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (messages, end) = read(&damaged);
            assert!(messages.len() < 3 && !matches!(end, Err(WireError::Closed) if messages.len() == 3), "bit {bit}");
            assert!(["first", "second", ""].starts_with(&messages.iter().map(String::as_str).collect::<Vec<_>>()), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_left_out_doubled_or_moved_is_found() {
        let bytes = frames();
        let size = |text: &str| HEADER + 1 + text.len();
        let (first, rest) = bytes.split_at(size("first"));
        let (second, third) = rest.split_at(size("second"));
        for wrong in [[first, third, second].concat(), [first, first, second].concat(), [second, first, third].concat()] {
            let (messages, end) = read(&wrong);
            assert!(messages.len() <= 1 && matches!(end, Err(WireError::Sequence { .. })), "{messages:?} {end:?}");
        }
        for cut in 0..bytes.len() {
            let (messages, end) = read(&bytes[..cut]);
            assert!(messages.len() < 3 && matches!(end, Err(WireError::Closed)), "{cut}");
        }
    }

    #[test]
    fn lengths_and_versions_are_checked_before_anything_is_read() {
        let good = Header { kind: Kind::Pages, session: 1, epoch: 1, seq: 0, body: 8, data: 4096, sum: 0 };
        assert_eq!(Header::from_bytes(&good.to_bytes(), 4096).unwrap(), good);
        let long = Header { data: 4097, ..good };
        assert!(matches!(Header::from_bytes(&long.to_bytes(), 4096), Err(WireError::Malformed("length"))));
        let long = Header { body: MAX_BODY + 1, ..good };
        assert!(matches!(Header::from_bytes(&long.to_bytes(), 4096), Err(WireError::Malformed("length"))));
        let mut newer = good.to_bytes();
        newer[4] = VERSION as u8 + 1;
        let sum = xxh3_64(&newer[..HEADER - 8]);
        newer[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(Header::from_bytes(&newer, 4096), Err(WireError::Version { theirs, .. }) if theirs == VERSION + 1));
    }
}
