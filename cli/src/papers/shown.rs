//! Rows as they are shown: published beside ours, and how far apart they are.

use super::{Kind, Published};
use crate::value::Value;

/// The columns of a paper's CSV file.
const COLUMNS: [&str; 8] = ["paper", "figure", "quantity", "unit", "kind", "paper_value", "ours", "deviation"];

/// The column names.
pub(crate) fn header() -> [&'static str; COLUMNS.len()] {
    COLUMNS
}

/// A published figure and ours.
#[derive(Clone, Debug)]
pub(crate) struct Beside<'a> {
    pub(crate) published: &'a Published,
    /// Ours in the paper's unit; `None` when the run has not reached it.
    pub(crate) ours: Option<f64>,
}

impl Beside<'_> {
    /// Ours / published - 1; `None` where one is missing or the published figure is 0.
    pub(crate) fn deviation(&self) -> Option<f64> {
        let published = self.published.paper_value.filter(|v| *v != 0.0)?;
        Some(self.ours? / published - 1.0)
    }

    /// The row of the CSV file: ours to five digits, deviations to four decimals.
    pub(crate) fn values(&self) -> [Value; COLUMNS.len()] {
        let text = |x: Option<f64>, write: fn(f64) -> String| x.map_or(Value::Empty, |x| Value::Text(write(x)));
        let ours = text(self.ours, |x| number(x, 5));
        self.with(self.published.paper_text.as_str().into(), ours, text(self.deviation(), |d| format!("{d:+.4}")))
    }

    /// The row with its numbers in full.
    pub(crate) fn numbers(&self) -> [Value; COLUMNS.len()] {
        self.with(self.published.paper_value.into(), self.ours.into(), self.deviation().into())
    }

    fn with(&self, paper_value: Value, ours: Value, deviation: Value) -> [Value; COLUMNS.len()] {
        let Published { paper, figure, quantity, unit, kind, .. } = self.published;
        let [paper, figure, quantity, unit, kind] = [paper, figure, quantity, unit, kind].map(|text| Value::from(text.as_str()));
        [paper, figure, quantity, unit, kind, paper_value, ours, deviation]
    }
}

/// A number with so many significant digits, without zeros that say nothing and without exponent.
pub(crate) fn number(x: f64, digits: i32) -> String {
    if x == 0.0 || !x.is_finite() {
        return "0".to_owned();
    }
    let magnitude = libm::floor(libm::log10(x.abs())) as i32;
    let decimals = (digits - 1 - magnitude).clamp(0, 12) as usize;
    let text = format!("{x:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// How well rows of one kind agree.
#[derive(Clone, Debug)]
pub(crate) struct Tally<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) rows: usize,
    /// Rows with a published figure, and those of them within 5 and within 10 %. What a run has not reached is neither.
    pub(crate) compared: usize,
    pub(crate) within: [usize; 2],
    /// The largest deviation.
    pub(crate) worst: f64,
}

impl<'a> Tally<'a> {
    /// The kinds that there are rows of, in their order.
    pub(crate) fn of(kinds: &'a [Kind], rows: &[Beside<'_>]) -> Vec<Tally<'a>> {
        let tally = |kind: &'a Kind| {
            let own: Vec<_> = rows.iter().filter(|row| row.published.kind == kind.name).collect();
            let deviations: Vec<f64> = own.iter().filter_map(|row| row.deviation()).collect();
            let within = [0.05, 0.1].map(|limit| deviations.iter().filter(|d| d.abs() <= limit).count());
            let worst = deviations.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            let compared = own.iter().filter(|row| row.published.paper_value.is_some_and(|v| v != 0.0)).count();
            Tally { kind, rows: own.len(), compared, within, worst }
        };
        kinds.iter().map(tally).filter(|t| t.rows > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_were_asked_for() {
        for (x, digits, text) in [
            (328.59234, 5, "328.59"),
            (15.2, 9, "15.2"),
            (10261.4, 5, "10261"),
            (0.0061234, 3, "0.00612"),
            (-0.2, 4, "-0.2"),
            (100.0, 2, "100"),
            (0.0, 5, "0"),
        ] {
            assert_eq!(number(x, digits), text);
        }
    }
}
