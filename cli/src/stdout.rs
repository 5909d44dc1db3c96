//! Standard output: flushed after every piece, so that what is finished stays when the program is interrupted.

use crate::failure::on_stdout;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

/// Standard output of a command.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    /// The reader has gone, and the command goes on for its files.
    silent: bool,
    keep_going: bool,
}

impl Output {
    /// Locks standard output. With `keep_going` a reader that goes away does not end the command, because it writes files too.
    pub(crate) fn new(keep_going: bool) -> Output {
        Output { out: BufWriter::new(io::stdout().lock()), silent: false, keep_going }
    }

    /// Writes a piece at once.
    ///
    /// # Errors
    /// When it cannot be written; see [`on_stdout`].
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if self.silent {
            return Ok(());
        }
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.keep_going => {
                self.silent = true;
                Ok(())
            }
            result => result.map_err(on_stdout),
        }
    }
}
