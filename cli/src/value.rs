//! A cell of a result: one value, written alike in CSV and JSON.

use livemig_core::units::{Bytes, Span};
use std::fmt::{Display, Write};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Not applicable, or not reached.
    Empty,
    /// A name.
    Text(String),
    /// A count, or bytes.
    Count(u64),
    /// A plain number.
    Number(f64),
    /// A length of time or a moment.
    Time(Span),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// The value as a field of a CSV file. Numbers are decimals without exponent that read back to the same value; times are
    /// seconds, exact to the nanosecond.
    pub(crate) fn csv(&self) -> String {
        let mut text = String::new();
        self.append_csv(&mut text);
        text
    }

    /// Appends what [`Value::csv`] gives: large results are millions of values.
    pub(crate) fn append_csv(&self, text: &mut String) {
        match self {
            Value::Empty => {}
            Value::Text(own) => text.push_str(own),
            Value::Count(n) => append_count(text, *n),
            Value::Number(x) if x.is_finite() => append(text, x),
            Value::Number(_) => {}
            Value::Time(span) => append_seconds(text, *span),
            Value::Flag(flag) => text.push_str(if *flag { "true" } else { "false" }),
        }
    }

    /// The value as a number, times in seconds; `None` for what is no number.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Value::Empty | Value::Text(_) | Value::Flag(_) => None,
            Value::Count(n) => Some(*n as f64),
            Value::Number(x) => Some(*x),
            Value::Time(span) => Some(span.as_secs_f64()),
        }
    }

    /// The value as JSON: text in quotes, nothing as `null`, the rest as in CSV.
    pub(crate) fn json(&self) -> String {
        match self {
            Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            other => {
                let text = other.csv();
                if text.is_empty() { "null".to_owned() } else { text }
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Value {
        Value::Count(bytes.0)
    }
}

impl From<Option<Span>> for Value {
    fn from(span: Option<Span>) -> Value {
        span.map_or(Value::Empty, Value::Time)
    }
}

impl From<Option<f64>> for Value {
    fn from(number: Option<f64>) -> Value {
        number.map_or(Value::Empty, Value::Number)
    }
}

fn append(text: &mut String, number: impl Display) {
    write!(text, "{number}").expect("memory takes everything that is written to it");
}

/// The decimal digits of `number`, at least `least` of them, as they stand at the end of the buffer that they are made in.
fn digits(mut number: u64, least: usize, buffer: &mut [u8; 20]) -> &str {
    let mut start = buffer.len();
    while number > 0 || buffer.len() - start < least {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    std::str::from_utf8(&buffer[start..]).expect("digits are text")
}

fn append_count(text: &mut String, count: u64) {
    text.push_str(digits(count, 1, &mut [0; 20]));
}

/// `span` in seconds with as many decimals as it needs.
fn append_seconds(text: &mut String, span: Span) {
    append_count(text, span.0 / 1_000_000_000);
    let rest = span.0 % 1_000_000_000;
    if rest > 0 {
        text.push('.');
        text.push_str(digits(rest, 9, &mut [0; 20]).trim_end_matches('0'));
    }
}

/// One JSON object of a header and a row.
pub(crate) fn json_object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Value)>) -> String {
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{}:{}", serde_json::Value::from(name), value.json())).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_have_no_exponent() {
        for x in [0.1, 1e-7, 1.0 / 3.0, 1e21, f64::MIN_POSITIVE, 5e-324] {
            let text = Value::Number(x).csv();
            assert!(!text.contains(['e', 'E']), "{text}");
            assert_eq!(text.parse::<f64>(), Ok(x));
        }
        assert_eq!(Value::Number(f64::NAN).csv(), "");
    }

    #[test]
    fn seconds_are_exact_to_the_nanosecond() {
        let text = |ns| Value::Time(Span(ns)).csv();
        assert_eq!(text(1), "0.000000001");
        assert_eq!(text(0), "0");
        assert_eq!(text(10_500_000_000), "10.5");
        assert_eq!(text(20_000_000_000), "20");
        assert_eq!(text(3_000_100_010), "3.00010001");
        assert_eq!(text(u64::MAX), "18446744073.709551615");
    }

    #[test]
    fn json_keeps_types() {
        let fields = [
            ("a", Value::from("say \"hi\"")),
            ("b", Value::Empty),
            ("c", Value::Flag(true)),
            ("d", Value::Time(Span(1_500_000_000))),
        ];
        let text = json_object(fields.iter().map(|(n, v)| (*n, v)));
        assert_eq!(text, r#"{"a":"say \"hi\"","b":null,"c":true,"d":1.5}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}
