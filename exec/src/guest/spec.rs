//! What a guest is made from, resolved to pages and rates: the same at the source, at the destination and in the replay.

use super::{curve, zipf};
use crate::codec::{Reader, Writer};
use crate::content::Content;
use crate::error::ExecError;
use crate::mix::mix;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Span};
use livemig_models::world::{self, Pattern, Vm, Workload};

/// Most memory of a guest: the boot slot lies right behind it.
pub const MAX_MEMORY: Bytes = Bytes::from_gib(256);
/// Most vCPUs of a guest.
pub const MAX_VCPUS: u32 = 64;
/// Most phases of a guest.
pub const MAX_PHASES: usize = 4096;
/// Most regions of a phase.
pub const MAX_REGIONS: usize = 1024;

const MAGIC: u32 = u32::from_le_bytes(*b"LMGS");
const VERSION: u16 = 2;

/// A guest, before it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSpec {
    /// Its memory, whole pages.
    pub memory: Bytes,
    /// Its vCPUs. vCPU v accesses the pages whose index is v modulo this number, and no others.
    pub vcpus: u32,
    /// From which the sequences of accesses are drawn.
    pub seed: u64,
    /// What is in memory before the guest runs.
    pub content: Content,
    /// What it does; never empty. A guest begins with the first phase.
    pub phases: Vec<Phase>,
}

/// What a guest does for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// When the next phase begins by itself, in guest time since the start, or since a phase was last ordered
    /// ([`Guest::request_phase`](super::Guest::request_phase)); `None` stays until another one is ordered.
    pub until: Option<Span>,
    /// Where it accesses memory; pages in no region are left alone.
    pub regions: Vec<Region>,
}

/// Neighbouring pages that are accessed alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// The first page.
    pub first: PageIndex,
    /// How many.
    pub pages: u64,
    /// Pages written per second over all vCPUs, offered. More than the guest can do means without a pause.
    pub writes: f64,
    /// Pages read per second over all vCPUs, offered.
    pub reads: f64,
    /// In address order, again and again, instead of at random.
    pub sweep: bool,
}

impl GuestSpec {
    /// The guest of a scenario's VM. `seed` tells replicates and VMs apart. As in the simulator the pages that its workload writes are its
    /// own; of the others so many are zero as make the share of its memory, and of the rest the share of its `content` is equal to that
    /// of other VMs of its group.
    ///
    /// # Errors
    /// A workload that a guest cannot do, or a size out of bounds.
    pub fn from_vm(vm: &Vm, seed: u64) -> Result<GuestSpec, ExecError> {
        let memory = Bytes::from_pages(vm.memory.pages());
        let content = content_of(vm, memory, seed);
        let phases = GuestSpec::phases_of(&vm.workload, memory)?;
        let spec = GuestSpec { memory, vcpus: vm.vcpus, seed, content, phases };
        spec.check()?;
        Ok(spec)
    }

    /// The phases of a workload over `memory`; a workload without phases is one phase that stays.
    ///
    /// # Errors
    /// A measured curve whose growth gets faster.
    pub fn phases_of(workload: &Workload, memory: Bytes) -> Result<Vec<Phase>, ExecError> {
        match workload {
            Workload::Phases(phases) => {
                let last = phases.len() - 1;
                let one = |(i, phase): (usize, &world::Phase)| {
                    let until = (i < last).then_some(phase.until);
                    Ok(Phase { until, regions: regions_of(&phase.workload, memory)? })
                };
                phases.iter().enumerate().map(one).collect()
            }
            _ => Ok(vec![Phase { until: None, regions: regions_of(workload, memory)? }]),
        }
    }

    /// Adds a workload that the guest takes up when it is ordered to, by the number of its first phase, which is returned.
    ///
    /// # Errors
    /// A workload that a guest cannot do.
    pub fn add_workload(&mut self, workload: &Workload) -> Result<usize, ExecError> {
        let first = self.phases.len();
        self.phases.extend(GuestSpec::phases_of(workload, self.memory)?);
        self.check()?;
        Ok(first)
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.memory.pages()
    }

