//! Agents: child processes that are started and ended with the run, or reached where they stand; and talked to.

use super::lab::{Lab, Reached};
use crate::agent::message::{FromAgent, ToAgent};
use crate::clock::{Clock, Exchange, offset_of};
use crate::error::ExecError;
use crate::net::Namespace;
use crate::wire::WireError;
use crate::wire::dial::Way;
use crate::wire::frame::{FrameReader, FrameWriter};
use livemig_core::units::Span;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How an agent process is started: a program that calls [`serve_inherited`](crate::agent::serve_inherited).
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Additions to its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// How long an agent may take to end by itself once its coordinator has hung up.
const GOODBYE: Duration = Duration::from_secs(2);

/// A running agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) name: String,
    process: Process,
    out: FrameWriter<UnixStream>,
    pub(super) heard: Instant,
    pub(super) gone: bool,
}

/// Where an agent is.
#[derive(Debug)]
enum Process {
    Child(Child),
    /// On another machine, where other agents find it at an address, with a certificate of a name.
    Elsewhere(IpAddr, String),
}

/// What comes from an agent.
#[derive(Debug)]
pub(super) enum News {
    Said(Box<FromAgent>),
    Gone(String),
}

impl Agent {
    /// Starts a process, in `place` if it has one; what it says comes out of `news` with `index`.
    pub(super) fn start(
        name: &str,
        launch: &Launch,
        index: usize,
        news: &mpsc::Sender<(usize, News)>,
        place: Option<&Namespace>,
    ) -> Result<Agent, ExecError> {
        let kernel = |call| move |source| ExecError::Kernel { call, source };
        let (here, there) = UnixStream::pair().map_err(kernel("socketpair"))?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::from(OwnedFd::from(there)))
            .stdout(Stdio::null());
        if let Some(namespace) = place {
            namespace.place(&mut command);
        }
        let child =
            command.spawn().map_err(|e| ExecError::Run(format!("agent of host `{name}`: {}: {e}", launch.program.display())))?;
        Agent::listen(name, Process::Child(child), here, index, news)
    }

    /// Reaches the agent of a host where it stands.
    pub(super) fn reach(name: &str, lab: &Lab, index: usize, news: &mpsc::Sender<(usize, News)>) -> Result<Agent, ExecError> {
        let Reached { stream, address, name: certified } = lab.reach(name)?;
        // Whatever kind of socket it is, it is read, written and shut down like this one.
        let here = UnixStream::from(OwnedFd::from(stream));
        Agent::listen(name, Process::Elsewhere(address, certified), here, index, news)
    }

    fn listen(
        name: &str,
        process: Process,
        here: UnixStream,
        index: usize,
        news: &mpsc::Sender<(usize, News)>,
    ) -> Result<Agent, ExecError> {
        let kernel = |call| move |source| ExecError::Kernel { call, source };
        let input = here.try_clone().map_err(kernel("dup of a socket"))?;
        let news = news.clone();
        let body = move || {
            let mut reader = FrameReader::new(input, 0);
            loop {
                let said = match reader.next() {
                    Ok(None) => continue,
                    Ok(Some(header)) => reader.message(&header),
                    Err(error) => Err(error),
                };
                let (item, last) = match said {
                    Ok(said) => (News::Said(Box::new(said)), false),
                    Err(WireError::Closed) => (News::Gone("its process has ended".to_owned()), true),
                    Err(error) => (News::Gone(error.to_string()), true),
                };
                if news.send((index, item)).is_err() || last {
                    return;
                }
            }
        };
        let out = FrameWriter::new(here, 0, 0);
        let agent = Agent { name: name.to_owned(), process, out, heard: Instant::now(), gone: false };
        std::thread::Builder::new().name("agent".to_owned()).spawn(body).map_err(kernel("starting a thread"))?;
        Ok(agent)
    }

    pub(super) fn tell(&mut self, message: &ToAgent) -> Result<(), ExecError> {
        self.out.message(message).map(drop).map_err(|e| ExecError::Run(format!("agent of host `{}`: {e}", self.name)))
    }

    /// Ends the process at once.
    pub(super) fn kill(&mut self) {
        match &mut self.process {
            // One that has ended already is as good.
            Process::Child(child) => drop(child.kill()),
            Process::Elsewhere(..) => self.take_leave(),
        }
    }

    /// Says that the agent is not needed any more, and hangs up: one elsewhere that only found the connection closed would go on.
    fn take_leave(&mut self) {
        // Whoever does not hear it is not there, or finds out by itself.
        let _ = self.out.message(&ToAgent::Leave);
        let _ = self.out.out.shutdown(std::net::Shutdown::Both);
    }

    /// How other agents reach it when it listens at `own`.
    pub(super) fn found_at(&self, own: SocketAddr) -> Way {
        match &self.process {
            Process::Child(_) => Way::to(own),
            Process::Elsewhere(address, name) => Way { name: Some(name.clone()), ..Way::to(SocketAddr::new(*address, own.port())) },
        }
    }
}

impl Drop for Agent {
    /// Takes leave, and sees to it that the process ends if it is a child; one elsewhere ends by itself.
    fn drop(&mut self) {
        self.take_leave();
        let Process::Child(child) = &mut self.process else { return };
        let deadline = Instant::now() + GOODBYE;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Sets an agent's clock, by `ask`ing for its time; how wrong it may be.
pub(super) fn set_clock(clock: Clock, mut ask: impl FnMut(&ToAgent) -> Result<FromAgent, ExecError>) -> Result<Span, ExecError> {
    const EXCHANGES: usize = 8;
    let mut exchanges = Vec::new();
    for _ in 0..EXCHANGES {
        let asked = clock.now();
        let FromAgent::Clock { local } = ask(&ToAgent::Clock)? else { return Err(unexpected()) };
        exchanges.push(Exchange { asked, theirs: local, answered: clock.now() });
    }
    let (offset, error) = offset_of(&exchanges).ok_or_else(unexpected)?;
    ask(&ToAgent::SetClock { offset })?;
    Ok(error)
}

pub(super) fn unexpected() -> ExecError {
    ExecError::Run("an agent has given an answer that is none".to_owned())
}
