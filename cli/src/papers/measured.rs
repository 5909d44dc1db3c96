//! Runs of the scenarios, and what they have shown where published figures stand.

use super::Collection;
use super::published::{FLOW_METRICS, Published, Relation, Selection, parts};
use crate::batch;
use crate::jobs::{self, Job};
use crate::loaded::Loaded;
use crate::progress::Progress;
use crate::record::{self, WHOLE};
use crate::summary::Spread;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Name of a scenario, point, strategy.
type Place<'a> = (&'a str, usize, &'a str);

/// What the runs of some rows have shown.
pub(crate) struct Runs {
    /// By scenario, point and strategy: a run per replicate.
    runs: BTreeMap<(String, usize, String), Vec<Shown>>,
}

/// A run: the values of the metrics that somebody asks for, by VM or flow in the order of the run.
#[derive(Debug, Default)]
struct Shown {
    values: BTreeMap<String, Vec<(String, Option<f64>)>>,
}

impl Runs {
    /// Runs what the rows need, each point and strategy once.
    ///
    /// # Errors
    /// When a scenario is not there or wrong, or a run broke an invariant.
    pub(crate) fn of(rows: &[&Published], collection: &Collection, threads: usize) -> Result<Runs> {
        let mut needed: BTreeSet<Place<'_>> = BTreeSet::new();
        for row in rows {
            let baseline = row.baseline.as_ref().map(|b| b.strategy.as_str());
            for strategy in [Some(row.strategy.as_str()), baseline].into_iter().flatten() {
                needed.extend(row.points.clone().map(|point| (row.scenario.as_str(), point, strategy)));
            }
        }
        let names: BTreeSet<&str> = needed.iter().map(|place| place.0).collect();
        let loaded =
            names.iter().map(|name| Ok((*name, collection.scenario(name)?))).collect::<Result<BTreeMap<&str, Loaded>>>()?;
        let mut all: Vec<(Place<'_>, Job)> = Vec::new();
        for place in needed {
            all.extend(jobs_at(&loaded[place.0], place)?.into_iter().map(|job| (place, job)));
        }
        let metrics: BTreeSet<&str> = rows.iter().flat_map(|row| parts(&row.metric)).collect();
        let mut runs: BTreeMap<(String, usize, String), Vec<Shown>> = BTreeMap::new();
        let progress = Progress::new(all.len());
        let work = |(place, job): &(Place<'_>, Job)| shown(&loaded[place.0], job, &metrics);
        jobs::in_order(&all, threads, work, |((scenario, point, strategy), _), shown| {
            let shown = shown.with_context(|| format!("{scenario}, point {point}, {strategy}"))?;
            runs.entry(((*scenario).to_owned(), *point, (*strategy).to_owned())).or_default().push(shown);
            progress.step(|| ());
            Ok(())
        })?;
        Ok(Runs { runs })
    }

    /// What stands beside a published figure, in its unit; `None` when a run has not reached it.
    ///
    /// # Errors
    /// When the run has no such VM or flow.
    pub(crate) fn beside(&self, row: &Published) -> Result<Option<f64>> {
        let ours = self.value(row, &row.strategy)?;
        let value = match &row.baseline {
            None => ours,
            Some(baseline) => ours.zip(self.value(row, &baseline.strategy)?).map(|(ours, base)| match baseline.relation {
                Relation::Reduction => 1.0 - ours / base,
                Relation::Factor => base / ours,
            }),
        };
        Ok(value.map(|v| v / row.size).filter(|v| v.is_finite()))
    }

    /// The mean over the row's points.
    fn value(&self, row: &Published, strategy: &str) -> Result<Option<f64>> {
        let values = row.points.clone().map(|point| self.at(row, strategy, point)).collect::<Result<Option<Vec<f64>>>>()?;
        Ok(values.map(|all| all.iter().sum::<f64>() / all.len() as f64))
    }

    /// The median over the replicates of a point.
    fn at(&self, row: &Published, strategy: &str, point: usize) -> Result<Option<f64>> {
        let shown = self.runs.get(&(row.scenario.clone(), point, strategy.to_owned())).map_or(&[][..], Vec::as_slice);
        let values = shown.iter().map(|run| run.value(&row.metric, &row.of)).collect::<Result<Option<Vec<f64>>>>();
        let values = values.with_context(|| format!("{}, point {point}, {strategy}", row.scenario))?;
        Ok(values.and_then(Spread::of).map(|spread| spread.median))
    }
}

fn jobs_at(loaded: &Loaded, (name, point, strategy): Place<'_>) -> Result<Vec<Job>> {
    let Some(at) = loaded.scenario.points.get(point) else {
        bail!("{name}: there is no point {point}; the scenario has {}", loaded.scenario.points.len());
    };
    let Some(index) = at.strategies.iter().position(|s| s.name == strategy) else {
        bail!("{name}: there is no strategy `{strategy}`; there are {}", loaded.strategy_names().join(", "));
    };
    Ok((0..loaded.scenario.replicates).map(|replicate| Job { point, strategy: index, replicate }).collect())
}

fn shown(loaded: &Loaded, job: &Job, metrics: &BTreeSet<&str>) -> Shown {
    let point = &loaded.scenario.points[job.point];
    let mut result = livemig_sim::run(&point.world, &point.strategies[job.strategy], batch::settings(&loaded.scenario, job));
    let mut values: BTreeMap<String, Vec<(String, Option<f64>)>> = BTreeMap::new();
    for (metric, read) in FLOW_METRICS {
        values.insert(metric.to_owned(), result.flows.iter().map(|flow| (flow.name.clone(), read(flow))).collect());
    }
    let records = batch::records(loaded, job, &mut result);
    for (name, read) in record::COLUMNS.iter().filter(|(name, _)| metrics.contains(name)) {
        values.insert((*name).to_owned(), records.iter().map(|r| (r.vm.to_owned(), read(r).number())).collect());
    }
    Shown { values }
}

impl Shown {
    fn value(&self, metric: &str, of: &Selection) -> Result<Option<f64>> {
        let mut each = parts(metric).map(|part| self.plain(part, of));
        let (value, divisor) = (each.next().transpose()?.flatten(), each.next().transpose()?);
        Ok(match divisor {
            None => value,
            Some(divisor) => value.zip(divisor).map(|(value, divisor)| value / divisor),
        })
    }

    fn plain(&self, metric: &str, of: &Selection) -> Result<Option<f64>> {
        let values = self.values.get(metric).map_or(&[][..], Vec::as_slice);
        let names = || values.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let fold = |pattern: &str, fold: fn(&[f64]) -> f64| {
            let chosen = values.iter().filter(|(name, _)| name != WHOLE && matches(pattern, name));
            let chosen: Vec<Option<f64>> = chosen.map(|(_, value)| *value).collect();
            if chosen.is_empty() {
                bail!("nothing is called `{pattern}`; there are {}", names());
            }
            Ok(chosen.into_iter().collect::<Option<Vec<f64>>>().map(|all| fold(&all)))
        };
        match of {
            // A run with one VM has no row of the whole.
            Selection::Whole => match values {
                [only] => Ok(only.1),
                _ => fold_one(values, WHOLE).with_context(|| format!("there is no whole; there are {}", names())),
            },
            Selection::One(name) => {
                fold_one(values, name).with_context(|| format!("nothing is called `{name}`; there are {}", names()))
            }
            Selection::Mean(pattern) => fold(pattern, |all| all.iter().sum::<f64>() / all.len() as f64),
            Selection::Sum(pattern) => fold(pattern, |all| all.iter().sum()),
            Selection::Largest(pattern) => fold(pattern, |all| all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        }
    }
}

fn fold_one(values: &[(String, Option<f64>)], name: &str) -> Option<Option<f64>> {
    values.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
}

/// Whether a name is like a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(i, _)| i).chain([rest.len()]);
            ends.into_iter().any(|end| matches(after, &rest[end..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, like) in [
            ("*", "vm", true),
            ("vm*", "vm12", true),
            ("vm*2", "vm12", true),
            ("vm*3", "vm12", false),
            ("vm", "vm1", false),
            ("*a*b", "xaaybb", true),
        ] {
            assert_eq!(matches(pattern, name), like, "{pattern} {name}");
        }
    }

    #[test]
    fn values_are_those_of_the_selection() {
        let rows = [("a1", Some(1.0)), ("a2", Some(4.0)), ("b", None), (WHOLE, Some(9.0))];
        let rows = rows.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let tenth = ["a1", "a2", "b", WHOLE].map(|name| (name.to_owned(), Some(10.0))).to_vec();
        let shown = Shown { values: [("m".to_owned(), rows), ("ten".to_owned(), tenth)].into() };
        let value = |of: Selection| shown.value("m", &of);
        assert_eq!(value(Selection::Whole).unwrap(), Some(9.0));
        assert_eq!(value(Selection::One("a2".into())).unwrap(), Some(4.0));
        assert_eq!(value(Selection::Mean("a*".into())).unwrap(), Some(2.5));
        assert_eq!(value(Selection::Sum("a*".into())).unwrap(), Some(5.0));
        assert_eq!(value(Selection::Largest("a*".into())).unwrap(), Some(4.0));
        assert_eq!(shown.value("m/ten", &Selection::One("a2".into())).unwrap(), Some(0.4));
        assert_eq!(shown.value("m/ten", &Selection::One("b".into())).unwrap(), None);
        // What one of them has not reached, all have not reached.
        assert_eq!(value(Selection::Sum("*".into())).unwrap(), None);
        assert_eq!(value(Selection::One("c".into())).unwrap_err().to_string(), "nothing is called `c`; there are a1, a2, b, *");
    }
}
