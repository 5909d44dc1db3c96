//! From a [`Node`] to the raw types of the format, keeping lines and keys for every error.
//!
//! Three things go beyond plain serde, each asked for by a reserved name: [`LINE`] hands a value out with its line, [`SPLIT`]
//! hands one key of a table out beside the rest, and enums listed in [`tag_of`] find their variant in a key of the table (serde's
//! own internal tagging would lose lines and keys).

use super::document::{Entry, Item, Node, Table};
use super::error::{Fault, choices};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Name of the tuple struct (line, value).
pub(crate) const LINE: &str = "$line";
/// Name of the tuple struct (value of `for` if there, table without `for`).
pub(crate) const SPLIT: &str = "$split for";
/// Name of the newtype struct that is given tables as newtype and everything else as it is.
pub(crate) const OR_TABLE: &str = "$or table";

const SPLIT_KEY: &str = "for";

/// The key that names the variant of an enum; `None` for enums whose variant is the only key.
fn tag_of(name: &str) -> Option<&'static str> {
    match name {
        "Workload" | "Steady" => Some("kind"),
        "Stop" => Some("rule"),
        "Throttle" | "Select" | "Snapshots" => Some("policy"),
        _ => None,
    }
}

/// Deserializes one node.
#[derive(Clone, Copy)]
pub(crate) struct Source<'n> {
    node: &'n Node,
    /// Keys of its table that are dealt with already.
    done: [Option<&'static str>; 2],
}

/// Reads a value of a raw type out of a document.
///
/// # Errors
/// The first thing that does not fit, with its line and key.
pub(crate) fn read<'n, T: de::Deserialize<'n>>(node: &'n Node) -> Result<T, Fault> {
    T::deserialize(Source::new(node))
}

impl<'n> Source<'n> {
    fn new(node: &'n Node) -> Source<'n> {
        Source { node, done: [None; 2] }
    }

    fn without(mut self, key: &'static str) -> Source<'n> {
        let free = usize::from(self.done[0].is_some());
        self.done[free] = Some(key);
        self
    }

    fn entries(self, table: &'n Table) -> impl Iterator<Item = &'n Entry> {
        table.entries.iter().filter(move |e| !self.done.contains(&Some(&*e.key)))
    }

    fn map(self, table: &'n Table) -> Entries<'n, impl Iterator<Item = &'n Entry>> {
        Entries { entries: self.entries(table), current: None }
    }
}

impl<'de> de::Deserializer<'de> for Source<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.node.item {
            Item::Text(text) | Item::Date(text) => visitor.visit_borrowed_str(text),
            Item::Whole(n) => visitor.visit_i64(*n),
            Item::Real(x) => visitor.visit_f64(*x),
            Item::Flag(b) => visitor.visit_bool(*b),
            Item::List(nodes) => visitor.visit_seq(Elements { nodes, next: 0 }),
            Item::Table(table) => visitor.visit_map(self.map(table)),
        };
        result.map_err(|fault: Fault| fault.or_line(self.node.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        if name == OR_TABLE && !matches!(self.node.item, Item::Table(_)) {
            return self.deserialize_any(visitor);
        }
        visitor.visit_newtype_struct(self).map_err(|fault| fault.or_line(self.node.line))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match (name, &self.node.item) {
            (LINE, _) => visitor.visit_seq(Lined { source: self, next: 0 }),
            (SPLIT, Item::Table(table)) => visitor.visit_seq(Split { source: self, part: table.get(SPLIT_KEY), next: 0 }),
            (SPLIT, _) => Err(Fault::at(self.node.line, "", format!("expected a table, found {}", self.node.kind()))),
            _ => self.deserialize_tuple(len, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let line = self.node.line;
        let variant = match &self.node.item {
            Item::Text(text) => Variant { name: text, line, key: "", content: None },
            Item::Table(table) => match tag_of(name) {
                Some(tag) => {
                    let entry = self.entries(table).find(|e| &*e.key == tag);
                    let entry = entry
                        .ok_or_else(|| Fault::at(line, tag, format!("this key is required; allowed: {}", variants.join(", "))))?;
                    let name = entry.node.as_text().ok_or_else(|| {
                        let found = entry.node.kind();
                        Fault::at(entry.node.line, tag, format!("expected text, found {found}; allowed: {}", variants.join(", ")))
                    })?;
                    Variant { name, line: entry.node.line, key: tag, content: Some(self.without(tag)) }
                }
                None => {
                    let mut entries = self.entries(table);
                    let (Some(entry), None) = (entries.next(), entries.next()) else {
                        return Err(Fault::at(line, "", format!("expected exactly one of {}", variants.join(", "))));
                    };
                    Variant { name: &entry.key, line: entry.line, key: "", content: Some(Source::new(&entry.node)) }
                }
            },
            _ => {
                let found = self.node.kind();
                return Err(Fault::at(
                    line,
                    "",
                    format!("expected text or a table, found {found}; allowed: {}", variants.join(", ")),
                ));
            }
        };
        if !variants.contains(&variant.name) {
            let problem = format!("unknown value `{}`; {}", variant.name, choices(variant.name, variants));
            return Err(Fault::at(variant.line, variant.key, problem));
        }
        let inside = if variant.key.is_empty() && variant.content.is_some() { variant.name } else { "" };
        visitor.visit_enum(variant).map_err(|fault| {
            let fault = fault.or_line(line);
            if inside.is_empty() { fault } else { fault.under(inside) }
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple map
        struct identifier ignored_any
    }
}

/// The entries of a table.
struct Entries<'n, I> {
    entries: I,
    current: Option<&'n Entry>,
}

impl<'n, I: Iterator<Item = &'n Entry>> de::MapAccess<'n> for Entries<'n, I> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = (&*entry.key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.or_line(entry.line))
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry = self.current.take().expect("a value is asked for after its key");
        seed.deserialize(Source::new(&entry.node)).map_err(|fault| fault.or_line(entry.line).under(&entry.key))
    }
}

/// The elements of a list.
struct Elements<'n> {
    nodes: &'n [Node],
    next: usize,
}

impl<'n> de::SeqAccess<'n> for Elements<'n> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.nodes.get(self.next) else { return Ok(None) };
        let number = self.next;
        self.next += 1;
        seed.deserialize(Source::new(node)).map(Some).map_err(|fault| fault.under(&format!("[{number}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len() - self.next)
    }
}

/// A line and a value.
struct Lined<'n> {
    source: Source<'n>,
    next: u8,
}

impl<'n> de::SeqAccess<'n> for Lined<'n> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.next += 1;
        match self.next {
            1 => seed.deserialize(self.source.node.line.into_deserializer()).map(Some),
            2 => seed.deserialize(self.source).map(Some),
            _ => Ok(None),
        }
    }
}

/// The value of one key and the rest of its table.
struct Split<'n> {
    source: Source<'n>,
    part: Option<&'n Entry>,
    next: u8,
}

