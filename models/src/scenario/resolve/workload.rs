//! Workloads, checked against the memory of their guest.

use crate::scenario::error::Fault;
use crate::scenario::files::Files;
use crate::scenario::quantity::{PageRate, Positive, written_size};
use crate::scenario::raw::{self, Steady};
use crate::scenario::value::{Member, Text, Value};
use crate::world::{Phase, Workload};
use livemig_core::units::{Bytes, Span};

/// Highest exponent of Zipf's law; beyond, all accesses go to one page anyway.
const MAX_EXPONENT: f64 = 100.0;

/// The place of a workload: whose it is, where it stands, and the memory that it must fit.
struct Place<'a> {
    member: &'a Member<'a>,
    key: &'a str,
    memory: Bytes,
    /// What is accessed.
    of: &'static str,
}

/// The workload of a member, or of an event.
///
/// # Errors
/// When a value fails or does not fit into the guest's memory.
pub(super) fn resolve(
    raw: &raw::Workload,
    member: &Member<'_>,
    key: &str,
    memory: Bytes,
    files: &mut Files,
) -> Result<Workload, Fault> {
    Place { member, key, memory, of: "memory of the VM" }.resolve(raw, files)
}

/// The workload of a member's disk.
///
/// # Errors
/// When a value fails or does not fit onto the disk, or blocks are read, which nothing depends on.
pub(super) fn of_disk(
    raw: &raw::Workload,
    member: &Member<'_>,
    key: &str,
    size: Bytes,
    files: &mut Files,
    line: u32,
) -> Result<Workload, Fault> {
    let workload = Place { member, key, memory: size, of: "disk" }.resolve(raw, files)?;
    if workload.reads() {
        let problem = "reads of a disk change nothing, as all of it is there before the guest starts; leave them out";
        return Err(member.fault(line, key, problem));
    }
    Ok(workload)
}

