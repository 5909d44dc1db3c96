//! The replay: what a guest's memory must hold, computed from its specification and how far it has got.
//!
//! # The page function
//! A write by step s adds 1 to the first word of its page (bytes 0 to 7) and stores s behind it (8 to 15), then adds 1 to the
//! last but one word (4080 to 4087) and stores s behind that (4088 to 4095); all little-endian and modulo 2^64. A page that was
//! written n times, last by step s, therefore holds its initial content with n added to two words and s in two others. A vCPU
//! may be stopped between these four stores; how many were done is known from its instruction pointer.
//!
//! A [`Replay`] can follow a running guest: [`Replay::advance`] goes on from where it was, and costs a few nanoseconds per step.

use crate::content::{Page, WORDS};
use crate::error::ExecError;
use crate::guest::program::{Access, Cursors, Table};
use crate::guest::{GuestSpec, PhaseChange};
use crate::mix::at_step;
use livemig_core::units::{PAGE_SIZE, PageIndex};

/// How far a paused guest has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Per vCPU.
    pub vcpus: Vec<VcpuProgress>,
}

/// How far one of its vCPUs has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuProgress {
    /// Steps that are whole: the step counter.
    pub step: u64,
    /// How many of the next step's stores are done, 0 to 4.
    pub stores: u8,
    /// Its phases; the first at step 0.
    pub changes: Vec<PhaseChange>,
}

/// What was written to a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// How often.
    pub(crate) count: u64,
    /// By which step last; without meaning when never.
    pub(crate) step: u64,
}

/// The guest's writes, replayed up to some step of each vCPU.
#[derive(Clone, Debug)]
pub struct Replay {
    spec: GuestSpec,
    vcpus: Vec<VcpuReplay>,
}

#[derive(Clone, Debug)]
struct VcpuReplay {
    seed: u64,
    tables: Vec<Table>,
    step: u64,
    /// Index of the phase change that is in force.
    change: usize,
    cursors: Cursors,
    /// The page whose step is under way, with the stores done.
    under_way: Option<(u64, u8)>,
    /// One for each page of this vCPU.
    written: Vec<Written>,
}

/// The words of a page that writes change: counter and step, in the first and in the last cache line.
pub(crate) const FIRST: (usize, usize) = (0, 1);
/// The same in the last cache line.
pub(crate) const LAST: (usize, usize) = (WORDS - 2, WORDS - 1);

impl Replay {
    /// A guest that has not made a step.
    ///
    /// # Errors
    /// A specification that no guest can be made from.
    pub fn new(spec: &GuestSpec) -> Result<Replay, ExecError> {
        spec.check()?;
        let all = u64::from(spec.vcpus);
        let one = |v: u32| VcpuReplay {
            seed: spec.vcpu_seed(v as usize),
            tables: spec.phases.iter().map(|phase| Table::new(phase, v, spec.vcpus)).collect(),
            step: 0,
            change: 0,
            cursors: Cursors::default(),
            under_way: None,
            written: vec![Written::default(); (spec.pages() - u64::from(v)).div_ceil(all) as usize],
        };
        Ok(Replay { spec: spec.clone(), vcpus: (0..spec.vcpus).map(one).collect() })
    }

