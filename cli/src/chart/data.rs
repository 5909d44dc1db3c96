//! What charts show, read back from the CSV files.

use crate::output::{BANDWIDTH, METRICS, PHASE, ROUNDS, TIMELINE, WORK};
use crate::record::WHOLE;
use anyhow::{Context, Result, bail};
use csv::StringRecord;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Everything that is drawn of an output directory.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Name of the scenario.
    pub(super) scenario: String,
    /// Strategies at points, in the order of the file.
    pub(super) groups: Vec<Group>,
}

/// A strategy at a point of the sweep.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) point: usize,
    /// `key = value` of every swept key.
    pub(super) label: String,
    pub(super) strategy: String,
    /// The whole of each replicate.
    pub(super) runs: Vec<Row>,
    /// Whether a run has several VMs.
    pub(super) several_vms: bool,
    /// The first VM of the first replicate.
    pub(super) first: Row,
    /// The rounds of the first VM.
    pub(super) rounds: Vec<Round>,
    /// The timeline of the first VM.
    pub(super) timeline: Timeline,
}

/// A row of `metrics.csv`; times in seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) replicate: String,
    pub(super) vm: String,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) outcome: String,
    pub(super) converged: bool,
    pub(super) requested: Option<f64>,
    pub(super) eviction: Option<f64>,
    pub(super) total: Option<f64>,
    pub(super) downtime: Option<f64>,
    pub(super) perceived: Option<f64>,
    pub(super) observed: Option<f64>,
    /// Memory, state, activation.
    pub(super) parts: Option<[f64; 3]>,
}

/// A round of copying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) index: u64,
    pub(super) started: f64,
    pub(super) duration: f64,
    pub(super) pages: f64,
    pub(super) dirty: Option<f64>,
}

/// What a migration did when; each value holds until the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    pub(super) phases: Vec<(f64, String)>,
    /// Bytes per second.
    pub(super) bandwidth: Vec<(f64, f64)>,
    /// Share of the baseline.
    pub(super) work: Vec<(f64, f64)>,
}

impl Results {
    /// Reads the CSV files of a directory.
    ///
    /// # Errors
    /// When a file is missing or is not one of ours.
    pub(super) fn read(directory: &Path) -> Result<Results> {
        let mut results = Results::default();
        let metrics = Table::open(directory.join(METRICS))?;
        let swept: Vec<String> = metrics.columns.keys().filter(|name| name.starts_with("sweep.")).cloned().collect();
        metrics.each(|row| results.add(row, &swept))?;
        let index = results.groups.iter().enumerate().map(|(i, g)| ((g.point, g.strategy.clone()), i)).collect::<BTreeMap<_, _>>();
        let groups = &mut results.groups;
        let find = |groups: &[Group], row: &Cells<'_>| -> Result<Option<usize>> {
            let at = index.get(&(row.number("point")? as usize, row.text("strategy")?.to_owned())).copied();
            let (vm, replicate) = (row.text("vm")?, row.text("replicate")?);
            Ok(at.filter(|i| groups[*i].first.vm == vm && groups[*i].first.replicate == replicate))
        };
        Table::open(directory.join(ROUNDS))?.each(|row| {
            if let Some(at) = find(groups, row)? {
                groups[at].rounds.push(round(row)?);
            }
            Ok(())
        })?;
        Table::open(directory.join(TIMELINE))?.each(|row| {
            if let Some(at) = find(groups, row)? {
                groups[at].timeline.add(row)?;
            }
            Ok(())
        })?;
        Ok(results)
    }

    fn add(&mut self, row: &Cells<'_>, swept: &[String]) -> Result<()> {
        let (point, strategy) = (row.number("point")? as usize, row.text("strategy")?);
        let cells = read_row(row)?;
        self.scenario = row.text("scenario")?.to_owned();
        if self.groups.last().is_none_or(|g| g.point != point || g.strategy != strategy) {
            let label = swept.iter().map(|name| Ok(format!("{} = {}", name.trim_start_matches("sweep."), row.text(name)?)));
            self.groups.push(Group {
                point,
                label: label.collect::<Result<Vec<String>>>()?.join(", "),
                strategy: strategy.to_owned(),
                runs: Vec::new(),
                several_vms: false,
                first: cells.clone(),
                rounds: Vec::new(),
                timeline: Timeline::default(),
            });
        }
        let Some(group) = self.groups.last_mut() else { return Ok(()) };
        group.several_vms |= cells.vm == WHOLE;
        // The row of the whole run is the last one and takes the place of its VMs.
        if group.runs.last().is_some_and(|last| last.replicate == cells.replicate) {
            group.runs.pop();
        }
        group.runs.push(cells);
        Ok(())
    }
}

impl Timeline {
    fn add(&mut self, row: &Cells<'_>) -> Result<()> {
        let at = row.number("at_s")?;
        match row.text("kind")? {
            PHASE => self.phases.push((at, row.text("value")?.to_owned())),
            BANDWIDTH => self.bandwidth.push((at, row.number("value")?)),
            WORK => self.work.push((at, row.number("value")?)),
            _ => {}
        }
        Ok(())
    }
}

