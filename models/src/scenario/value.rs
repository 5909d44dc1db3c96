//! Values of the raw format: constants, patterns over a fleet's members, and random draws.

use super::deserializer::{LINE, OR_TABLE};
use super::error::Fault;
use super::expression::{Template, Variables};
use super::files::Row;
use super::quantity::{Form, Number, Quantity};
use rand::RngExt as _;
use rand_distr::{Distribution as _, StandardNormal};
use rand_pcg::Pcg64Mcg;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A value and its line.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) line: u32,
    pub(crate) value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At<T>, D::Error> {
        struct Pair<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its line")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<At<T>, A::Error> {
                let line = pair.next_element()?.ok_or_else(|| de::Error::missing_field("line"))?;
                let value = pair.next_element()?.ok_or_else(|| de::Error::missing_field("value"))?;
                Ok(At { line, value })
            }
        }
        deserializer.deserialize_tuple_struct(LINE, 2, Pair(PhantomData))
    }
}

/// A constant quantity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constant<Q>(pub(crate) Q);

impl<'de, Q: Quantity> Deserialize<'de> for Constant<Q> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Constant<Q>, D::Error> {
        let visitor: QuantityVisitor<Q, false> = QuantityVisitor(PhantomData);
        match deserializer.deserialize_any(visitor)? {
            Origin::Constant(q) => Ok(Constant(q)),
            Origin::Pattern(_) | Origin::Draw(_) => Err(de::Error::custom("patterns and distributions are not allowed here")),
        }
    }
}

/// A quantity of a member of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Value<Q> {
    pub(crate) line: u32,
    origin: Origin<Q>,
}

#[derive(Clone, Debug)]
enum Origin<Q> {
    Constant(Q),
    Pattern(Template),
    Draw(Box<Draw<Q>>),
}

impl<'de, Q: Quantity> Deserialize<'de> for Value<Q> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<Q>, D::Error> {
        let at = At::<Origin<Q>>::deserialize(deserializer)?;
        Ok(Value { line: at.line, origin: at.value })
    }
}

impl<'de, Q: Quantity> Deserialize<'de> for Origin<Q> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Origin<Q>, D::Error> {
        let visitor: QuantityVisitor<Q, true> = QuantityVisitor(PhantomData);
        deserializer.deserialize_newtype_struct(OR_TABLE, visitor)
    }
}

/// Reads a quantity; one of a fleet may also be a pattern or a distribution.
struct QuantityVisitor<Q, const FLEET: bool>(PhantomData<Q>);

impl<'de, Q: Quantity, const FLEET: bool> Visitor<'de> for QuantityVisitor<Q, FLEET> {
    type Value = Origin<Q>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Q::WHAT)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Origin<Q>, E> {
        if FLEET && Template::is_needed(text) {
            Template::compile(text).map(Origin::Pattern).map_err(E::custom)
        } else if !matches!(Q::FORM, Form::Text(_)) {
            Err(E::invalid_type(de::Unexpected::Str(text), &self))
        } else {
            Q::read(text).map(Origin::Constant).map_err(E::custom)
        }
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Origin<Q>, E> {
        Q::bare(Number::Whole(n)).map(Origin::Constant).ok_or_else(|| E::invalid_type(de::Unexpected::Signed(n), &self))
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<Origin<Q>, E> {
        Q::bare(Number::Real(x)).map(Origin::Constant).ok_or_else(|| E::invalid_type(de::Unexpected::Float(x), &self))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Origin<Q>, D::Error> {
        if FLEET {
            Draw::deserialize(deserializer).map(|draw| Origin::Draw(Box::new(draw)))
        } else {
            Err(de::Error::invalid_type(de::Unexpected::Map, &self))
        }
    }
}

/// A distribution from which each member of a fleet draws.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case", bound = "Q: Quantity")]
enum Draw<Q> {
    Uniform([Constant<Q>; 2]),
    Choice(Vec<Constant<Q>>),
    Lognormal(Lognormal<Q>),
}

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, bound = "Q: Quantity")]
struct Lognormal<Q> {
    median: Constant<Q>,
    sigma: Constant<super::quantity::Positive>,
    min: Option<Constant<Q>>,
    max: Option<Constant<Q>>,
}

