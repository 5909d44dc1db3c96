//! Costs and latencies of hosts and networks. Every number comes from a named file; `calibrations/` holds the built-in ones.

use crate::scenario::deserializer::{OR_TABLE, read};
use crate::scenario::document::Node;
use crate::scenario::error::{Fault, choices};
use crate::scenario::files::Files;
use crate::scenario::quantity::Fraction;
use crate::scenario::value::{At, Constant};
use livemig_core::units::{Bytes, Rate, Span};
use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;

/// Costs and latencies that hold for all hosts of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Name of the built-in calibration or path of the file; with `, changed` where the scenario overrides some of it.
    pub name: String,
    /// One-way latency between two hosts.
    pub latency: Span,
    /// Share of a NIC's rate that is left for payload after headers; above 0.
    pub goodput: f64,
    /// Reserving room and opening channels, once per migration.
    pub setup: Span,
    /// Reading the dirty log, per GiB of guest memory.
    pub dirty_log_per_gib: Span,
    /// The tracking fault at the first write to a page after each collection.
    pub tracking_fault: Span,
    /// Stopping all vCPUs.
    pub pause: Span,
    /// Starting the guest at the destination once everything it needs has arrived.
    pub activation: Span,
    /// CPU and device state.
    pub device_state: Bytes,
    /// Handling a missing page at both ends, beside round trip and transfer.
    pub fault_service: Span,
    /// Sender's time per page and stream; bounds the rate of one stream. Zero for no bound.
    pub send_per_page: Span,
    /// Sender's time to map a page of guest memory, which threads without range locks do one after the other. Zero for no bound.
    pub map_per_page: Span,
    /// The time in which one thread finds a dirty page and hands it to those that send; it does so beside them. Zero for no bound.
    pub scan_per_page: Span,
    /// Sender's time per page and thread to see whether it is all zeros. Zero for no bound.
    pub check_per_page: Span,
    /// Sender's time per page and thread to compress it.
    pub compress_per_page: Span,
    /// Time per page and thread to encrypt it, and at the other end to decrypt it.
    pub encrypt_per_page: Span,
    /// Receiver's time per page and thread. Zero for no bound.
    pub receive_per_page: Span,
    /// Receiver's time per page and thread to decompress it.
    pub decompress_per_page: Span,
    /// Receiver's time per page and thread to bring it into guest memory. Zero for no bound.
    pub apply_per_page: Span,
    /// Size of a page once it is compressed, as a share, of VMs that say nothing; above 0.
    pub compressed: f64,
    /// Wire bytes beside the content of each page.
    pub page_header: Bytes,
    /// Wire bytes of a page of zeros.
    pub zero_page: Bytes,
    /// Wire bytes of a control message.
    pub control_message: Bytes,
    /// Wire bytes by which the destination is told where one staged page is.
    pub location_message: Bytes,
    /// Time of the thread that gathers staged pages, per page, beside the page's transfer: it asks for one block after the other.
    pub gather_per_page: Span,
    /// Wire bytes by which intermediaries are asked for one page by its hash, the answer included.
    pub probe_message: Bytes,
    /// Sender's time to hash a page; bounds what goes to intermediaries that are asked. Zero for no bound.
    pub hash_per_page: Span,
    /// Rate at which a host without a rate of its own frees memory for an arriving guest; above 0.
    pub swap: Rate,
}

/// The built-in calibrations.
const BUILT_IN: [(&str, &str); 2] =
    [("default", include_str!("../calibrations/default.toml")), ("ideal", include_str!("../calibrations/ideal.toml"))];

/// What follows the name of a calibration that the scenario changes.
pub(crate) const CHANGED: &str = ", changed";

/// Most files that may be based on each other.
const MAX_BASES: usize = 8;

