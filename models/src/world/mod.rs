//! A resolved scenario: names are indices, units are numbers, counts and distributions are drawn.

mod drain;
mod staging;
mod workload;
mod zipf;

pub use drain::{Drain, DrainResult, NotMoved};
pub use staging::intermediaries;
pub use workload::{DirtyCurve, Pattern, Phase, Region, Workload};
pub use zipf::power_sum;

use crate::calibration::Calibration;
use crate::dirtying::dirty_after;
use livemig_core::strategy::Spec;
use livemig_core::units::{Bytes, Rate, Span, Time};

/// Index of a host in [`World::hosts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// Index of a VM in [`World::vms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u32);

/// A scenario, ready to run: every sweep point with every strategy and every replicate is one run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The seed from which every random number is derived.
    pub seed: u64,
    /// How often each point is run, with different random numbers.
    pub replicates: u32,
    /// Simulated time after which a run ends.
    pub horizon: Span,
    /// How exactly memory is modelled.
    pub fidelity: Fidelity,
    /// The share of a link's capacity by which the rates over it may miss it; 0 is exact.
    pub rate_tolerance: f64,
    /// The points of the sweep; exactly one, with an empty label, without a sweep.
    pub points: Vec<Point>,
}

/// How exactly memory is modelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fidelity {
    /// Bytes per region of the workload, in expectation: a round costs the same for 1 GiB and for 1 TiB.
    #[default]
    Class,
    /// Pages with an identity and accesses drawn one by one: the judge of the other.
    Page,
}

impl Fidelity {
    /// A guest at page fidelity has less memory than this: 2^32 pages.
    pub const LARGEST_PAGED: Bytes = Bytes::from_gib(16 << 10);

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fidelity::Class => "class",
            Fidelity::Page => "page",
        }
    }
}

/// One point of a sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// The swept keys and their values as in the file, in the file's order.
    pub label: Vec<(String, String)>,
    /// The world at this point.
    pub world: World,
    /// The strategies to run in it, each by itself.
    pub strategies: Vec<Strategy>,
}

/// A strategy under the name by which results show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    /// The name in tables and files.
    pub name: String,
    /// The preset that it is made from; reported as the technique.
    pub preset: &'static str,
    /// The composition.
    pub spec: Spec,
}

/// Hosts, guests, networks and what happens to them.
#[derive(Clone, Debug)]
pub struct World {
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Racks.
    pub racks: Vec<Rack>,
    /// Guests.
    pub vms: Vec<Vm>,
    /// Traffic between guests, hosts and the outside, beside each guest's own [`Vm::traffic`].
    pub flows: Vec<Flow>,
    /// Migrations.
    pub moves: Vec<Move>,
    /// Hosts to empty; its migrations come on top of [`World::moves`].
    pub drain: Option<Drain>,
    /// Failures, cancellations and changes of load.
    pub events: Vec<ScheduledEvent>,
    /// Costs and latencies.
    pub calibration: Calibration,
}

/// A physical host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The rack that it stands in.
    pub rack: Option<u32>,
    /// Its NICs; at least one.
    pub nics: Vec<Nic>,
    /// Physical cores.
    pub cores: u32,
    /// Memory for guests; `None` for no limit.
    pub memory: Option<Bytes>,
    /// Limit of incoming migration traffic: push, gather and faults together.
    pub reception: Option<Rate>,
    /// The rate at which the host frees memory for an arriving guest that does not fit.
    pub swap: Rate,
    /// What it can store and hand out per second, together, for migrations whose pages it stages; `None` for no limit.
    pub service: Option<Rate>,
    /// What its disks read and write per second, together, for migrations; `None` for no limit.
    pub storage: Option<Rate>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It runs guests.
    #[default]
    Host,
    /// It stages pages on their way.
    Intermediary,
    /// It keeps snapshots.
    Staging,
}

/// A full-duplex network interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nic {
    /// Line rate in each direction, in bytes per second.
    pub rate: Rate,
    /// Share of the line rate that is left for payload.
    pub goodput: f64,
}

/// A rack with an uplink that its hosts share towards other racks.
#[derive(Clone, Debug, PartialEq)]
pub struct Rack {
    /// Its name.
    pub name: String,
    /// Payload rate of the uplink in each direction; `None` for no limit.
    pub uplink: Option<Rate>,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Where it runs at the beginning.
    pub host: HostId,
    /// Its memory.
    pub memory: Bytes,
    /// Its virtual CPUs; at least 1.
    pub vcpus: u32,
    /// What it does with its memory.
    pub workload: Workload,
    /// Its traffic with the outside.
    pub traffic: Traffic,
    /// Share of its memory that is pages of zeros.
    pub zero_share: f64,
    /// Size of a page once it is compressed, as a share; above 0.
    pub compressed: f64,
    /// What its memory has in common with that of other VMs; nothing without.
    pub content: Option<Content>,
    /// Its disk, where that is moved with it; without, it has none or shares its storage with the destination.
    pub disk: Option<Box<Disk>>,
}

impl Vm {
    /// The bytes per second that it dirties in the first second after a collection, in its first phase.
    #[must_use]
    pub fn dirty_rate(&self) -> Rate {
        let (workload, _) = self.workload.phase_at(Span::ZERO);
        let regions = workload.regions(self.memory);
        Rate(regions.iter().map(|r| dirty_after(&r.pattern, r.bytes.0 as f64, r.writes, 0.0, 1.0)).sum())
    }
}

/// What the memory of a VM has in common with that of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Content {
    /// Of its pages that are not zeros and that its workload does not write, the share that is equal to the page with the same number in
    /// every other VM of the group, as far as that has as large a share.
    pub shared: f64,
    /// The number of the group.
    pub group: u32,
}

/// A virtual disk that is moved with its VM. Its blocks are as large as pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Its size.
    pub size: Bytes,
    /// What the guest does with it. Only writes matter: a block is there before the guest asks for it.
    pub workload: Workload,
    /// Share of it that is blocks of zeros.
    pub zero_share: f64,
    /// Size of a block once it is compressed, as a share; above 0.
    pub compressed: f64,
}

/// Network traffic of a guest with hosts outside of the scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Offered rate from the guest.
    pub tx: Rate,
    /// Offered rate to the guest.
    pub rx: Rate,
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A guest, wherever it runs.
    Vm(VmId),
    /// A host.
    Host(HostId),
    /// A host that is not in the scenario and never a bottleneck.
    Outside,
}

/// Traffic from one end to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub from: Endpoint,
    /// Where it goes.
    pub to: Endpoint,
    /// Offered rate; `None` for a flow that takes whatever it gets, like a bulk TCP stream.
    pub rate: Option<Rate>,
    /// Its weight in max-min fairness; a stream of a migration weighs 1.
    pub weight: f64,
    /// For how long from the first request on its mean rate is taken; `None` until the last migration has ended.
    pub measured_for: Option<Span>,
}

/// A migration to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// Who.
    pub vm: VmId,
    /// Where to.
    pub to: HostId,
    /// When it is requested: t0.
    pub at: Time,
    /// The hosts that stage its pages.
    pub via: Vec<HostId>,
}

/// Something that happens at a set time.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledEvent {
    /// When.
    pub at: Time,
    /// What.
    pub what: Incident,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Incident {
    /// A host fails for good.
    Fail(HostId),
    /// A host's links are cut.
    Cut(HostId),
    /// A host's links are back.
    Restore(HostId),
    /// A migration is called off.
    Cancel(VmId),
    /// A guest does something else from now on.
    Workload(VmId, Workload),
    /// A guest's traffic changes.
    Traffic(VmId, Traffic),
}