impl<Q: Quantity> Draw<Q> {
    /// Draws with `generator`. Logarithms and exponentials are those of `libm`, so that all platforms draw the same.
    fn draw(&self, generator: &mut Pcg64Mcg) -> Result<Q, String> {
        match self {
            Draw::Uniform([low, high]) => {
                let (low, high) = (low.0.to_base(), high.0.to_base());
                if low > high {
                    return Err("the lower end of `uniform` is above the upper".to_owned());
                }
                Ok(Q::from_base(low + (high - low) * generator.random::<f64>()))
            }
            Draw::Choice(choices) if choices.is_empty() => Err("`choice` has nothing to choose from".to_owned()),
            Draw::Choice(choices) => Ok(choices[generator.random_range(0..choices.len())].0),
            Draw::Lognormal(Lognormal { median, sigma, min, max }) => {
                let normal: f64 = StandardNormal.sample(generator);
                let low = min.map_or(0.0, |q| q.0.to_base());
                let high = max.map_or(f64::MAX, |q| q.0.to_base());
                if low > high {
                    return Err("`min` is above `max`".to_owned());
                }
                Ok(Q::from_base((median.0.to_base() * libm::exp(sigma.0.0 * normal)).clamp(low, high)))
            }
        }
    }
}

/// Text that may differ between the members of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) line: u32,
    kind: TextKind,
}

#[derive(Clone, Debug)]
enum TextKind {
    Constant(Box<str>),
    Pattern(Template),
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        let At { line, value } = At::<TextKind>::deserialize(deserializer)?;
        Ok(Text { line, kind: value })
    }
}

impl<'de> Deserialize<'de> for TextKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextKind, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Template::is_needed(&text) {
            Template::compile(&text).map(TextKind::Pattern).map_err(de::Error::custom)
        } else {
            Ok(TextKind::Constant(text.into()))
        }
    }
}

/// One member of a fleet, or the only one of a block without `count` and `table`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// Its number; none in a block that is no fleet.
    pub(crate) index: Option<u64>,
    /// Its row in the fleet's table.
    pub(crate) row: Option<Row<'a>>,
    /// The seed of the scenario.
    pub(crate) seed: u64,
    /// Its name, from which its random numbers come; empty while the name is being made.
    pub(crate) name: &'a str,
}

impl Variables for Member<'_> {
    fn index(&self) -> Result<i64, String> {
        let index = self.index.ok_or("`i` is known only in a block with `count` or `table`")?;
        i64::try_from(index).map_err(|_| "`i` exceeds 64 bits".to_owned())
    }

    fn column(&self, name: &str) -> Result<&str, String> {
        match self.row {
            Some(row) => row.get(name),
            None => Err(format!("`{name}` is unknown; allowed: i, and the columns of the block's `table` if it has one")),
        }
    }
}

impl Member<'_> {
    /// A problem of this member.
    pub(crate) fn fault(&self, line: u32, key: &str, problem: &str) -> Fault {
        let name = if self.name.is_empty() { String::new() } else { format!(" `{}`", self.name) };
        match (self.row, self.index) {
            (Some(row), _) => Fault::at(line, key, format!("{problem} (member{name}, {})", row.place())),
            (None, Some(i)) => Fault::at(line, key, format!("{problem} (member{name}, i = {i})")),
            (None, None) => Fault::at(line, key, problem),
        }
    }

    /// The generator of this member's value of `key`: it depends on the scenario's seed, the member's name and the key, and on
    /// nothing else, so that other members, their order and other keys do not move it.
    fn generator(&self, key: &str) -> Pcg64Mcg {
        let mut material = self.seed.to_le_bytes().to_vec();
        material.extend_from_slice(key.as_bytes());
        material.push(0xff);
        material.extend_from_slice(self.name.as_bytes());
        Pcg64Mcg::new(xxhash_rust::xxh3::xxh3_128(&material))
    }
}

impl Text {
    /// The text for `member`, put into `out`.
    ///
    /// # Errors
    /// When the pattern fails.
    pub(crate) fn put(&self, member: &Member<'_>, key: &str, out: &mut String) -> Result<(), Fault> {
        out.clear();
        match &self.kind {
            TextKind::Constant(text) => {
                out.push_str(text);
                Ok(())
            }
            TextKind::Pattern(template) => template.expand(member, out).map_err(|problem| member.fault(self.line, key, &problem)),
        }
    }

    /// The text for `member`.
    ///
    /// # Errors
    /// When the pattern fails.
    pub(crate) fn get(&self, member: &Member<'_>, key: &str) -> Result<String, Fault> {
        let mut out = String::new();
        self.put(member, key, &mut out)?;
        Ok(out)
    }
}

