//! Rows of CSV, on their way to standard output or to a file.

use crate::value::Value;
use std::borrow::Borrow;
use std::io::{self, Write};

/// Writes rows to `W`; what it needs for a row it keeps for the next.
pub(crate) struct CsvRows<W: Write> {
    writer: csv::Writer<W>,
    field: String,
}

impl<W: Write> CsvRows<W> {
    pub(crate) fn new(to: W) -> CsvRows<W> {
        CsvRows { writer: csv::Writer::from_writer(to), field: String::new() }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn row<V: Borrow<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> csv::Result<()> {
        for value in values {
            self.field.clear();
            value.borrow().append_csv(&mut self.field);
            self.writer.write_field(&self.field)?;
        }
        self.end_row()
    }

    /// Writes one row of words.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn words(&mut self, words: impl IntoIterator<Item: AsRef<str>>) -> csv::Result<()> {
        words.into_iter().try_for_each(|word| self.writer.write_field(word.as_ref()))?;
        self.end_row()
    }

    fn end_row(&mut self) -> csv::Result<()> {
        self.writer.write_record(None::<&[u8]>)
    }

    /// Hands on what is written.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The text of what `write` writes.
pub(crate) fn text(write: impl FnOnce(&mut CsvRows<Vec<u8>>) -> csv::Result<()>) -> String {
    let mut rows = CsvRows::new(Vec::new());
    let written = write(&mut rows).ok().and_then(|()| rows.writer.into_inner().ok());
    // Memory takes everything that is written to it.
    String::from_utf8(written.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quoted_where_needed() {
        let text = text(|rows| {
            rows.words(["a", "b"])?;
            rows.row([Value::from("x, \"y\""), Value::Empty])?;
            rows.row([&Value::Count(3), &Value::Flag(false)])
        });
        assert_eq!(text, "a,b\n\"x, \"\"y\"\"\",\n3,false\n");
    }
}