impl Calibration {
    /// The built-in calibration called `name`: `default` or `ideal`.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Calibration> {
        let (name, text) = BUILT_IN.iter().find(|b| b.0 == name)?;
        let keys = Node::parse(text).and_then(|node| read::<Keys>(&node));
        let calibration = keys.and_then(|keys| keys.complete(name));
        Some(calibration.unwrap_or_else(|fault| panic!("built-in calibration {name}, line {fault}")))
    }

    /// The calibration that a scenario asks for.
    pub(crate) fn resolve(raw: &Raw, files: &mut Files) -> Result<Calibration, Fault> {
        match raw {
            Raw::Name(name) => Calibration::load(name, files, 0),
            Raw::Keys(keys) => keys.over_base(None, files, 0),
        }
    }

    fn load(name: &str, files: &mut Files, depth: usize) -> Result<Calibration, Fault> {
        if let Some(calibration) = Calibration::built_in(name) {
            return Ok(calibration);
        }
        if !name.contains(['.', '/']) {
            let names = BUILT_IN.map(|b| b.0);
            return Err(Fault::at(
                0,
                "",
                format!("unknown calibration `{name}`; {}, or the path of a TOML file", choices(name, &names)),
            ));
        }
        if depth == MAX_BASES {
            return Err(Fault::at(0, "", format!("more than {MAX_BASES} files based on each other")));
        }
        let text = files.text(name).map_err(|problem| Fault::at(0, "", problem))?;
        let inside = |mut fault: Fault| {
            fault.file.get_or_insert_with(|| name.to_owned());
            fault.or_line(1)
        };
        let keys: Keys = Node::parse(&text).and_then(|node| read(&node)).map_err(inside)?;
        keys.over_base(Some(name), files, depth + 1).map_err(inside)
    }
}