impl<'n> de::SeqAccess<'n> for Split<'n> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.next += 1;
        match (self.next, self.part) {
            (1, Some(entry)) => seed.deserialize(Source::new(&entry.node)).map(Some).map_err(|fault| fault.under(SPLIT_KEY)),
            (1, None) => seed.deserialize(().into_deserializer()).map(Some),
            (2, _) => seed.deserialize(self.source.without(SPLIT_KEY)).map(Some),
            _ => Ok(None),
        }
    }
}

/// A variant and what it holds.
struct Variant<'n> {
    name: &'n str,
    line: u32,
    key: &'static str,
    content: Option<Source<'n>>,
}

impl<'n> de::EnumAccess<'n> for Variant<'n> {
    type Error = Fault;
    type Variant = Content<'n>;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Content<'n>), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

/// Content of a variant; none where the variant was given as text.
struct Content<'n>(Option<Source<'n>>);

impl<'n> de::VariantAccess<'n> for Content<'n> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let Some(source) = self.0 else { return Ok(()) };
        match &source.node.item {
            Item::Table(table) => match source.entries(table).next() {
                Some(entry) => Err(Fault::at(entry.line, &*entry.key, "unknown key; allowed: nothing more")),
                None => Ok(()),
            },
            _ => Err(Fault::at(source.node.line, "", "expected nothing here")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.0 {
            Some(source) => seed.deserialize(source),
            // A variant without its options: all of them are left out.
            None => seed.deserialize(de::value::MapDeserializer::new(std::iter::empty::<(&str, &str)>())),
        }
    }

    fn tuple_variant<V: Visitor<'n>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Some(source) => de::Deserializer::deserialize_tuple(source, len, visitor),
            None => Err(Fault::at(0, "", "expected a table")),
        }
    }

    fn struct_variant<V: Visitor<'n>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Some(source) => de::Deserializer::deserialize_any(source, visitor),
            None => visitor.visit_map(de::value::MapDeserializer::new(std::iter::empty::<(&str, &str)>())),
        }
    }
}
