//! Fleets of migrations that share one star of NICs, as `validation/simgrid/mig_bench.cpp` makes them.
//!
//! Half of the hosts are sources. In `het`, values repeat every 35 VMs and many events coincide; in `rnd` no two do.

use super::{constant, host, ideal, vm};
use livemig_core::units::{Bytes, Time};
use livemig_models::world::{HostId, Move, VmId, World};

const MEMORY: f64 = 4000e6;
const BANDWIDTH: f64 = 1250e6;

/// The arguments of the reference program, memory 4000 MB and bandwidth 1250 MB/s left out.
#[derive(Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) hosts: u32,
    pub(crate) per_source: u32,
    /// Bytes per second.
    pub(crate) dirty: f64,
}

/// What distinguishes a VM from others.
struct Values {
    memory: f64,
    dirty: f64,
    destination: u32,
}

impl Fleet {
    pub(crate) fn het(self) -> World {
        self.world(|i, source, j, sources| Values {
            memory: (MEMORY * (1.0 + f64::from(i % 7) / 8.0)).trunc(),
            dirty: self.dirty * (0.5 + f64::from(i % 5) / 8.0),
            destination: (source + j) % sources,
        })
    }

    pub(crate) fn rnd(self) -> World {
        self.world(|i, _, _, sources| {
            let i = u64::from(i);
            Values {
                memory: (MEMORY * (1.0 + draw(i, 0))).floor(),
                dirty: self.dirty * (0.5 + draw(i, 1) / 2.0),
                destination: (draw(i, 2) * f64::from(sources)) as u32,
            }
        })
    }

    /// `values` is asked for VM number `i`, which is number `j` of its source, with the number of sources.
    fn world(self, values: impl Fn(u32, u32, u32, u32) -> Values) -> World {
        let sources = self.hosts / 2;
        let mut world = World {
            hosts: (0..self.hosts).map(|h| host(&format!("h{h}"), BANDWIDTH)).collect(),
            racks: Vec::new(),
            vms: Vec::new(),
            flows: Vec::new(),
            moves: Vec::new(),
            drain: None,
            events: Vec::new(),
            calibration: ideal(),
        };
        for source in 0..sources {
            for j in 0..self.per_source {
                let i = source * self.per_source + j;
                let v = values(i, source, j, sources);
                let memory = Bytes(v.memory as u64);
                let working_set = Bytes((memory.0 as f64 * 0.9) as u64);
                world.vms.push(vm(source, memory, constant(v.dirty, working_set)));
                let to = HostId(sources + v.destination);
                world.moves.push(Move { vm: VmId(i), to, at: Time::ZERO, via: Vec::new() });
            }
        }
        world
    }
}

/// Splitmix64 of (i, k): the upper 53 bits as a number from 0 to 1.
fn draw(i: u64, k: u64) -> f64 {
    let mut z = (i * 3 + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
