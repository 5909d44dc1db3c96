//! Connections between machines: TLS 1.3, by which each end proves to the other with a certificate who it is.
//!
//! Both ends have a certificate of the same authority, the lab's own. Whoever connects also checks that the other end has the name
//! that was meant. When the handshake is done a [`pump`] stands between the socket and everybody else, who read and write an ordinary
//! socket at its other end: frames, timeouts and hanging up are what they are without TLS.

mod pump;

use crate::error::ExecError;
use crate::wire::WireError;
use crate::wire::frame::SILENCE;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// What a server says when it has accepted the client's certificate: with TLS 1.3 the client's handshake is over before that.
const ACCEPTED: u8 = 1;
/// Most bytes of a PEM file.
const MAX_PEM: u64 = 1 << 20;

/// Where an agent or a coordinator finds what proves who it is; all in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its certificate, with the chain if there is one.
    pub cert: PathBuf,
    /// The private key of it.
    pub key: PathBuf,
    /// The certificates of the authorities that others must have theirs from.
    pub ca: PathBuf,
}

/// How connections to other machines are protected.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Not at all: for processes of one machine, and for networks where nobody else is.
    #[default]
    None,
    /// Mutual TLS.
    Tls(Credentials),
}

/// What proves who somebody is, ready for use.
#[derive(Clone, Debug)]
pub struct Credentials {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A file that cannot be read, holds nothing that fits, or a key that is not that of the certificate; the text names the file.
    pub fn load(&self) -> Result<Credentials, ExecError> {
        let chain = certificates(&self.cert)?;
        check_size(&self.key)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unusable(&self.key, &e))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| unusable(&self.ca, &e))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|e| unusable(&self.ca, &e))?;
        let pair = |e: rustls::Error| ExecError::Run(format!("{} and {}: {e}", self.cert.display(), self.key.display()));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(pair)?;
        // Every connection shows its certificate.
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(pair)?;
        server.send_tls13_tickets = 0;
        Ok(Credentials { client: Arc::new(client), server: Arc::new(server) })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ExecError> {
    check_size(file)?;
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|e| unusable(file, &e))?;
    if certificates.is_empty() { Err(unusable(file, &"there is no certificate in it")) } else { Ok(certificates) }
}

fn check_size(file: &Path) -> Result<(), ExecError> {
    let size = std::fs::metadata(file).map_err(|e| unusable(file, &e))?.len();
    if size > MAX_PEM { Err(unusable(file, &format!("its {size} bytes are too many for PEM"))) } else { Ok(()) }
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> ExecError {
    ExecError::Run(format!("{}: {why}", file.display()))
}

impl Security {
    /// Whether what travels is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Security::Tls(_))
    }

    /// Protects a connection that was opened to somebody whose certificate has this name.
    pub(crate) fn connect(&self, tcp: TcpStream, name: Option<&str>) -> Result<TcpStream, WireError> {
        let Security::Tls(credentials) = self else { return Ok(tcp) };
        let name = name.ok_or_else(|| WireError::Tls("the name of the other end is not known".to_owned()))?;
        let server = ServerName::try_from(name.to_owned()).map_err(|e| WireError::Tls(format!("`{name}`: {e}")))?;
        let tls = ClientConnection::new(credentials.client.clone(), server)?;
        let (mut tls, mut tcp) = shake_hands(tls.into(), tcp)?;
        let mut accepted = [0];
        // A refusal of our certificate comes here.
        read_exact(&mut tls, &mut tcp, &mut accepted)?;
        if accepted == [ACCEPTED] { pump::start(tls, tcp) } else { Err(WireError::Foreign) }
    }

    /// Protects a connection that somebody has opened, who must have a certificate.
    pub(crate) fn accept(&self, tcp: TcpStream) -> Result<TcpStream, WireError> {
        let Security::Tls(credentials) = self else { return Ok(tcp) };
        let tls = ServerConnection::new(credentials.server.clone())?;
        let (mut tls, tcp) = shake_hands(tls.into(), tcp)?;
        // It goes out with the first bytes that the pump sends.
        tls.writer().write_all(&[ACCEPTED])?;
        pump::start(tls, tcp)
    }
}

/// The handshake, which must not take long whatever the other end does.
fn shake_hands(mut tls: Connection, mut tcp: TcpStream) -> Result<(Connection, TcpStream), WireError> {
    tcp.set_read_timeout(Some(SILENCE))?;
    tcp.set_write_timeout(Some(SILENCE))?;
    let deadline = Instant::now() + HANDSHAKE;
    while tls.is_handshaking() || tls.wants_write() {
        if Instant::now() > deadline {
            return Err(WireError::Silence);
        }
        advance(&mut tls, &mut tcp)?;
    }
    Ok((tls, tcp))
}

/// One step: writes what there is to be written, otherwise reads something.
fn advance(tls: &mut Connection, tcp: &mut TcpStream) -> Result<(), WireError> {
    if tls.wants_write() {
        return tls.write_tls(tcp).map(drop).map_err(timed_out);
    }
    match tls.read_tls(tcp).map_err(timed_out)? {
        0 => Err(WireError::Closed),
        _ => tls.process_new_packets().map(drop).map_err(|error| {
            // Tells the other end why; if that fails it finds a closed connection.
            let _ = tls.write_tls(tcp);
            WireError::from(error)
        }),
    }
}

fn read_exact(tls: &mut Connection, tcp: &mut TcpStream, into: &mut [u8]) -> Result<(), WireError> {
    let deadline = Instant::now() + HANDSHAKE;
    loop {
        match tls.reader().read_exact(into) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => advance(tls, tcp)?,
            other => return other.map_err(timed_out),
        }
    }
}

impl From<rustls::Error> for WireError {
    fn from(error: rustls::Error) -> WireError {
        WireError::Tls(error.to_string())
    }
}

fn timed_out(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::Silence,
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::Io(error),
    }
}