fn read_row(row: &Cells<'_>) -> Result<Row> {
    let parts = ["downtime_memory_s", "downtime_state_s", "downtime_activation_s"];
    let [memory, state, activation] = parts.map(|name| row.optional(name));
    Ok(Row {
        replicate: row.text("replicate")?.to_owned(),
        vm: row.text("vm")?.to_owned(),
        source: row.text("source")?.to_owned(),
        destination: row.text("destination")?.to_owned(),
        outcome: row.text("outcome")?.to_owned(),
        converged: row.text("converged")? == "true",
        requested: row.optional("requested_s")?,
        eviction: row.optional("eviction_time_s")?,
        total: row.optional("total_migration_time_s")?,
        downtime: row.optional("downtime_s")?,
        perceived: row.optional("perceived_downtime_s")?,
        observed: row.optional("observed_s")?,
        parts: match (memory?, state?, activation?) {
            (Some(memory), Some(state), Some(activation)) => Some([memory, state, activation]),
            _ => None,
        },
    })
}

fn round(row: &Cells<'_>) -> Result<Round> {
    Ok(Round {
        index: row.number("round")? as u64,
        started: row.number("started_s")?,
        duration: row.number("duration_s")?,
        pages: row.number("page_bytes")?,
        dirty: row.optional("dirty_bytes")?,
    })
}

/// A CSV file with its columns by name.
struct Table {
    path: PathBuf,
    reader: csv::Reader<File>,
    columns: BTreeMap<String, usize>,
}

/// A row with its columns by name.
struct Cells<'a> {
    columns: &'a BTreeMap<String, usize>,
    record: &'a StringRecord,
}

impl Table {
    fn open(path: PathBuf) -> Result<Table> {
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().with_context(|| format!("cannot read {}", path.display()))?;
        let columns = header.iter().enumerate().map(|(i, name)| (name.to_owned(), i)).collect();
        Ok(Table { path, reader, columns })
    }

    fn each(mut self, mut take: impl FnMut(&Cells<'_>) -> Result<()>) -> Result<()> {
        let mut record = StringRecord::new();
        while self.reader.read_record(&mut record).with_context(|| format!("cannot read {}", self.path.display()))? {
            let line = record.position().map_or(0, csv::Position::line);
            take(&Cells { columns: &self.columns, record: &record })
                .with_context(|| format!("{}, line {line}", self.path.display()))?;
        }
        Ok(())
    }
}

impl<'a> Cells<'a> {
    fn text(&self, name: &str) -> Result<&'a str> {
        let index = self.columns.get(name).with_context(|| format!("there is no column `{name}`"))?;
        self.record.get(*index).with_context(|| format!("there is no value for `{name}`"))
    }

    fn optional(&self, name: &str) -> Result<Option<f64>> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(Some(number)),
            _ => bail!("`{name}` is `{text}`, which is no number"),
        }
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.optional(name)?.with_context(|| format!("`{name}` is empty"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    pub(in crate::chart) const HEAD: &str = "scenario,point,replicate,strategy,vm,source,destination,outcome,converged,requested_s,\
        eviction_time_s,total_migration_time_s,downtime_s,downtime_memory_s,downtime_state_s,downtime_activation_s,perceived_downtime_s,observed_s,\
        sweep.a\n";

    pub(in crate::chart) fn directory(metrics: &str, rounds: &str, timeline: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let run = "scenario,point,replicate,strategy,vm";
        fs::write(directory.path().join(METRICS), format!("{HEAD}{metrics}")).unwrap();
        let rounds = format!("{run},round,started_s,duration_s,page_bytes,dirty_bytes\n{rounds}");
        fs::write(directory.path().join(ROUNDS), rounds).unwrap();
        fs::write(directory.path().join(TIMELINE), format!("{run},at_s,kind,value\n{timeline}")).unwrap();
        directory
    }

    #[test]
    fn the_whole_stands_for_its_vms() {
        let row = |replicate: u32, vm: &str, eviction: u32| {
            format!("s,0,{replicate},pre-copy,{vm},a,b,completed,true,1,{eviction},20,0.3,0.2,0.05,0.05,,30,1 GiB\n")
        };
        let metrics: String = (0..2).flat_map(|r| [row(r, "v1", 10), row(r, "v2", 11), row(r, "*", 12)]).collect();
        let rounds = "s,0,0,pre-copy,v1,0,1,9,4096,\ns,0,0,pre-copy,v2,0,1,9,4096,0\ns,0,1,pre-copy,v1,0,1,9,4096,0\n";
        let timeline = "s,0,0,pre-copy,v1,1,phase,live copy\ns,0,0,pre-copy,v1,1,work,0.5\ns,0,0,pre-copy,v2,1,work,0.5\n";
        let results = Results::read(directory(&metrics, rounds, timeline).path()).unwrap();
        let [group] = &results.groups[..] else { panic!("{results:?}") };
        assert_eq!(group.runs.iter().map(|r| r.eviction).collect::<Vec<_>>(), [Some(12.0), Some(12.0)]);
        assert!(group.several_vms);
        assert_eq!((group.first.vm.as_str(), group.first.eviction, group.label.as_str()), ("v1", Some(10.0), "a = 1 GiB"));
        assert_eq!((group.rounds.len(), group.timeline.phases.len(), group.timeline.work.len()), (1, 1, 1));
    }

    #[test]
    fn broken_files_are_named() {
        let text = |metrics: &str| format!("{:#}", Results::read(directory(metrics, "", "").path()).unwrap_err());
        let complaint = text("s,0,0,pre-copy,v,a,b,completed,true,1,ten,20,0.3,0.2,0.05,0.05,,30,1\n");
        assert!(complaint.contains("metrics.csv, line 2: `eviction_time_s` is `ten`"), "{complaint}");
        let complaint = text("s,0\n");
        assert!(complaint.contains("metrics.csv"), "{complaint}");
        let empty = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", Results::read(empty.path()).unwrap_err()).contains("cannot read"));
    }
}
