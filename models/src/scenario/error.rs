//! What can be wrong with a scenario, and how it is said: file, line, key, and what is allowed.

use std::fmt::Display;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is readable, and something in it is wrong.
    #[error("{file}:{line}: {}{problem}", prefix(.key))]
    Invalid {
        /// The file, or another that it refers to.
        file: String,
        /// The line, from 1.
        line: u32,
        /// The key, like `vm.workload.hot_writes`; empty where there is none.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// A problem on its way up: its file and the front of its key are added as it rises.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    /// Another file than the document, if it is there.
    pub(crate) file: Option<String>,
    /// The line, from 1; 0 while it is not known.
    pub(crate) line: u32,
    /// The key, as far as it is known.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) problem: String,
}

impl Fault {
    /// A problem with the value of `key` in `line`.
    pub(crate) fn at(line: u32, key: impl Into<String>, problem: impl Into<String>) -> Fault {
        Fault { file: None, line, key: key.into(), problem: problem.into() }
    }

    /// A problem in another file.
    pub(crate) fn in_file(file: impl Into<String>, line: u32, problem: impl Into<String>) -> Fault {
        Fault { file: Some(file.into()), line, key: String::new(), problem: problem.into() }
    }

    /// The fault as it leaves the crate.
    pub(crate) fn in_document(self, file: &str) -> ScenarioError {
        let file = self.file.unwrap_or_else(|| file.to_owned());
        ScenarioError::Invalid { file, line: self.line.max(1), key: self.key, problem: self.problem }
    }

    /// Sets the line unless a deeper place has set it.
    pub(crate) fn or_line(mut self, line: u32) -> Fault {
        if self.line == 0 {
            self.line = line;
        }
        self
    }

    /// Puts `key` before the key.
    pub(crate) fn under(mut self, key: &str) -> Fault {
        if self.file.is_none() {
            let joint = if self.key.is_empty() || self.key.starts_with('[') { "" } else { "." };
            self.key = format!("{key}{joint}{}", self.key);
        }
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}{}", self.line, prefix(&self.key), self.problem)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Fault {
        Fault::at(0, "", message.to_string())
    }

    fn invalid_type(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Fault {
        Fault::at(0, "", format!("expected {}, found {}", plain(&expected.to_string()), plain_found(found)))
    }

    fn invalid_value(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Fault {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Fault {
        Fault::at(0, field, format!("unknown key; {}", choices(field, expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Fault {
        Fault::at(0, "", format!("unknown value `{variant}`; {}", choices(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::at(0, field, "this key is required")
    }
}

/// Serde's words for what is expected, in the user's.
fn plain(expected: &str) -> String {
    match expected {
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" | "i64" => "a whole number from 0 to 9223372036854775807".to_owned(),
        "f64" => "a number".to_owned(),
        "a string" => "text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list in square brackets".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn plain_found(found: serde::de::Unexpected<'_>) -> String {
    use serde::de::Unexpected;
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(x) => format!("the number {x}"),
        Unexpected::Str(s) => format!("the text \"{s}\""),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Most names that a message lists.
const LISTED: usize = 40;

/// Says which names are allowed, and which one was perhaps meant.
pub(crate) fn choices<S: AsRef<str>>(given: &str, allowed: &[S]) -> String {
    if allowed.is_empty() {
        return "allowed: nothing".to_owned();
    }
    let names: Vec<&str> = allowed.iter().take(LISTED).map(AsRef::as_ref).collect();
    let more = allowed.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}allowed: {}{more}", did_you_mean(given, allowed.iter().map(AsRef::as_ref)), names.join(", "))
}

/// `did you mean ...? ` when a name is near to what was given.
pub(crate) fn did_you_mean<'a>(given: &str, allowed: impl Iterator<Item = &'a str>) -> String {
    let limit = 1 + given.chars().count() / 4;
    let near = allowed.map(|name| (distance(given, name, limit), name)).filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d);
    near.map_or(String::new(), |(_, name)| format!("did you mean `{name}`? "))
}

/// Edit distance with transpositions of neighbours (optimal string alignment); above `limit` only that it is above.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut before = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let substituted = row[j] + usize::from(a[i] != b[j]);
            next[j + 1] = substituted.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let allowed = ["hot", "hot_writes", "hot_reads"];
        assert_eq!(choices("hot_writs", &allowed), "did you mean `hot_writes`? allowed: hot, hot_writes, hot_reads");
        assert_eq!(choices("banana", &allowed), "allowed: hot, hot_writes, hot_reads");
        assert_eq!(distance("kitten", "sitting", 9), 3);
        assert_eq!(distance("dts", "dst", 9), 1);
        assert_eq!(distance("", "abc", 9), 3);
    }

    #[test]
    fn a_key_grows_from_behind() {
        let fault = Fault::at(3, "hot", "x").under("workload").under("[2]").under("vm");
        assert_eq!(fault.in_document("a.toml").to_string(), "a.toml:3: vm[2].workload.hot: x");
    }
}
