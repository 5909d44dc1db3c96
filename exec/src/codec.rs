//! Bytes for the wire and back: little-endian, every count bounded, a checksum at the end.

use crate::error::ExecError;
use xxhash_rust::xxh3::xxh3_64;

/// Writes fields one after the other.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with a magic number and a version.
    pub(crate) fn new(magic: u32, version: u16) -> Writer {
        let mut writer = Writer { bytes: Vec::new() };
        writer.u32(magic);
        writer.u16(version);
        writer
    }

    pub(crate) fn u16(&mut self, x: u16) {
        self.bytes.extend_from_slice(&x.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, x: u32) {
        self.bytes.extend_from_slice(&x.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, x: u64) {
        self.bytes.extend_from_slice(&x.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, x: f64) {
        self.u64(x.to_bits());
    }

    pub(crate) fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).expect("counts are bounded where they are made"));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends with the checksum of all that was written.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let sum = xxh3_64(&self.bytes);
        self.u64(sum);
        self.bytes
    }
}

/// Reads what a [`Writer`] wrote, or says where and why not.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Checks the checksum, the magic number and the version.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8], magic: u32, version: u16) -> Result<Reader<'a>, ExecError> {
        let fault = |why, at| ExecError::Decode { what, why, at };
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or(fault("truncated", bytes.len()))?;
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(fault("wrong checksum", body.len()));
        }
        let mut reader = Reader { what, bytes: body, at: 0 };
        if reader.u32()? != magic {
            return Err(fault("wrong magic number", 0));
        }
        if reader.u16()? != version {
            return Err(fault("unknown version", 4));
        }
        Ok(reader)
    }

    /// An error at the current place.
    pub(crate) fn fault(&self, why: &'static str) -> ExecError {
        ExecError::Decode { what: self.what, why, at: self.at }
    }

    pub(crate) fn raw(&mut self, n: usize) -> Result<&'a [u8], ExecError> {
        let rest = &self.bytes[self.at..];
        if n > rest.len() {
            return Err(self.fault("truncated"));
        }
        self.at += n;
        Ok(&rest[..n])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ExecError> {
        Ok(self.raw(N)?.try_into().expect("as many bytes as asked for"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ExecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ExecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ExecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, ExecError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// A count of at most `most`.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, ExecError> {
        let n = self.u32()? as usize;
        if n > most { Err(self.fault("count beyond its bound")) } else { Ok(n) }
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), ExecError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault("bytes left over")) }
    }
}
