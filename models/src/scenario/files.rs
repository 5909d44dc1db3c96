//! The CSV files that a scenario refers to: tables of fleets, measured curves, traces. Each is read once.

use super::error::{Fault, choices};
use crate::world::{DirtyCurve, Phase, Workload};
use livemig_core::units::{Bytes, PAGE_SIZE, Span};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 512 << 20;
/// Most rows of a curve or a trace.
const MAX_ROWS: usize = 1_000_000;
/// Most pages that a file may speak of: 2^50 bytes.
const MAX_PAGES: f64 = (1_u64 << 50) as f64 / PAGE_SIZE as f64;

/// A file that went into a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// XXH3 (128 bits) of its content, in hexadecimal digits.
    pub hash: String,
}

/// The files of one scenario.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Where they are; `None` when they are given, and none is on disk.
    base: Option<PathBuf>,
    texts: BTreeMap<String, Arc<str>>,
    tables: BTreeMap<String, Arc<CsvTable>>,
    curves: BTreeMap<String, Arc<DirtyCurve>>,
    traces: BTreeMap<String, Recorded>,
    pub(crate) inputs: Vec<Input>,
}

/// A trace that was read.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) phases: Arc<[Phase]>,
    /// The largest working set.
    pub(crate) reach: Bytes,
}

/// The hash of a file's content.
pub(crate) fn hash(content: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(content))
}

impl Files {
    /// Files with paths relative to `base`.
    pub(crate) fn new(base: &Path) -> Files {
        Files { base: Some(base.to_owned()), ..Files::default() }
    }

    /// Files by the names that scenarios call them.
    pub(crate) fn in_memory<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Files {
        let texts = files.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        Files { texts, ..Files::default() }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or is not UTF-8.
    pub(crate) fn text(&mut self, name: &str) -> Result<Arc<str>, String> {
        if let Some(text) = self.texts.get(name) {
            return Ok(text.clone());
        }
        let path = self.base.as_ref().ok_or_else(|| format!("there is no file `{name}`"))?.join(name);
        let text = read_text(&path).map_err(|problem| format!("cannot read `{}`: {problem}", path.display()))?;
        self.inputs.push(Input { hash: hash(text.as_bytes()), path });
        let text: Arc<str> = text.into();
        self.texts.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    /// The table of a fleet.
    ///
    /// # Errors
    /// When it cannot be read or is no table.
    pub(crate) fn table(&mut self, name: &str, max_rows: u64) -> Result<Arc<CsvTable>, Fault> {
        if let Some(table) = self.tables.get(name) {
            return Ok(table.clone());
        }
        let text = self.text(name).map_err(|problem| Fault::at(0, "", problem))?;
        let max_rows = usize::try_from(max_rows).unwrap_or(usize::MAX);
        let table = Arc::new(CsvTable::parse(name, &text, max_rows)?);
        self.texts.remove(name);
        self.tables.insert(name.to_owned(), table.clone());
        Ok(table)
    }

    /// A measured curve: columns `seconds` and `pages`.
    ///
    /// # Errors
    /// When it cannot be read or is no curve.
    pub(crate) fn curve(&mut self, name: &str) -> Result<Arc<DirtyCurve>, Fault> {
        if let Some(curve) = self.curves.get(name) {
            return Ok(curve.clone());
        }
        let table = self.numbers(name)?;
        let rows = table.numbers(["seconds", "pages"])?;
        let mut points = vec![(0.0, 0.0)];
        for (row, [seconds, pages]) in rows.iter().enumerate() {
            let last = points[points.len() - 1].1;
            let before = row.checked_sub(1).map_or(0.0, |r| rows[r][0]);
            if row == 0 && *seconds == 0.0 {
                if *pages != 0.0 {
                    return Err(table.fault(row, "at 0 seconds a curve has 0 pages"));
                }
                continue;
            }
            if *seconds <= before {
                return Err(table.fault(row, "`seconds` must grow from row to row"));
            }
            let bytes = pages * PAGE_SIZE as f64;
            if bytes < last {
                return Err(table.fault(row, "`pages` must not fall from row to row"));
            }
            if *pages > MAX_PAGES {
                return Err(table.fault(row, "`pages` is more than 2^50 bytes of memory"));
            }
            // A curve that stands still has no inverse: the row is left out, and the line to the next one runs through.
            if bytes > last {
                points.push((*seconds, bytes));
            }
        }
        if points.len() < 2 {
            return Err(Fault::in_file(name, 1, "a curve needs at least one row with pages above 0"));
        }
        let curve = Arc::new(DirtyCurve { points });
        self.curves.insert(name.to_owned(), curve.clone());
        Ok(curve)
    }

    /// A trace: columns `seconds`, `writes_per_s`, `reads_per_s`, `working_set_pages`; each row holds until the next one.
    ///
    /// # Errors
    /// When it cannot be read or is no trace.
    pub(crate) fn trace(&mut self, name: &str) -> Result<Recorded, Fault> {
        if let Some(trace) = self.traces.get(name) {
            return Ok(trace.clone());
        }
        let table = self.numbers(name)?;
        let rows = table.numbers(["seconds", "writes_per_s", "reads_per_s", "working_set_pages"])?;
        let mut phases = Vec::with_capacity(rows.len());
        for (row, [seconds, writes, reads, pages]) in rows.iter().enumerate() {
            if row == 0 && *seconds != 0.0 {
                return Err(table.fault(row, "a trace begins at 0 seconds"));
            }
            if *pages > MAX_PAGES {
                return Err(table.fault(row, "`working_set_pages` is more than 2^50 bytes of memory"));
            }
            let until = rows.get(row + 1).map_or(Span::MAX, |next| Span::from_secs_f64(next[0]));
            if until <= Span::from_secs_f64(*seconds) {
                return Err(table.fault(row + 1, "`seconds` must grow from row to row by at least 1 ns"));
            }
            let working_set = Bytes((pages * PAGE_SIZE as f64) as u64);
            phases.push(Phase { until, workload: Workload::Uniform { working_set, writes: *writes, reads: *reads } });
        }
        if phases.is_empty() {
            return Err(Fault::in_file(name, 1, "a trace needs at least one row"));
        }
        let reach = phases.iter().map(|p| p.workload.reach()).max().unwrap_or(Bytes::ZERO);
        let trace = Recorded { phases: phases.into(), reach };
        self.traces.insert(name.to_owned(), trace.clone());
        Ok(trace)
    }

    fn numbers(&mut self, name: &str) -> Result<CsvTable, Fault> {
        let text = self.text(name).map_err(|problem| Fault::at(0, "", problem))?;
        CsvTable::parse(name, &text, MAX_ROWS)
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("it has {size} bytes; at most {MAX_FILE} are read"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

/// A CSV file with a header, in a few large pieces.
#[derive(Debug)]
pub(crate) struct CsvTable {
    name: String,
    header: Vec<String>,
    cells: String,
    /// Where each cell ends in `cells`, row by row.
    ends: Vec<usize>,
    lines: Vec<u32>,
}

/// A row of a [`CsvTable`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    table: &'a CsvTable,
    number: usize,
}

impl CsvTable {
    fn parse(name: &str, text: &str, max_rows: usize) -> Result<CsvTable, Fault> {
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
        let fault = |e: &csv::Error| {
            let line = e.position().map_or(1, csv::Position::line);
            let problem = match e.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("this row has {len} columns, and the header {expected_len}")
                }
                _ => e.to_string(),
            };
            Fault::in_file(name, u32::try_from(line).unwrap_or(u32::MAX), problem)
        };
        let header: Vec<String> = reader.headers().map_err(|e| fault(&e))?.iter().map(str::to_owned).collect();
        if let Some(twice) = header.iter().enumerate().find(|(at, h)| header[..*at].contains(h)) {
            return Err(Fault::in_file(name, 1, format!("column `{}` is there twice", twice.1)));
        }
        let mut table = CsvTable { name: name.to_owned(), header, cells: String::new(), ends: Vec::new(), lines: Vec::new() };
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|e| fault(&e))? {
            let line = u32::try_from(record.position().map_or(1, csv::Position::line)).unwrap_or(u32::MAX);
            if table.lines.len() == max_rows {
                return Err(Fault::in_file(name, line, format!("more than {max_rows} rows")));
            }
            for cell in &record {
                table.cells.push_str(cell);
                table.ends.push(table.cells.len());
            }
            table.lines.push(line);
        }
        Ok(table)
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        self.lines.len() as u64
    }

    /// A row, from 0.
    pub(crate) fn row(&self, number: u64) -> Option<Row<'_>> {
        let number = usize::try_from(number).ok().filter(|n| *n < self.lines.len())?;
        Some(Row { table: self, number })
    }

