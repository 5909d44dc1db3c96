//! Rows of CSV (RFC 4180, lines ended by a line feed), on their way to standard output or to a file.

use crate::value::Value;
use std::borrow::Borrow;
use std::io::{self, Write};

/// So many bytes are gathered before they are handed on.
const PIECE: usize = 1 << 16;

/// Writes rows to `W`.
pub(crate) struct CsvRows<W: Write> {
    to: W,
    /// What is not handed on yet.
    text: String,
}

impl<W: Write> CsvRows<W> {
    pub(crate) fn new(to: W) -> CsvRows<W> {
        CsvRows { to, text: String::new() }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn row<V: Borrow<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> io::Result<()> {
        let start = self.text.len();
        for value in values {
            match value.borrow() {
                Value::Text(text) => append_field(&mut self.text, text),
                plain => plain.append_csv(&mut self.text),
            }
            self.text.push(',');
        }
        self.end_row(start)
    }

    /// Writes one row of words.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn words(&mut self, words: impl IntoIterator<Item: AsRef<str>>) -> io::Result<()> {
        let start = self.text.len();
        for word in words {
            append_field(&mut self.text, word.as_ref());
            self.text.push(',');
        }
        self.end_row(start)
    }

    /// Ends the row that began at `start`; behind each of its fields there is a comma.
    fn end_row(&mut self, start: usize) -> io::Result<()> {
        self.text.truncate(self.text.len().saturating_sub(1).max(start));
        if self.text.len() == start {
            // A row of one empty field is not an empty line.
            self.text.push_str("\"\"");
        }
        self.text.push('\n');
        if self.text.len() < PIECE { Ok(()) } else { self.hand_on() }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        self.to.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }

    /// Hands on what is written.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.to.flush()
    }
}

/// Appends a field of text, in quotes where it needs them.
fn append_field(text: &mut String, field: &str) {
    if !field.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
        return text.push_str(field);
    }
    text.push('"');
    text.push_str(&field.replace('"', "\"\""));
    text.push('"');
}

/// The text of what `write` writes.
pub(crate) fn text(write: impl FnOnce(&mut CsvRows<Vec<u8>>) -> io::Result<()>) -> String {
    let mut rows = CsvRows::new(Vec::new());
    // Memory takes everything that is written to it.
    let written = write(&mut rows).and_then(|()| rows.flush()).map(|()| rows.to);
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

    #[test]
    fn they_read_back() {
        let table = [["", ""], ["a\nb", "c\rd"], ["\"", ","], [" e ", "é"]];
        let text = text(|rows| table.iter().try_for_each(|row| rows.words(row)));
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let read: Vec<Vec<String>> = reader.deserialize().map(Result::unwrap).collect();
        assert_eq!(read, table.map(|row| row.map(str::to_owned).to_vec()));
        assert_eq!(super::text(|rows| rows.words([""])), "\"\"\n");
        let many = super::text(|rows| (0..40_000).try_for_each(|i| rows.row([Value::Count(i)])));
        assert_eq!(many.lines().map(str::parse).collect::<Result<Vec<u64>, _>>(), Ok((0..40_000).collect()));
    }
}
