//! How the program ends: exit codes, and the message when it fails.

use std::process::ExitCode;
use std::{fmt, io};

/// What a command that ran has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// It ran, and the answer is negative.
    Negative,
}

/// Exit code of a negative answer.
const NEGATIVE: u8 = 1;
/// Exit code of a wrong command line, a wrong input or a failure.
const FAILED: u8 = 2;

/// Turns the result of a command into an exit code; says on stderr what went wrong.
pub(crate) fn exit_code(result: anyhow::Result<Answer>) -> ExitCode {
    match result {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::Negative) => ExitCode::from(NEGATIVE),
        // Whoever reads our output has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", story(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// The error and its causes, outermost first. A cause that the error before it has already told is left out.
fn story(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if parts.last().is_none_or(|told| !told.ends_with(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// The reader of our standard output has gone away.
#[derive(Debug)]
pub(crate) struct ClosedPipe;

impl fmt::Display for ClosedPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for ClosedPipe {}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.is::<ClosedPipe>()
}

/// An error of standard output as the program sees it.
pub(crate) fn on_stdout(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        ClosedPipe.into()
    } else {
        anyhow::Error::new(error).context("cannot write to standard output")
    }
}

/// `text` so that a shell reads it as one word.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_would_split_is_quoted() {
        assert_eq!(quoted("a/b-c.toml"), "a/b-c.toml");
        assert_eq!(quoted("four streams"), "'four streams'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || anyhow::anyhow!("no such file");
        assert_eq!(story(&cause().context("cannot read x: no such file").context("in y")), "in y: cannot read x: no such file");
        assert_eq!(story(&cause().context("cannot read x")), "cannot read x: no such file");
    }

    #[test]
    fn a_closed_pipe_is_known_under_every_context() {
        let closed = on_stdout(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_closed_pipe(&closed));
        assert!(is_closed_pipe(&closed.context("while running")));
        assert!(!is_closed_pipe(&on_stdout(io::Error::from(io::ErrorKind::StorageFull))));
    }
}