    fn cell(&self, row: usize, column: usize) -> &str {
        let at = row * self.header.len() + column;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.cells[start..self.ends[at]]
    }

    fn fault(&self, row: usize, problem: &str) -> Fault {
        Fault::in_file(&self.name, self.lines[row], problem)
    }

    /// All rows as numbers, which are finite and not negative; the columns are found by their names.
    fn numbers<const N: usize>(&self, columns: [&str; N]) -> Result<Vec<[f64; N]>, Fault> {
        let mut at = [0; N];
        for (to, column) in at.iter_mut().zip(columns) {
            *to = self.header.iter().position(|h| h == column).ok_or_else(|| {
                Fault::in_file(&self.name, 1, format!("no column `{column}`; the header must have {}", columns.join(",")))
            })?;
        }
        if let Some(other) = self.header.iter().find(|h| !columns.contains(&h.as_str())) {
            return Err(Fault::in_file(&self.name, 1, format!("unknown column `{other}`; {}", choices(other, &columns))));
        }
        (0..self.lines.len())
            .map(|row| {
                let mut numbers = [0.0; N];
                for ((to, column), name) in numbers.iter_mut().zip(at).zip(columns) {
                    let text = self.cell(row, column);
                    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
                    *to = number
                        .ok_or_else(|| self.fault(row, &format!("`{name}` is `{text}`; expected a finite number, not negative")))?;
                }
                Ok(numbers)
            })
            .collect()
    }
}

impl<'a> Row<'a> {
    /// The text in the column called `name`.
    pub(crate) fn get(&self, name: &str) -> Result<&'a str, String> {
        let column = self.table.header.iter().position(|h| h == name);
        let column =
            column.ok_or_else(|| format!("no column `{name}` in `{}`; {}", self.table.name, choices(name, &self.table.header)))?;
        Ok(self.table.cell(self.number, column))
    }

    /// Where it is, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.table.name, self.table.lines[self.number])
    }
}