    /// The guest's specification.
    #[must_use]
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Replays up to `progress`, each vCPU on a thread of its own.
    ///
    /// # Errors
    /// A progress that is not this guest's, or lies before what has been replayed.
    pub fn advance(&mut self, progress: &Progress) -> Result<(), ExecError> {
        if progress.vcpus.len() != self.vcpus.len() {
            let why = format!("progress of {} vCPUs for a guest with {}", progress.vcpus.len(), self.vcpus.len());
            return Err(ExecError::Replay { vcpu: 0, why });
        }
        let all = u64::from(self.spec.vcpus);
        std::thread::scope(|scope| {
            let one = |(vcpu, (replay, to)): (usize, (&'_ mut VcpuReplay, &'_ VcpuProgress))| {
                replay.advance(to, all).map_err(|why| ExecError::Replay { vcpu, why })
            };
            let threads: Vec<_> =
                self.vcpus.iter_mut().zip(&progress.vcpus).enumerate().map(|job| scope.spawn(move || one(job))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a replay does not panic"))
        })
    }

    /// What `page` must hold now.
    pub fn expected(&self, page: PageIndex, into: &mut Page) {
        self.spec.content.make(page, into);
        let written = self.written(page);
        if written.count > 0 {
            for (counter, step) in [FIRST, LAST] {
                into.0[counter] = into.0[counter].wrapping_add(written.count);
                into.0[step] = written.step;
            }
        }
        let vcpu = &self.vcpus[(page.0 % u64::from(self.spec.vcpus)) as usize];
        if let Some((_, stores)) = vcpu.under_way.filter(|(at, _)| *at == page.0) {
            if stores >= 1 {
                into.0[FIRST.0] = into.0[FIRST.0].wrapping_add(1);
            }
            if stores >= 2 {
                into.0[FIRST.1] = vcpu.step;
            }
            if stores >= 3 {
                into.0[LAST.0] = into.0[LAST.0].wrapping_add(1);
            }
            if stores >= 4 {
                into.0[LAST.1] = vcpu.step;
            }
        }
    }

    /// How many pages have been written at least once.
    #[must_use]
    pub fn touched(&self) -> u64 {
        self.vcpus.iter().flat_map(|vcpu| &vcpu.written).filter(|w| w.count > 0).count() as u64
    }

    /// What was written to `page`.
    pub(crate) fn written(&self, page: PageIndex) -> Written {
        let all = u64::from(self.spec.vcpus);
        self.vcpus[(page.0 % all) as usize].written[(page.0 / all) as usize]
    }
}

impl VcpuReplay {
    fn advance(&mut self, to: &VcpuProgress, all: u64) -> Result<(), String> {
        if to.step < self.step {
            return Err(format!("step {} lies before step {}, which is replayed", to.step, self.step));
        }
        let sound = to.changes.first().is_some_and(|c| c.step == 0)
            && to.changes.windows(2).all(|w| w[0].step <= w[1].step)
            && to.changes.iter().all(|c| (c.phase as usize) < self.tables.len());
        if !sound || self.change >= to.changes.len() {
            return Err(format!("phases that cannot be: {:?}", to.changes));
        }
        loop {
            let end = to.changes.get(self.change + 1).map_or(to.step, |next| next.step.min(to.step));
            let table = &self.tables[to.changes[self.change].phase as usize];
            run(table, self.seed, self.step..end, &mut self.cursors, &mut self.written, all);
            self.step = end;
            match to.changes.get(self.change + 1) {
                Some(next) if next.step <= end => self.change += 1,
                _ => break,
            }
        }
        // The step under way moves no cursor: it will be made again, as a whole.
        let mut cursors = self.cursors;
        let table = &self.tables[to.changes[self.change].phase as usize];
        self.under_way = match table.access(self.step, at_step(self.seed, self.step), &mut cursors) {
            Access::Write(address) if to.stores > 0 => Some((address / PAGE_SIZE, to.stores)),
            _ => None,
        };
        Ok(())
    }
}

fn run(table: &Table, seed: u64, steps: std::ops::Range<u64>, cursors: &mut Cursors, written: &mut [Written], all: u64) {
    // One division per write is most of the cost; a shift does it for one, two, four vCPUs.
    let shift = all.is_power_of_two().then(|| PAGE_SIZE.trailing_zeros() + all.trailing_zeros());
    for step in steps {
        if let Access::Write(address) = table.access(step, at_step(seed, step), cursors) {
            let own = shift.map_or_else(|| address / PAGE_SIZE / all, |bits| address >> bits);
            let page = &mut written[own as usize];
            page.count += 1;
            page.step = step;
        }
    }
}
