//! An agent that stands on a machine of its own and waits for coordinators.
//!
//! It only lets them in: for each it starts a process that is the agent of that run, as [`run`](crate::run::run) does on its own machine,
//! and hands the connection to it. That process, its guests and their memory end with the connection, or soon after it when migrations are
//! under way and the coordinator is lost; whatever happens in a run, the next coordinator finds a new one. One coordinator is served at a time, because what is measured must not share the machine.

use super::message::{Hello, Welcome};
use crate::error::ExecError;
use crate::run::Launch;
use crate::tls::Security;
use crate::wire::WireError;
use crate::wire::entrance::Entrance;
use crate::wire::frame::{FrameReader, FrameWriter, SILENCE};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections that have not been let in yet, at most; more are closed at once.
const MOST_AT_THE_DOOR: usize = 32;
/// Once a coordinator has not acknowledged what it was sent for so long, it is gone.
const GONE: Duration = Duration::from_secs(10);
/// What somebody who is not let in still sends is taken for so long, and so much of it, that he hears why.
const LAST_WORDS: Duration = Duration::from_millis(500);
const MOST_LAST_WORDS: u64 = 1 << 16;

/// A standing agent.
#[derive(Debug)]
pub struct Standing {
    listener: TcpListener,
    door: Arc<Door>,
}

#[derive(Debug)]
struct Door {
    security: Security,
    launch: Launch,
    serving: AtomicBool,
}

impl Standing {
    /// Listens for coordinators. `launch` starts a process that calls [`serve_inherited`](super::serve_inherited) with the same security.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub fn listen(address: SocketAddr, security: Security, launch: Launch) -> Result<Standing, ExecError> {
        let listener = TcpListener::bind(address).map_err(|e| ExecError::Run(format!("listening at {address}: {e}")))?;
        let door = Door { security, launch, serving: AtomicBool::new(false) };
        Ok(Standing { listener, door: Arc::new(door) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> Result<SocketAddr, ExecError> {
        self.listener.local_addr().map_err(|source| ExecError::Kernel { call: "getsockname", source })
    }

    /// Serves coordinators for ever. `tell` hears who came and went, and who was refused and why.
    ///
    /// # Errors
    /// When connections cannot be accepted any more.
    pub fn serve(&self, tell: impl Fn(&str) + Send + Sync + 'static) -> Result<(), ExecError> {
        let (tell, entrance) = (Arc::new(tell), Entrance::new(MOST_AT_THE_DOOR));
        loop {
            let (tcp, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                // One that has given up while it waited.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
                Err(source) => return Err(ExecError::Kernel { call: "accept", source }),
            };
            let Some(waiting) = entrance.wait() else { continue };
            let (door, told) = (self.door.clone(), tell.clone());
            let body = move || {
                let entered = door.let_in(tcp);
                drop(waiting);
                match entered.map_err(|e| e.to_string()).and_then(|stream| door.serve(stream, || told(&format!("{from}: served"))))
                {
                    Ok(()) => told(&format!("{from}: gone")),
                    Err(why) => told(&format!("{from}: {why}")),
                }
            };
            // A connection for which there is no thread is one that is closed.
            let _ = std::thread::Builder::new().name("coordinator".to_owned()).spawn(body);
        }
    }
}

impl Door {
    /// Hears what somebody wants, and whether it may.
    fn let_in(&self, tcp: TcpStream) -> Result<TcpStream, WireError> {
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(GONE))?;
        let stream = self.security.accept(tcp)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut reader = FrameReader::new(&stream, 0);
        let hello = match reader.next() {
            Ok(Some(header)) => reader.message::<Hello>(&header),
            Ok(None) => Err(WireError::Silence),
            Err(error) => Err(error),
        };
        if let Err(error) = hello {
            // One of another version learns from the frame itself which this is.
            answer(&stream, &Welcome::Refused(error.to_string()));
            return Err(error);
        }
        Ok(stream)
    }

    /// Starts an agent for a coordinator, and waits for its end.
    fn serve(&self, stream: TcpStream, begun: impl FnOnce()) -> Result<(), String> {
        if self.serving.swap(true, Ordering::SeqCst) {
            answer(&stream, &Welcome::Busy);
            return Err("refused: another coordinator is served".to_owned());
        }
        let result = self.run(stream, begun);
        self.serving.store(false, Ordering::SeqCst);
        result
    }

    fn run(&self, stream: TcpStream, begun: impl FnOnce()) -> Result<(), String> {
        let prepare = || -> Result<(), WireError> {
            stream.set_read_timeout(None)?;
            stream.set_write_timeout(None)?;
            FrameWriter::new(&stream, 0, 0).message(&Welcome::In)?;
            Ok(())
        };
        prepare().map_err(|e| e.to_string())?;
        let Launch { program, args, env } = &self.launch;
        let mut command = Command::new(program);
        command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
        // This process keeps no end of the connection.
        let child = command.stdin(Stdio::from(OwnedFd::from(stream))).stdout(Stdio::null()).spawn();
        drop(command);
        let mut child = child.map_err(|e| format!("{}: {e}", program.display()))?;
        begun();
        let status = child.wait().map_err(|e| e.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the agent has failed: {status}")) }
    }
}

/// The last words to somebody who is not let in.
fn answer(stream: &TcpStream, words: &Welcome) {
    // Whoever does not hear them finds a closed connection. What is still on its way here would make the kernel reset the connection
    // before they are heard.
    let _ = FrameWriter::new(stream, 0, 0).message(words);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(LAST_WORDS));
    let _ = std::io::copy(&mut stream.take(MOST_LAST_WORDS), &mut std::io::sink());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::Ipv4Addr;
    use xxhash_rust::xxh3::xxh3_64;

    fn stand() -> SocketAddr {
        let launch = Launch { program: "true".into(), args: Vec::new(), env: Vec::new() };
        let standing = Standing::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Security::None, launch).unwrap();
        let address = standing.address().unwrap();
        std::thread::spawn(move || standing.serve(|_| {}));
        address
    }