    /// Whether a guest can be made from this.
    ///
    /// # Errors
    /// What is out of its bounds.
    pub fn check(&self) -> Result<(), ExecError> {
        let fault = |why: String| Err(ExecError::Spec(why));
        if self.memory.is_zero() || self.memory > MAX_MEMORY || !self.memory.0.is_multiple_of(PAGE_SIZE) {
            return fault(format!("memory of {}, which must be whole pages, at least one and at most {MAX_MEMORY}", self.memory));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS || u64::from(self.vcpus) > self.pages() {
            return fault(format!("{} vCPUs, which must be 1 to {MAX_VCPUS} with a page for each", self.vcpus));
        }
        if self.phases.is_empty() || self.phases.len() > MAX_PHASES {
            return fault(format!("{} phases, which must be 1 to {MAX_PHASES}", self.phases.len()));
        }
        if !self.content.is_sound() {
            return fault(format!("shares of page contents that are no shares: {:?}", self.content));
        }
        self.phases
            .iter()
            .enumerate()
            .try_for_each(|(i, phase)| phase.check(self.pages()).map_err(|why| ExecError::Spec(format!("phase {i}: {why}"))))
    }

    /// The specification as bytes: versioned, with a checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new(MAGIC, VERSION);
        w.u64(self.memory.0);
        w.u32(self.vcpus);
        w.u64(self.seed);
        self.content.encode(&mut w);
        w.count(self.phases.len());
        for phase in &self.phases {
            w.u64(phase.until.map_or(u64::MAX, |t| t.0));
            w.count(phase.regions.len());
            for region in &phase.regions {
                w.u64(region.first.0);
                w.u64(region.pages);
                w.f64(region.writes);
                w.f64(region.reads);
                w.u16(u16::from(region.sweep));
            }
        }
        w.finish()
    }

    /// The specification that [`GuestSpec::to_bytes`] wrote.
    ///
    /// # Errors
    /// Anything else than such bytes, or a specification that no guest can be made from.
    pub fn from_bytes(bytes: &[u8]) -> Result<GuestSpec, ExecError> {
        let mut r = Reader::new("guest specification", bytes, MAGIC, VERSION)?;
        let memory = Bytes(r.u64()?);
        let vcpus = r.u32()?;
        let seed = r.u64()?;
        let content = Content::decode(&mut r)?;
        let mut phases = Vec::new();
        for _ in 0..r.count(MAX_PHASES)? {
            let until = Some(Span(r.u64()?)).filter(|t| *t != Span::MAX);
            let mut regions = Vec::new();
            for _ in 0..r.count(MAX_REGIONS)? {
                regions.push(Region {
                    first: PageIndex(r.u64()?),
                    pages: r.u64()?,
                    writes: r.f64()?,
                    reads: r.f64()?,
                    sweep: r.u16()? != 0,
                });
            }
            phases.push(Phase { until, regions });
        }
        r.finish()?;
        let spec = GuestSpec { memory, vcpus, seed, content, phases };
        spec.check()?;
        Ok(spec)
    }
}

impl Phase {
    fn check(&self, memory: u64) -> Result<(), String> {
        if self.regions.len() > MAX_REGIONS {
            return Err(format!("{} regions, more than {MAX_REGIONS}", self.regions.len()));
        }
        let rate = |x: f64| x.is_finite() && (0.0..=1e12).contains(&x);
        for region in &self.regions {
            if region.pages == 0 || region.first.0.checked_add(region.pages).is_none_or(|end| end > memory) {
                return Err(format!("{region:?} is not inside {memory} pages of memory"));
            }
            if !rate(region.writes) || !rate(region.reads) {
                return Err(format!("{region:?} has a rate that is none"));
            }
        }
        Ok(())
    }
}

/// What is in a VM's memory before it runs.
fn content_of(vm: &Vm, memory: Bytes, seed: u64) -> Content {
    let pages = memory.pages();
    let zeros = (vm.zero_share * pages as f64).round() as u64;
    // A page that is written in part is written. If little is not written, the last pages are zero until they are.
    let written = vm.workload.written(vm.memory).0.div_ceil(PAGE_SIZE).min(pages.saturating_sub(zeros));
    let content = Content::new(seed)
        .with_compressed(vm.compressed)
        .with_own(written)
        .with_zero_share(zeros as f64 / (pages - written).max(1) as f64);
    // Groups have numbers, and any number is a seed.
    vm.content.map_or(content, |c| content.with_shared(c.shared, mix(u64::from(c.group))))
}