impl<Q: Quantity> Value<Q> {
    /// The value for `member`.
    ///
    /// # Errors
    /// When the pattern fails, gives no quantity, or the distribution makes no sense.
    pub(crate) fn get(&self, member: &Member<'_>, key: &str) -> Result<Q, Fault> {
        self.get_under(member, "", key)
    }

    /// The value for `member` of `key`, which stands under the key `parent`, if that is not empty. Their path is put together only where
    /// it is needed: a fleet has millions of values.
    ///
    /// # Errors
    /// Those of [`Value::get`].
    pub(crate) fn get_under(&self, member: &Member<'_>, parent: &str, key: &str) -> Result<Q, Fault> {
        let path = || if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
        let result = match &self.origin {
            Origin::Constant(q) => return Ok(*q),
            Origin::Pattern(template) => {
                let mut text = String::new();
                template.expand(member, &mut text).and_then(|()| Q::read(&text))
            }
            Origin::Draw(draw) => draw.draw(&mut member.generator(&path())),
        };
        result.map_err(|problem| member.fault(self.line, &path(), &problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::deserializer::read;
    use crate::scenario::document::Node;
    use livemig_core::units::Bytes;

    fn value(text: &str) -> Result<Value<Bytes>, Fault> {
        let node = Node::parse(&format!("v = {text}")).unwrap();
        read(&node.as_table().unwrap().get("v").unwrap().node)
    }

    fn draw(text: &str, seed: u64, name: &str) -> Bytes {
        let member = Member { index: Some(0), row: None, seed, name };
        value(text).unwrap().get(&member, "vm.memory").unwrap()
    }

    #[test]
    fn draws_depend_on_seed_and_name_only_and_fill_their_range() {
        let text = r#"{ uniform = ["1 GiB", "8 GiB"] }"#;
        assert_eq!(draw(text, 7, "a"), draw(text, 7, "a"));
        assert_ne!(draw(text, 7, "a"), draw(text, 7, "b"));
        assert_ne!(draw(text, 7, "a"), draw(text, 8, "a"));
        let drawn: Vec<u64> = (0..4000).map(|i| draw(text, 7, &format!("vm{i}")).0).collect();
        assert!(drawn.iter().all(|b| (1 << 30..=8 << 30).contains(b) && b % 4096 == 0));
        let mean = drawn.iter().map(|b| *b as f64).sum::<f64>() / 4000.0 / f64::from(1 << 30);
        // Standard error of the mean of 4000 draws over 7 GiB: 0.032.
        assert!((mean - 4.5).abs() < 0.13, "{mean}");
    }

    #[test]
    fn the_median_of_a_lognormal_is_its_median() {
        let text = r#"{ lognormal = { median = "4 GiB", sigma = 0.5, max = "64 GiB" } }"#;
        let below = (0..4000).filter(|i| draw(text, 1, &format!("vm{i}")) < Bytes::from_gib(4)).count();
        assert!((1870..2130).contains(&below), "{below}");
    }

    #[test]
    fn draws_are_pinned() {
        // These numbers must be the same on every platform and in every release.
        assert_eq!(draw(r#"{ uniform = ["1 GiB", "8 GiB"] }"#, 7, "vm0"), PINNED_UNIFORM);
        assert_eq!(draw(r#"{ lognormal = { median = "4 GiB", sigma = 0.5 } }"#, 7, "vm0"), PINNED_LOGNORMAL);
        assert_eq!(draw(r#"{ choice = ["1 GiB", "2 GiB", "3 GiB"] }"#, 7, "vm0"), PINNED_CHOICE);
    }

    const PINNED_UNIFORM: Bytes = Bytes(4_416_421_888);
    const PINNED_LOGNORMAL: Bytes = Bytes(4_027_858_944);
    const PINNED_CHOICE: Bytes = Bytes(3 << 30);

    #[test]
    fn mistakes_are_named() {
        assert!(value("5").unwrap_err().problem.contains("expected a size such as"));
        assert!(value("{ unform = [\"1 B\", \"2 B\"] }").unwrap_err().problem.contains("did you mean `uniform`"));
        assert!(value("{ uniform = [\"1 B\"] }").is_err());
        assert!(value("{ lognormal = { median = \"1 B\", sigma = -1 } }").is_err());
        assert!(value("\"{i\"").unwrap_err().problem.contains("without `}`"));
        let member = Member { index: None, row: None, seed: 0, name: "a" };
        assert!(value("\"{i} B\"").unwrap().get(&member, "k").unwrap_err().problem.contains("block with `count`"));
        assert!(value("{ uniform = [\"2 B\", \"1 B\"] }").unwrap().get(&member, "k").is_err());
    }
}