/// A calibration as users write it: a name, a path, or a table.
#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "Calibration")]
pub(crate) enum Raw {
    /// `default`, `ideal`, or the path of a calibration file.
    Name(String),
    /// Changes to another calibration.
    Keys(Box<Keys>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default`, `ideal`, the path of a calibration file, or a table")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Raw, E> {
                Ok(Raw::Name(name.to_owned()))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, table: D) -> Result<Raw, D::Error> {
                Keys::deserialize(table).map(|keys| Raw::Keys(Box::new(keys)))
            }
        }
        deserializer.deserialize_newtype_struct(OR_TABLE, Either)
    }
}

/// Declares the keys of a calibration with the conversion of each into the field of the same name.
macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident: $quantity:ty => $convert:expr,)*) => {
        /// The keys of a calibration. Those that are left out are as in `base`; without `base` in a file all are required, and
        /// without `base` in a scenario it is `default`.
        #[derive(Debug, serde::Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(rename = "CalibrationKeys")]
        pub(crate) struct Keys {
            /// The calibration that this one changes: `default`, `ideal`, or the path of a calibration file.
            base: Option<At<String>>,
            $($(#[$doc])* $key: Option<At<Constant<$quantity>>>,)*
        }

        impl Keys {
            /// Takes over what is there.
            fn apply(&self, to: &mut Calibration) {
                $(if let Some(At { value: Constant(value), .. }) = &self.$key {
                    to.$key = $convert(*value);
                })*
            }

            fn missing(&self) -> Option<&'static str> {
                $(if self.$key.is_none() {
                    return Some(stringify!($key));
                })*
                None
            }
        }
    };
}

keys! {
    /// One-way latency between two hosts.
    latency: Span => std::convert::identity,
    /// Share of a NIC's rate that is left for payload after headers; above 0.
    goodput: Fraction => |f: Fraction| f.0,
    /// Reserving room and opening channels, once per migration.
    setup: Span => std::convert::identity,
    /// Reading the dirty log, per GiB of guest memory.
    dirty_log_per_gib: Span => std::convert::identity,
    /// The tracking fault at the first write to a page after each collection.
    tracking_fault: Span => std::convert::identity,
    /// Stopping all vCPUs.
    pause: Span => std::convert::identity,
    /// Starting the guest at the destination once everything it needs has arrived.
    activation: Span => std::convert::identity,
    /// CPU and device state.
    device_state: Bytes => std::convert::identity,
    /// Handling a missing page at both ends, beside round trip and transfer.
    fault_service: Span => std::convert::identity,
    /// Sender's time per page and stream; bounds the rate of one stream. Zero for no bound.
    send_per_page: Span => std::convert::identity,
    /// Sender's time to map a page of guest memory, which threads without range locks do one after the other. Zero for no bound.
    map_per_page: Span => std::convert::identity,
    /// The time in which one thread finds a dirty page and hands it to those that send; it does so beside them. Zero for no bound.
    scan_per_page: Span => std::convert::identity,
    /// Sender's time per page and thread to see whether it is all zeros. Zero for no bound.
    check_per_page: Span => std::convert::identity,
    /// Sender's time per page and thread to compress it.
    compress_per_page: Span => std::convert::identity,
    /// Time per page and thread to encrypt it, and at the other end to decrypt it.
    encrypt_per_page: Span => std::convert::identity,
    /// Receiver's time per page and thread. Zero for no bound.
    receive_per_page: Span => std::convert::identity,
    /// Receiver's time per page and thread to decompress it.
    decompress_per_page: Span => std::convert::identity,
    /// Receiver's time per page and thread to bring it into guest memory. Zero for no bound.
    apply_per_page: Span => std::convert::identity,
    /// Size of a page once it is compressed, as a share, of VMs that say nothing; above 0.
    compressed: Fraction => |f: Fraction| f.0,
    /// Wire bytes beside the content of each page.
    page_header: Bytes => std::convert::identity,
    /// Wire bytes of a page of zeros.
    zero_page: Bytes => std::convert::identity,
    /// Wire bytes of a control message.
    control_message: Bytes => std::convert::identity,
    /// Wire bytes by which the destination is told where one staged page is.
    location_message: Bytes => std::convert::identity,
    /// Time of the thread that gathers staged pages, per page, beside the page's transfer: it asks for one block after the other.
    gather_per_page: Span => std::convert::identity,
    /// Wire bytes by which intermediaries are asked for one page by its hash, the answer included.
    probe_message: Bytes => std::convert::identity,
    /// Sender's time to hash a page; bounds what goes to intermediaries that are asked. Zero for no bound.
    hash_per_page: Span => std::convert::identity,
    /// Rate at which a host without a rate of its own frees memory for an arriving guest; above 0.
    swap: Rate => std::convert::identity,
}

impl Keys {
    /// A calibration all of whose keys are here.
    fn complete(&self, name: &str) -> Result<Calibration, Fault> {
        if let Some(key) = self.missing() {
            return Err(Fault::at(0, key, "this key is required in a calibration without `base`"));
        }
        self.changing(Calibration {
            name: name.to_owned(),
            latency: Span::ZERO,
            goodput: 1.0,
            setup: Span::ZERO,
            dirty_log_per_gib: Span::ZERO,
            tracking_fault: Span::ZERO,
            pause: Span::ZERO,
            activation: Span::ZERO,
            device_state: Bytes::ZERO,
            fault_service: Span::ZERO,
            send_per_page: Span::ZERO,
            map_per_page: Span::ZERO,
            scan_per_page: Span::ZERO,
            check_per_page: Span::ZERO,
            compress_per_page: Span::ZERO,
            encrypt_per_page: Span::ZERO,
            receive_per_page: Span::ZERO,
            decompress_per_page: Span::ZERO,
            apply_per_page: Span::ZERO,
            compressed: 1.0,
            page_header: Bytes::ZERO,
            zero_page: Bytes::ZERO,
            control_message: Bytes::ZERO,
            location_message: Bytes::ZERO,
            gather_per_page: Span::ZERO,
            probe_message: Bytes::ZERO,
            hash_per_page: Span::ZERO,
            swap: Rate::ZERO,
        })
    }

    /// A calibration whose other keys are those of its base; `file` is where it stands, if not in the scenario.
    fn over_base(&self, file: Option<&str>, files: &mut Files, depth: usize) -> Result<Calibration, Fault> {
        let mut base = match (&self.base, file) {
            (Some(base), _) => Calibration::load(&base.value, files, depth).map_err(|f| f.or_line(base.line).under("base"))?,
            (None, Some(file)) => return self.complete(file),
            (None, None) => Calibration::load("default", files, depth)?,
        };
        base.name =
            file.map_or_else(|| format!("{}{CHANGED}", base.name.strip_suffix(CHANGED).unwrap_or(&base.name)), str::to_owned);
        self.changing(base)
    }

    fn changing(&self, mut base: Calibration) -> Result<Calibration, Fault> {
        self.apply(&mut base);
        let above_zero = |key: &str, line: Option<u32>| Fault::at(line.unwrap_or(0), key, "must be above zero");
        if base.goodput <= 0.0 {
            return Err(above_zero("goodput", self.goodput.as_ref().map(|at| at.line)));
        }
        if base.compressed <= 0.0 {
            return Err(above_zero("compressed", self.compressed.as_ref().map(|at| at.line)));
        }
        if base.swap.0 <= 0.0 {
            return Err(above_zero("swap", self.swap.as_ref().map(|at| at.line)));
        }
        Ok(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn resolve(text: &str, dir: &Path) -> Result<Calibration, Fault> {
        let node = Node::parse(text)?;
        let raw = read(&node.as_table().unwrap().entries[0].node)?;
        Calibration::resolve(&raw, &mut Files::new(dir))
    }

    #[test]
    fn the_built_in_ones_are_complete() {
        let ideal = Calibration::built_in("ideal").unwrap();
        assert_eq!((ideal.latency, ideal.goodput, ideal.page_header), (Span::ZERO, 1.0, Bytes::ZERO));
        let default = Calibration::built_in("default").unwrap();
        assert_eq!((default.goodput * 1538.0).round(), 1448.0);
        assert_eq!((default.tracking_fault, default.swap), (Span(2_400), Rate(60e6)));
        assert!(Calibration::built_in("other").is_none());
    }

    #[test]
    fn a_calibration_changes_its_base() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lab.toml"), "base = \"ideal\"\nlatency = \"9 us\"\n").unwrap();
        std::fs::write(dir.path().join("bad.toml"), "base = \"ideal\"\n\nlatncy = \"9 us\"\n").unwrap();
        std::fs::write(dir.path().join("part.toml"), "latency = \"9 us\"\n").unwrap();
        std::fs::write(dir.path().join("loop.toml"), "base = \"loop.toml\"\n").unwrap();
        let lab = resolve("calibration = \"lab.toml\"", dir.path()).unwrap();
        assert_eq!((lab.name.as_str(), lab.latency, lab.goodput), ("lab.toml", Span(9_000), 1.0));
        let over = resolve("calibration = { base = \"lab.toml\", goodput = 0.5 }", dir.path()).unwrap();
        assert_eq!((over.name.as_str(), over.latency, over.goodput), ("lab.toml, changed", Span(9_000), 0.5));
        let plain = resolve("calibration = { latency = \"1 us\" }", dir.path()).unwrap();
        assert_eq!(plain.tracking_fault, Calibration::built_in("default").unwrap().tracking_fault);

        let fault = resolve("calibration = \"bad.toml\"", dir.path()).unwrap_err();
        assert_eq!((fault.file.as_deref(), fault.line), (Some("bad.toml"), 3));
        assert!(fault.problem.contains("did you mean `latency`"), "{fault}");
        assert!(resolve("calibration = \"part.toml\"", dir.path()).unwrap_err().problem.contains("without `base`"));
        assert!(resolve("calibration = \"loop.toml\"", dir.path()).unwrap_err().problem.contains("based on each other"));
        assert!(resolve("calibration = \"defalt\"", dir.path()).unwrap_err().problem.contains("did you mean `default`"));
        assert!(resolve("calibration = \"none.toml\"", dir.path()).unwrap_err().problem.contains("cannot read"));
        assert!(resolve("calibration = { goodput = 0 }", dir.path()).unwrap_err().problem.contains("above zero"));
    }
}