impl Place<'_> {
    fn resolve(&self, raw: &raw::Workload, files: &mut Files) -> Result<Workload, Fault> {
        match raw {
            raw::Workload::Idle => Ok(Workload::Idle),
            raw::Workload::Uniform(a) => self.uniform(a),
            raw::Workload::Sequential(a) => self.sequential(a),
            raw::Workload::HotCold(h) => self.hot_cold(h),
            raw::Workload::Zipf(z) => self.zipf(z),
            raw::Workload::Curve(c) => self.curve(c, files),
            raw::Workload::Phases(p) => self.phases(p, files),
            raw::Workload::Trace(t) => self.trace(t, files),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.key)
    }

    fn fault(&self, line: u32, key: &str, problem: &str) -> Fault {
        self.member.fault(line, &self.key(key), problem)
    }

    fn rate(&self, value: Option<&Value<PageRate>>, key: &str) -> Result<f64, Fault> {
        value.map_or(Ok(0.0), |value| Ok(value.get_under(self.member, self.key, key)?.0))
    }

    /// A part of memory; all of it when nothing is said.
    fn part(&self, value: Option<&Value<Bytes>>, key: &str) -> Result<Bytes, Fault> {
        let Some(value) = value else { return Ok(self.memory) };
        let bytes = value.get_under(self.member, self.key, key)?;
        if bytes.is_zero() {
            return Err(self.fault(value.line, key, "must be above zero"));
        }
        self.fits(bytes, value.line, key)
    }

    fn fits(&self, bytes: Bytes, line: u32, key: &str) -> Result<Bytes, Fault> {
        if bytes > self.memory {
            let problem = format!("{} is more than the {}, {}", written_size(bytes), self.of, written_size(self.memory));
            return Err(self.fault(line, key, &problem));
        }
        Ok(bytes)
    }

    fn uniform(&self, raw: &raw::Accesses) -> Result<Workload, Fault> {
        Ok(Workload::Uniform {
            working_set: self.part(raw.working_set.as_ref(), "working_set")?,
            writes: self.rate(raw.writes.as_ref(), "writes")?,
            reads: self.rate(raw.reads.as_ref(), "reads")?,
        })
    }

    fn sequential(&self, raw: &raw::Accesses) -> Result<Workload, Fault> {
        Ok(Workload::Sequential {
            working_set: self.part(raw.working_set.as_ref(), "working_set")?,
            writes: self.rate(raw.writes.as_ref(), "writes")?,
            reads: self.rate(raw.reads.as_ref(), "reads")?,
        })
    }

    fn hot_cold(&self, raw: &raw::HotCold) -> Result<Workload, Fault> {
        Ok(Workload::HotCold {
            hot: self.part(Some(&raw.hot), "hot")?,
            hot_writes: self.rate(raw.hot_writes.as_ref(), "hot_writes")?,
            hot_reads: self.rate(raw.hot_reads.as_ref(), "hot_reads")?,
            cold_writes: self.rate(raw.cold_writes.as_ref(), "cold_writes")?,
            cold_reads: self.rate(raw.cold_reads.as_ref(), "cold_reads")?,
        })
    }

    fn zipf(&self, raw: &raw::Zipf) -> Result<Workload, Fault> {
        let Positive(exponent) = raw.exponent.get_under(self.member, self.key, "exponent")?;
        if exponent > MAX_EXPONENT {
            return Err(self.fault(raw.exponent.line, "exponent", &format!("must be above 0, at most {MAX_EXPONENT}")));
        }
        Ok(Workload::Zipf {
            working_set: self.part(raw.working_set.as_ref(), "working_set")?,
            exponent,
            writes: self.rate(raw.writes.as_ref(), "writes")?,
            reads: self.rate(raw.reads.as_ref(), "reads")?,
        })
    }

    fn file(&self, text: &Text) -> Result<String, Fault> {
        text.get(self.member, &self.key("file"))
    }

    fn curve(&self, raw: &raw::Curve, files: &mut Files) -> Result<Workload, Fault> {
        let name = self.file(&raw.file)?;
        let curve = files.curve(&name).map_err(|fault| fault.or_line(raw.file.line).under(&self.key("file")))?;
        self.fits(curve.reach(), raw.file.line, "file")?;
        Ok(Workload::Curve { curve, reads: self.rate(raw.reads.as_ref(), "reads")? })
    }

    fn trace(&self, raw: &raw::Trace, files: &mut Files) -> Result<Workload, Fault> {
        let name = self.file(&raw.file)?;
        let trace = files.trace(&name).map_err(|fault| fault.or_line(raw.file.line).under(&self.key("file")))?;
        self.fits(trace.reach, raw.file.line, "file")?;
        Ok(Workload::Phases(trace.phases))
    }

    fn steady(&self, raw: &Steady, files: &mut Files) -> Result<Workload, Fault> {
        match raw {
            Steady::Idle => Ok(Workload::Idle),
            Steady::Uniform(a) => self.uniform(a),
            Steady::Sequential(a) => self.sequential(a),
            Steady::HotCold(h) => self.hot_cold(h),
            Steady::Zipf(z) => self.zipf(z),
            Steady::Curve(c) => self.curve(c, files),
        }
    }

    fn phases(&self, raw: &raw::Phases, files: &mut Files) -> Result<Workload, Fault> {
        let raw = &raw.phases;
        if raw.value.is_empty() {
            return Err(self.fault(raw.line, "phases", "at least one phase is needed"));
        }
        let mut phases = Vec::with_capacity(raw.value.len());
        let mut until = Span::ZERO;
        for (number, phase) in raw.value.iter().enumerate() {
            let key = format!("{}.phases[{number}]", self.key);
            until = match &phase.duration {
                Some(at) if at.value.0 == Span::ZERO => {
                    return Err(self.member.fault(at.line, &format!("{key}.for"), "must be above zero"));
                }
                Some(at) => until + at.value.0,
                None if number + 1 == raw.value.len() => Span::MAX,
                None => {
                    let problem = "this key is required in every phase but the last";
                    return Err(self.member.fault(phase.workload.line, &format!("{key}.for"), problem));
                }
            };
            let place = Place { member: self.member, key: &key, memory: self.memory, of: self.of };
            phases.push(Phase { until, workload: place.steady(&phase.workload.value, files)? });
        }
        Ok(Workload::Phases(phases.into()))
    }
}
