//! What has changed between two `metrics.csv` of one scenario.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The columns that say which run and VM a row is of.
const KEY: [&str; 4] = ["point", "replicate", "strategy", "vm"];

/// A `metrics.csv`: its columns, and its rows by what they are of.
#[derive(Debug)]
pub(super) struct Rows {
    header: Vec<String>,
    rows: BTreeMap<Place, Vec<String>>,
}

/// Which row: where it stands in the order of the file comes first, so that differences are shown in that order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) point: u64,
    pub(super) strategy: String,
    pub(super) replicate: u64,
    pub(super) vm: String,
    /// How many rows with the same names come before: a VM may move more than once.
    occurrence: usize,
}

impl Rows {
    /// Reads a `metrics.csv`; messages call it `path`.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Rows> {
        let complaint = || format!("cannot read {}", path.display());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header: Vec<String> = reader.headers().with_context(complaint)?.iter().map(str::to_owned).collect();
        let at = |name: &str| {
            header.iter().position(|h| h == name).with_context(|| format!("{}: there is no column `{name}`", path.display()))
        };
        let [point, replicate, strategy, vm] = KEY.map(at);
        let (point, replicate, strategy, vm) = (point?, replicate?, strategy?, vm?);
        let mut rows = BTreeMap::new();
        for record in reader.records() {
            let record = record.with_context(complaint)?;
            let number = |at: usize| {
                record[at].parse::<u64>().with_context(|| format!("{}: `{}` is no number", path.display(), &record[at]))
            };
            let mut place = Place {
                point: number(point)?,
                strategy: record[strategy].to_owned(),
                replicate: number(replicate)?,
                vm: record[vm].to_owned(),
                occurrence: 0,
            };
            while rows.contains_key(&place) {
                place.occurrence += 1;
            }
            rows.insert(place, record.iter().map(str::to_owned).collect());
        }
        Ok(Rows { header, rows })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h == name)
    }
}

/// A value that has changed; empty where there was, or is, none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) place: Place,
    pub(super) metric: String,
    pub(super) then: String,
    pub(super) now: String,
}

impl Change {
    /// now / then - 1, where that is a number.
    pub(super) fn share(&self) -> Option<f64> {
        share(&self.then, &self.now)
    }
}

fn share(then: &str, now: &str) -> Option<f64> {
    let (then, now) = (then.parse::<f64>().ok()?, now.parse::<f64>().ok()?);
    let share = now / then - 1.0;
    share.is_finite().then_some(share)
}

/// Everything that has changed.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) changes: Vec<Change>,
    /// Rows that were there and are not, and the other way round.
    pub(super) gone: Vec<Place>,
    pub(super) come: Vec<Place>,
    /// Columns that were there and are not.
    pub(super) columns_gone: Vec<String>,
    /// Columns that the baseline does not have yet, which is no difference.
    pub(super) columns_new: Vec<String>,
    /// Values that were compared.
    pub(super) compared: usize,
}

impl Differences {
    /// Compares what both have; `tolerance` is the largest share by which a metric may move.
    pub(super) fn between(then: &Rows, now: &Rows, tolerance: &BTreeMap<String, f64>) -> Differences {
        let missing = |a: &Rows, b: &Rows| a.rows.keys().filter(|k| !b.rows.contains_key(*k)).cloned().collect::<Vec<Place>>();
        let columns = |a: &Rows, b: &Rows| a.header.iter().filter(|h| b.column(h).is_none()).cloned().collect::<Vec<String>>();
        let mut all = Differences {
            gone: missing(then, now),
            come: missing(now, then),
            columns_gone: columns(then, now),
            columns_new: columns(now, then),
            ..Differences::default()
        };
        let shared: Vec<(usize, usize, &String)> =
            then.header.iter().enumerate().filter_map(|(i, name)| Some((i, now.column(name)?, name))).collect();
        for (place, before) in &then.rows {
            let Some(after) = now.rows.get(place) else { continue };
            for (was, is, metric) in &shared {
                all.compared += 1;
                let (then, now) = (&before[*was], &after[*is]);
                let allowed = tolerance.get(*metric).copied().unwrap_or(0.0);
                if then != now && share(then, now).is_none_or(|s| s.abs() > allowed) {
                    let change = Change { place: place.clone(), metric: (*metric).clone(), then: then.clone(), now: now.clone() };
                    all.changes.push(change);
                }
            }
        }
        all
    }

    /// Nothing that the baseline has is different.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.gone.is_empty() && self.come.is_empty() && self.columns_gone.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Rows {
        Rows::parse(&format!("scenario,point,replicate,strategy,vm,{text}"), Path::new("m.csv")).unwrap()
    }

    fn differences(then: &str, now: &str, tolerance: &[(&str, f64)]) -> Differences {
        let tolerance = tolerance.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
        Differences::between(&rows(then), &rows(now), &tolerance)
    }

    #[test]
    fn a_metric_may_move_within_its_tolerance_only() {
        let (then, now) = ("a,b\ns,0,0,x,v,10,7\n", "a,b\ns,0,0,x,v,10.5,7\n");
        assert!(differences(then, then, &[]).is_empty());
        let found = differences(then, now, &[]);
        assert_eq!((found.changes.len(), found.compared), (1, 7));
        assert_eq!((found.changes[0].metric.as_str(), found.changes[0].share()), ("a", Some(0.050000000000000044)));
        assert!(differences(then, now, &[("a", 0.06)]).is_empty());
        assert!(!differences(then, now, &[("a", 0.04), ("b", 1.0)]).is_empty());
        // What was not reached and is, or the other way round, is outside of every tolerance.
        assert!(!differences("a\ns,0,0,x,v,\n", "a\ns,0,0,x,v,1\n", &[("a", 9.0)]).is_empty());
    }

    #[test]
    fn rows_and_columns_come_and_go() {
        let found = differences("a\ns,0,0,x,v,1\ns,0,0,x,v,2\n", "a\ns,0,0,x,v,1\ns,1,0,x,v,2\n", &[]);
        assert_eq!((found.changes.len(), found.gone.len(), found.come.len()), (0, 1, 1));
        assert_eq!((found.gone[0].occurrence, found.come[0].point), (1, 1));
        let lost = differences("a,b\ns,0,0,x,v,1,2\n", "a\ns,0,0,x,v,1\n", &[]);
        assert!(!lost.is_empty());
        let new = differences("a\ns,0,0,x,v,1\n", "b,a\ns,0,0,x,v,2,1\n", &[]);
        assert!(new.is_empty());
        assert_eq!(new.columns_new, ["b"]);
    }
}