    fn hello() -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new(), 0, 0);
        writer.message(&Hello {}).unwrap();
        writer.out
    }

    /// What is answered to these bytes.
    fn answer_to(bytes: &[u8]) -> Result<Welcome, WireError> {
        let mut tcp = TcpStream::connect(stand()).unwrap();
        tcp.write_all(bytes).unwrap();
        let mut reader = FrameReader::new(&tcp, 0);
        let header = reader.next()?.expect("no timeout");
        reader.message(&header)
    }

    #[test]
    fn a_coordinator_is_let_in_and_a_stranger_hears_what_is_wrong() {
        assert_eq!(answer_to(&hello()).unwrap(), Welcome::In);

        let mut newer = hello();
        newer[4] = 9;
        let sum = xxh3_64(&newer[..40]);
        newer[40..48].copy_from_slice(&sum.to_le_bytes());
        let Ok(Welcome::Refused(why)) = answer_to(&newer) else { panic!("it was let in") };
        assert!(why.contains("speaks version 9"), "{why}");

        let Ok(Welcome::Refused(why)) = answer_to(b"GET / HTTP/1.1\r\nHost: somebody who is at the wrong door\r\n\r\n") else {
            panic!("it was let in")
        };
        assert!(why.contains("checksum"), "{why}");
    }

    #[test]
    fn many_at_the_door_do_not_keep_it_from_closing_on_more() {
        let address = stand();
        let waiting: Vec<TcpStream> = (0..MOST_AT_THE_DOOR).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Those that came before this one have been accepted before it.
        let mut more = TcpStream::connect(address).unwrap();
        assert_eq!(more.read(&mut [0]).unwrap(), 0, "it is closed at once");
        drop(waiting);
    }
}
