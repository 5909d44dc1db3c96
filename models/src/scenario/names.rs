//! Names of hosts, racks and guests, and how they are looked up.

use super::error::{Fault, did_you_mean};
use std::collections::HashMap;

/// Longest name, in bytes.
const MAX_NAME: usize = 200;
/// Most names among which a near one is looked for.
const MAX_SEARCHED: usize = 20_000;

/// The members of one kind in their order, with the lines of their blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// First member and line of each block.
    starts: Vec<(usize, u32)>,
}

impl Blocks {
    /// Notes that the members from number `first` on come from `line`.
    pub(crate) fn begin(&mut self, first: usize, line: u32) {
        self.starts.push((first, line));
    }

    /// The line of a member.
    pub(crate) fn line(&self, member: usize) -> u32 {
        let after = self.starts.partition_point(|(first, _)| *first <= member);
        after.checked_sub(1).map_or(1, |block| self.starts[block].1)
    }
}

/// Names of one kind of thing. The map is only asked, never walked, so that its order does not matter.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    kind: &'static str,
    names: Vec<&'a str>,
    index: HashMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    /// The names of all things of a kind (`host`, `vm`, ...), in their order.
    ///
    /// # Errors
    /// When a name is there twice or is none.
    pub(crate) fn new(kind: &'static str, names: impl Iterator<Item = &'a str>, blocks: &Blocks) -> Result<Names<'a>, Fault> {
        let names: Vec<&str> = names.collect();
        let mut index = HashMap::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            let line = blocks.line(number);
            let key = format_args!("{kind}.name");
            if let Err(problem) = check(name) {
                return Err(Fault::at(line, key.to_string(), problem));
            }
            if let Some(first) = index.insert(*name, number as u32) {
                let first = blocks.line(first as usize);
                let hint = if first == line { "; a fleet's name needs a pattern such as `{i}`" } else { "" };
                return Err(Fault::at(line, key.to_string(), format!("`{name}` is there twice, first in line {first}{hint}")));
            }
        }
        Ok(Names { kind, names, index })
    }

    /// The number of the thing called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }

    /// The number of the thing called `name`, or what to say.
    ///
    /// # Errors
    /// When there is none, with near names.
    pub(crate) fn find(&self, name: &str) -> Result<u32, String> {
        self.get(name).ok_or_else(|| {
            let hint = did_you_mean(name, self.names.iter().take(MAX_SEARCHED).copied());
            let few = if self.names.is_empty() {
                format!("there is no [[{}]]", self.kind)
            } else {
                let listed = self.names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
                let more = self.names.len().saturating_sub(12);
                format!("allowed: {listed}{}", if more > 0 { format!(" and {more} more") } else { String::new() })
            };
            format!("there is no {} `{name}`; {hint}{few}", self.kind)
        })
    }

    /// The numbers of the things whose names match `pattern`, in order; `*` stands for any text.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Vec<u32>, String> {
        if !pattern.contains('*') {
            return self.find(pattern).map(|n| vec![n]);
        }
        let numbers: Vec<u32> = (0_u32..).zip(&self.names).filter(|(_, name)| matches(pattern, name)).map(|(n, _)| n).collect();
        if numbers.is_empty() { Err(format!("no {} matches `{pattern}`", self.kind)) } else { Ok(numbers) }
    }
}

/// What makes a name a name.
fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name must not be empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} bytes"));
    }
    if let Some(c) = name.chars().find(|c| c.is_control() || *c == '*') {
        return Err(format!("a name must not contain {c:?}"));
    }
    if name.trim() != name {
        return Err(format!("`{name}` begins or ends with a space"));
    }
    Ok(())
}

/// Whether `name` is `pattern` with each `*` replaced by some text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // The leftmost place leaves most for the parts that follow.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("vm*", "vm12", true),
            ("vm*", "xvm12", false),
            ("*1*2", "a1b2", true),
            ("*1*2", "a2b1", false),
            ("a*a", "a", false),
            ("a*ab*b", "aabb", true),
            ("a*b", "acbc", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        let mut blocks = Blocks::default();
        blocks.begin(0, 3);
        blocks.begin(2, 9);
        assert_eq!((blocks.line(0), blocks.line(1), blocks.line(2)), (3, 3, 9));
        let names = Names::new("vm", ["a1", "a2", "b1"].into_iter(), &blocks).unwrap();
        assert_eq!(names.matching("*1"), Ok(vec![0, 2]));
        assert!(names.find("a3").unwrap_err().contains("did you mean `a1`"));
        assert!(names.matching("c*").is_err());
        let twice = Names::new("vm", ["a", "b", "a"].into_iter(), &blocks).unwrap_err();
        assert_eq!((twice.line, twice.key.as_str()), (9, "vm.name"));
        assert!(Names::new("vm", ["a*"].into_iter(), &blocks).is_err());
        assert!(Names::new("vm", [""].into_iter(), &blocks).is_err());
    }
}
