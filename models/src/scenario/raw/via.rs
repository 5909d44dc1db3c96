//! The hosts that stage pages: `"auto"`, or a list of names.

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Which hosts stage pages.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Via<T> {
    /// `auto`: of the hosts with the role `intermediary` as many as the source's uplink and the VM's memory need.
    Auto(Auto),
    /// These.
    Hosts(Vec<T>),
}

/// The text `auto`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(crate) enum Auto {
    /// As many as are needed.
    Auto,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Via<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Via<T>, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Via<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, or a list of names of hosts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Via<T>, E> {
                if text == "auto" { Ok(Via::Auto(Auto::Auto)) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Via<T>, A::Error> {
                let mut hosts = Vec::new();
                while let Some(host) = list.next_element()? {
                    hosts.push(host);
                }
                Ok(Via::Hosts(hosts))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
