//! CSV files of a collection: columns by name, and messages that name file and line.

use anyhow::{Context, Result, bail};
use csv::StringRecord;

/// A file with the columns that it must have. Columns at the end of a row may be missing: they are empty.
pub(super) struct Table<'a> {
    place: &'a str,
    header: StringRecord,
    records: Vec<StringRecord>,
}

/// A row of a [`Table`].
pub(super) struct Row<'a> {
    header: &'a StringRecord,
    record: &'a StringRecord,
}

impl<'a> Table<'a> {
    /// Reads `text`, which messages call `place`.
    ///
    /// # Errors
    /// When it is no CSV, or a column is missing or unknown.
    pub(super) fn parse<const N: usize>(place: &'a str, text: &str, columns: [&str; N]) -> Result<Table<'a>> {
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().with_context(|| format!("{place}:1"))?.clone();
        if let Some(missing) = columns.iter().find(|c| !header.iter().any(|h| h == **c)) {
            bail!("{place}:1: there is no column `{missing}`; the header must have {}", columns.join(","));
        }
        if let Some(other) = header.iter().find(|h| !columns.contains(h)) {
            bail!("{place}:1: unknown column `{other}`; the header must have {}", columns.join(","));
        }
        let records = reader.records().collect::<Result<Vec<_>, _>>().with_context(|| format!("cannot read {place}"))?;
        if let Some(long) = records.iter().find(|r| r.len() > header.len()) {
            bail!("{}: this row has {} columns, and the header {}", at(place, long), long.len(), header.len());
        }
        Ok(Table { place, header, records })
    }

    /// What `read` makes of every row.
    ///
    /// # Errors
    /// The first of `read`, with file and line.
    pub(super) fn rows<T>(&self, read: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        let one = |record| read(&Row { header: &self.header, record }).with_context(|| at(self.place, record));
        self.records.iter().map(one).collect()
    }
}

fn at(place: &str, record: &StringRecord) -> String {
    format!("{place}:{}", record.position().map_or(0, csv::Position::line))
}

impl Row<'_> {
    /// The text in a column.
    pub(super) fn text(&self, column: &str) -> String {
        let index = self.header.iter().position(|h| h == column);
        index.and_then(|i| self.record.get(i)).unwrap_or_default().to_owned()
    }

    /// The text in a column that must not be empty.
    pub(super) fn filled(&self, column: &str) -> Result<String> {
        let text = self.text(column);
        if text.is_empty() {
            bail!("`{column}` is empty");
        }
        Ok(text)
    }

    /// The number in a column; `None` when it is empty.
    pub(super) fn number(&self, column: &str) -> Result<Option<f64>> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse::<f64>().ok().filter(|x| x.is_finite());
        Ok(Some(number.with_context(|| format!("`{column}` is `{text}`, which is no number"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Result<Vec<Option<f64>>> {
        Table::parse("f.csv", text, ["a", "b"])?.rows(|row| row.number("b"))
    }

    #[test]
    fn rows_may_be_short_but_not_long() {
        assert_eq!(numbers("a,b\n1,2.5\n1\n# no row\n").unwrap(), [Some(2.5), None]);
        let text = |text: &str| format!("{:#}", numbers(text).unwrap_err());
        assert_eq!(text("a,b\n1,2,3\n"), "f.csv:2: this row has 3 columns, and the header 2");
        assert_eq!(text("a,b\n1,x\n"), "f.csv:2: `b` is `x`, which is no number");
        assert_eq!(text("a\n1\n"), "f.csv:1: there is no column `b`; the header must have a,b");
        assert_eq!(text("a,b,c\n1\n"), "f.csv:1: unknown column `c`; the header must have a,b");
    }
}
