//! A network namespace that nobody but its holders knows: it has no name, and the kernel removes it, with every device in it, when the
//! last process in it has ended and the last descriptor of it is closed. Nothing needs to be swept up after a crash.

use crate::error::ExecError;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback device that is down. `settings` are files below `/proc/sys/net` and what is to be
    /// written to them; those that this kernel does not have are left out.
    pub(super) fn new(settings: &[(&str, &str)]) -> Result<Namespace, ExecError> {
        // A thread that has left its process' namespace ends at once, so that nothing else runs there by mistake.
        std::thread::scope(|scope| scope.spawn(|| Namespace::make(settings)).join())
            .unwrap_or_else(|_| Err(ExecError::Run("making a network namespace: a thread has failed".to_owned())))
    }

    /// To be called on a thread of its own, whose namespace it changes.
    fn make(settings: &[(&str, &str)]) -> Result<Namespace, ExecError> {
        // SAFETY: changes the network namespace of this thread and touches no memory.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(ExecError::last("making a network namespace (which needs root)"));
        }
        for (file, value) in settings {
            match std::fs::write(format!("/proc/sys/net/{file}"), value) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ExecError::Run(format!("setting net/{file} in a network namespace: {error}")));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let open = |source| ExecError::Kernel { call: "opening /proc/thread-self/ns/net", source };
        Ok(Namespace { fd: File::open("/proc/thread-self/ns/net").map_err(open)?.into() })
    }

    /// Where other processes find it, for as long as it lives here.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Lets a command run in it.
    pub(crate) fn place(&self, command: &mut Command) {
        let fd = self.fd.as_raw_fd();
        let enter = move || {
            // SAFETY: a system call on a descriptor that the parent holds until the child has been made.
            if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec only a system call is made, and no memory is allocated.
        unsafe { command.pre_exec(enter) };
    }

    /// Has `ip` or `tc` carry out a list of commands here, one a line.
    pub(super) fn batch(&self, program: &str, commands: &str) -> Result<(), ExecError> {
        if commands.is_empty() {
            return Ok(());
        }
        let failed = |why: String| ExecError::Run(format!("network namespaces: `{program}`: {why}"));
        let mut command = Command::new(program);
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.place(&mut command);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed("it is not there; install Debian's package iproute2".to_owned()),
            _ => failed(error.to_string()),
        })?;
        // A program that ends early says why in what it prints, not in how its input breaks.
        let _ = child.stdin.take().map(|mut input| input.write_all(commands.as_bytes()));
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() { Ok(()) } else { Err(failed(complaint(commands, &String::from_utf8_lossy(&output.stderr)))) }
    }
}

/// What a program has printed, with the command that it means.
fn complaint(commands: &str, printed: &str) -> String {
    let mut words = printed.lines().filter(|line| !line.starts_with("Command failed")).collect::<Vec<_>>().join("; ");
    let line = printed.lines().find_map(|line| line.strip_prefix("Command failed -:")?.trim().parse::<usize>().ok());
    if let Some(command) = line.and_then(|line| commands.lines().nth(line.checked_sub(1)?)) {
        words += &format!(" (in `{command}`)");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_the_command() {
        let printed = "RTNETLINK answers: Operation not supported\nCommand failed -:2\n";
        assert_eq!(
            complaint("link set a up\nlink set b up\n", printed),
            "RTNETLINK answers: Operation not supported (in `link set b up`)"
        );
        assert_eq!(complaint("x\n", "no idea\n"), "no idea");
        assert_eq!(complaint("x\n", "Command failed -:9\n"), "");
    }
}