/// The regions of a workload without phases.
fn regions_of(workload: &Workload, memory: Bytes) -> Result<Vec<Region>, ExecError> {
    if let Workload::Zipf { working_set, exponent, writes, reads } = workload {
        let pages = (*working_set).min(memory).pages();
        let groups = zipf::groups(pages, *exponent);
        return Ok(in_address_order(groups.iter().map(|g| (g.pages, g.share * writes, g.share * reads, false)), memory));
    }
    let regions = workload.regions(memory);
    if let [world::Region { bytes, reads, pattern: Pattern::Curve(curve), .. }] = regions.as_slice() {
        return curve::regions(curve, bytes.pages(), *reads);
    }
    let sweep = |pattern: &Pattern| matches!(pattern, Pattern::Sweep);
    Ok(in_address_order(regions.iter().map(|r| (r.bytes.pages(), r.writes, r.reads, sweep(&r.pattern))), memory))
}

/// Regions one behind the other from address 0, clipped to memory, as in the models.
fn in_address_order(parts: impl Iterator<Item = (u64, f64, f64, bool)>, memory: Bytes) -> Vec<Region> {
    let mut first = 0;
    let mut regions = Vec::new();
    for (pages, writes, reads, sweep) in parts {
        let pages = pages.min(memory.pages() - first);
        if pages > 0 {
            regions.push(Region { first: PageIndex(first), pages, writes, reads, sweep });
        }
        first += pages;
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_models::world::{DirtyCurve, HostId, Phase as ModelPhase, Traffic};
    use std::sync::Arc;

    fn vm(workload: Workload) -> Vm {
        Vm {
            name: "vm".to_owned(),
            host: HostId(0),
            memory: Bytes(1_000_000),
            vcpus: 2,
            workload,
            traffic: Traffic::default(),
            zero_share: 0.5,
            content: None,
            compressed: 1.0,
            disk: None,
        }
    }

    fn zipf() -> Workload {
        Workload::Zipf { working_set: Bytes::from_mib(1), exponent: 0.9, writes: 1000.0, reads: 500.0 }
    }

    #[test]
    fn a_scenario_s_vm_becomes_a_guest() {
        let phase = |ms, workload| ModelPhase { until: Span::from_millis(ms), workload };
        let spec = GuestSpec::from_vm(&vm(Workload::Phases(vec![phase(5, Workload::Idle), phase(9, zipf())].into())), 3).unwrap();
        assert_eq!((spec.pages(), spec.vcpus, spec.phases.len()), (245, 2, 2));
        assert_eq!((spec.phases[0].until, spec.phases[1].until), (Some(Span::from_millis(5)), None));
        assert_eq!(spec.phases[0].regions, []);
        let regions = &spec.phases[1].regions;
        assert_eq!(regions.iter().map(|r| r.pages).sum::<u64>(), 245);
        assert!((regions.iter().map(|r| r.writes).sum::<f64>() - 1000.0).abs() < 1e-9);
        assert!(regions.windows(2).all(|w| w[0].first.0 + w[0].pages == w[1].first.0));

        let curve = |points| Workload::Curve { curve: Arc::new(DirtyCurve { points }), reads: 7.0 };
        let spec = GuestSpec::from_vm(&vm(curve(vec![(0.0, 0.0), (1.0, 8192.0)])), 3).unwrap();
        assert_eq!(
            spec.phases[0].regions.iter().map(|r| (r.pages, r.writes, r.reads)).collect::<Vec<_>>(),
            [(2, 2.0, 0.0), (2, 0.0, 7.0)]
        );
        let refused = GuestSpec::from_vm(&vm(curve(vec![(0.0, 0.0), (1.0, 4096.0), (2.0, 81_920.0)])), 3).unwrap_err();
        assert!(refused.to_string().contains("curve"), "{refused}");
    }

    #[test]
    fn zero_and_equal_pages_are_as_many_as_the_scenario_says() {
        use crate::content::Sort;
        let hot = Workload::HotCold { hot: Bytes::from_mib(2), hot_writes: 9.0, hot_reads: 1.0, cold_writes: 0.0, cold_reads: 5.0 };
        let group = |shared| Some(livemig_models::world::Content { shared, group: 1 });
        let vm = |shared| Vm { memory: Bytes::from_mib(16), zero_share: 0.25, content: group(shared), ..vm(hot.clone()) };
        let (a, b) = (GuestSpec::from_vm(&vm(0.5), 3).unwrap(), GuestSpec::from_vm(&vm(0.8), 4).unwrap());
        let sorts = |spec: &GuestSpec| (0..spec.pages()).map(|page| spec.content.sort(PageIndex(page))).collect::<Vec<_>>();
        let (a, b) = (sorts(&a), sorts(&b));
        let count = |sorts: &[Sort], sort| sorts.iter().filter(|&&s| s == sort).count();
        assert!(a[..512].iter().chain(&b[..512]).all(|&sort| sort == Sort::Own), "what is written is the guest's own");
        // A quarter of 4096 pages; of the 2560 that are left and not written half, and four fifths.
        for (found, wanted) in [(count(&a, Sort::Zero), 1024), (count(&a, Sort::Shared), 1280), (count(&b, Sort::Shared), 2048)] {
            assert!(found.abs_diff(wanted) < 120, "{found} and not {wanted}");
        }
        assert!(a.iter().zip(&b).all(|(a, b)| (*a == Sort::Zero) == (*b == Sort::Zero)));
        assert!(a.iter().zip(&b).all(|(a, b)| *a != Sort::Shared || *b == Sort::Shared));
        let everywhere = Workload::Uniform { working_set: Bytes::from_mib(16), writes: 9.0, reads: 0.0 };
        let all = sorts(&GuestSpec::from_vm(&Vm { workload: everywhere, ..vm(0.5) }, 3).unwrap());
        assert_eq!((count(&all, Sort::Zero), count(&all, Sort::Shared)), (1024, 0));
    }

    #[test]
    fn bytes_come_back_and_damage_does_not() {
        let spec = GuestSpec::from_vm(&vm(zipf()), 3).unwrap();
        let bytes = spec.to_bytes();
        assert_eq!(GuestSpec::from_bytes(&bytes).unwrap(), spec);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(GuestSpec::from_bytes(&damaged).is_err(), "{at}");
            assert!(GuestSpec::from_bytes(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn what_no_guest_can_be_made_from_is_refused_also_from_bytes() {
        let good = GuestSpec::from_vm(&vm(zipf()), 3).unwrap();
        let region = Region { first: PageIndex(240), pages: 5, writes: 1.0, reads: 1.0, sweep: true };
        let with = |region: Region| GuestSpec { phases: vec![Phase { until: None, regions: vec![region] }], ..good.clone() };
        assert!(with(region).check().is_ok());
        let bad = [
            GuestSpec { memory: Bytes(5000), ..good.clone() },
            GuestSpec { memory: Bytes::ZERO, ..good.clone() },
            GuestSpec { memory: Bytes::from_gib(1000), ..good.clone() },
            GuestSpec { vcpus: 0, ..good.clone() },
            GuestSpec { vcpus: 65, ..good.clone() },
            GuestSpec { phases: Vec::new(), ..good.clone() },
            GuestSpec { content: Content::new(1).with_zero_share(0.6).with_shared(1.1, 1), ..good.clone() },
            GuestSpec { content: Content::new(1).with_compressed(0.0), ..good.clone() },
            GuestSpec { content: Content::new(1).with_compressed(1.1), ..good.clone() },
            with(Region { pages: 6, ..region }),
            with(Region { pages: 0, ..region }),
            with(Region { first: PageIndex(u64::MAX), ..region }),
            with(Region { writes: f64::NAN, ..region }),
            with(Region { reads: -1.0, ..region }),
        ];
        for spec in bad {
            assert!(spec.check().is_err(), "{spec:?}");
            assert!(GuestSpec::from_bytes(&spec.to_bytes()).is_err(), "{spec:?}");
        }
    }
}
