//! Quantities for people: four significant digits and the unit that suits the size.

use livemig_core::units::Span;

const SECOND: f64 = 1.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;
const NO_TIME: &str = "0 s";

/// Units of time with their length and the value from which the next one is used. Seconds go on to 1000 and minutes to 120, so
/// that times of one comparison are likely to share a unit.
const TIME_UNITS: [(&str, f64, f64); 7] = [
    ("ns", 1e-9, 1000.0),
    ("µs", 1e-6, 1000.0),
    ("ms", 1e-3, 1000.0),
    ("s", SECOND, 1000.0),
    ("min", MINUTE, 120.0),
    ("h", HOUR, 48.0),
    ("d", DAY, f64::INFINITY),
];

/// Units with three digits instead of four: nobody thinks in thousandths of an hour.
const COARSE: [&str; 3] = ["min", "h", "d"];

const BYTE_UNITS: [(&str, f64, f64); 7] = [
    ("B", 1.0, 1024.0),
    ("KiB", 1024.0, 1024.0),
    ("MiB", 1048576.0, 1024.0),
    ("GiB", 1073741824.0, 1024.0),
    ("TiB", 1099511627776.0, 1024.0),
    ("PiB", 1125899906842624.0, 1024.0),
    ("EiB", 1152921504606846976.0, f64::INFINITY),
];

const COUNT_UNITS: [(&str, f64, f64); 4] =
    [("", 1.0, 100_000.0), ("k", 1e3, 1000.0), ("M", 1e6, 1000.0), ("G", 1e9, f64::INFINITY)];

/// A length of time in seconds, as in `312.5 ms`.
pub(crate) fn seconds(s: f64) -> String {
    if s == 0.0 { NO_TIME.to_owned() } else { scaled(s, &TIME_UNITS).join() }
}

/// A median time and the interval around it, all in the median's unit.
pub(crate) fn seconds_with_interval(s: [f64; 3]) -> (String, String) {
    with_interval(s, &TIME_UNITS, seconds)
}

/// A length of time without digits that say nothing, as in `2 h`.
pub(crate) fn span(s: Span) -> String {
    let s = s.as_secs_f64();
    match in_whole_units(s) {
        Some(text) => text,
        None if s == 0.0 => NO_TIME.to_owned(),
        None => {
            let Scaled { digits, unit } = scaled(s, &TIME_UNITS);
            format!("{} {unit}", trimmed(&digits))
        }
    }
}

/// A length of time in at most three digits, as in `10 ms` or `1 min`, for axes of charts.
pub(crate) fn short_seconds(s: f64) -> String {
    if s == 0.0 {
        return NO_TIME.to_owned();
    }
    if let Some(text) = in_whole_units(s) {
        return text;
    }
    let Scaled { digits, unit } = scaled(s, &TIME_UNITS);
    let shortened = digits.parse::<f64>().map_or(digits, three_digits);
    format!("{} {unit}", trimmed(&shortened))
}

/// An amount of memory or traffic in bytes, as in `12.34 GiB`.
pub(crate) fn bytes(b: f64) -> String {
    scaled(b, &BYTE_UNITS).join()
}

/// A median amount and the interval around it, all in the median's unit.
pub(crate) fn bytes_with_interval(b: [f64; 3]) -> (String, String) {
    with_interval(b, &BYTE_UNITS, bytes)
}

/// An amount of memory without digits that say nothing, as in `12 GiB`.
pub(crate) fn memory(b: u64) -> String {
    let Scaled { digits, unit } = scaled(b as f64, &BYTE_UNITS);
    format!("{} {unit}", trimmed(&digits))
}

/// A number of things.
pub(crate) fn count(n: f64) -> String {
    let Scaled { digits, unit } = scaled(n, &COUNT_UNITS);
    if unit.is_empty() { trimmed(&digits).to_owned() } else { format!("{digits} {unit}") }
}

/// A median count and the interval around it, all in the median's unit.
pub(crate) fn count_with_interval(n: [f64; 3]) -> (String, String) {
    with_interval(n, &COUNT_UNITS, count)
}

/// A factor, as in `1.04`, `12.5` or `340`.
pub(crate) fn factor(x: f64) -> String {
    let decimals = if x < 10.0 { 2 } else { usize::from(x < 100.0) };
    format!("{x:.decimals$}")
}

/// `n` things: `1 VM`, `3 VMs`.
pub(crate) fn plural(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

struct Scaled {
    digits: String,
    unit: &'static str,
}

impl Scaled {
    fn join(self) -> String {
        format!("{} {}", self.digits, self.unit)
    }
}

/// The value in the first unit in which it stays below the unit's limit after rounding.
fn scaled(value: f64, units: &[(&'static str, f64, f64)]) -> Scaled {
    let largest = units.len() - 1;
    for (index, &(unit, size, limit)) in units.iter().enumerate() {
        let digits = if COARSE.contains(&unit) { three_digits(value / size) } else { significant(value / size) };
        if index == largest || digits.parse::<f64>().is_ok_and(|shown| shown < limit) {
            return Scaled { digits, unit };
        }
    }
    unreachable!("the last unit has no limit")
}

/// The value, which comes first, as `one` writes it, and the two ends after it with the same unit and as many decimals, as in
/// `305.0 ms` and `[300.0..312.5]`; no interval where it would not be seen.
fn with_interval([value, low, high]: [f64; 3], units: &[(&'static str, f64, f64)], one: fn(f64) -> String) -> (String, String) {
    // A median of zero has no unit of its own.
    let Scaled { digits, unit } = scaled(if value == 0.0 { high } else { value }, units);
    let size = units.iter().find(|(name, ..)| *name == unit).map_or(1.0, |(_, size, _)| *size);
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let decimals = if unit.is_empty() { 0 } else { decimals };
    let suffix = if value == 0.0 && high != 0.0 { format!(" {unit}").trim_end().to_owned() } else { String::new() };
    let (low, high) = (format!("{:.decimals$}", low / size), format!("{:.decimals$}", high / size));
    // An interval that is no wider than the last digit says nothing.
    let interval = if low == high { String::new() } else { format!("[{low}..{high}{suffix}]") };
    (one(value), interval)
}

/// Four significant digits, never an exponent; zero is `0`.
fn significant(x: f64) -> String {
    let decimals = match x.abs() {
        0.0 => 0,
        a if a < 9.9995 => 3,
        a if a < 99.995 => 2,
        a if a < 999.95 => 1,
        _ => 0,
    };
    format!("{x:.decimals$}")
}

/// A length of time in three digits, as in `312 ms` or `2.10 s`, for values in charts.
pub(crate) fn value_seconds(s: f64) -> String {
    if s == 0.0 {
        return NO_TIME.to_owned();
    }
    let Scaled { unit, .. } = scaled(s, &TIME_UNITS);
    let size = TIME_UNITS.iter().find(|(name, ..)| *name == unit).map_or(1.0, |(_, size, _)| *size);
    value_in(s, unit, size)
}

/// A length of time in three digits in a given unit of that many seconds.
pub(crate) fn value_in(s: f64, unit: &str, size: f64) -> String {
    if s == 0.0 { format!("0 {unit}") } else { format!("{} {unit}", three_digits(s / size)) }
}

/// A length of time that is a whole number of days, hours or minutes.
fn in_whole_units(s: f64) -> Option<String> {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "min")];
    let (size, unit) = units.into_iter().find(|(size, _)| s >= *size && s % size == 0.0)?;
    Some(format!("{} {unit}", s / size))
}

/// Three significant digits of a number below 1000 in size, more of a larger one.
fn three_digits(x: f64) -> String {
    let decimals = match x.abs() {
        a if a < 9.995 => 2,
        a if a < 99.95 => 1,
        _ => 0,
    };
    format!("{x:.decimals$}")
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (s, text) in [
            (0.0, "0 s"),
            (1e-9, "1.000 ns"),
            (2.5e-4, "250.0 µs"),
            (0.3125, "312.5 ms"),
            (0.999_99, "1.000 s"),
            (1.0, "1.000 s"),
            (104.04, "104.0 s"),
            (999.99, "16.7 min"),
            (1500.0, "25.0 min"),
            (7199.9, "2.00 h"),
            (86400.0, "24.0 h"),
            (864000.0, "10.0 d"),
        ] {
            assert_eq!(seconds(s), text, "{s}");
        }
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(["0 s", "313 ms", "2.10 s", "104 s"].map(str::to_owned), [0.0, 0.3127, 2.1, 104.04].map(value_seconds));
        assert_eq!((value_in(90.0, "min", 60.0), value_in(0.0, "min", 60.0)), ("1.50 min".to_owned(), "0 min".to_owned()));
        for (s, text) in [
            (0.0, "0 s"),
            (0.3127, "313 ms"),
            (0.002, "2 ms"),
            (60.0, "1 min"),
            (61.0, "61 s"),
            (104.04, "104 s"),
            (600.0, "10 min"),
            (3600.0, "1 h"),
            (86400.0, "1 d"),
            (0.001, "1 ms"),
        ] {
            assert_eq!(short_seconds(s), text, "{s}");
        }
    }

    #[test]
    fn configured_values_have_no_empty_digits() {
        assert_eq!(span(Span::from_secs(7200)), "2 h");
        assert_eq!(span(Span::from_secs(600)), "10 min");
        assert_eq!(span(Span::from_secs(200)), "200 s");
        assert_eq!(span(Span::from_millis(250)), "250 ms");
        assert_eq!(memory(12 << 30), "12 GiB");
        assert_eq!(memory(1536 << 20), "1.5 GiB");
        assert_eq!(memory(0), "0 B");
    }

    #[test]
    fn intervals_share_the_unit_of_their_median() {
        let pair = |(a, b): (String, String)| format!("{a} {b}");
        assert_eq!(pair(seconds_with_interval([0.305, 0.0995, 1.25])), "305.0 ms [99.5..1250.0]");
        assert_eq!(pair(seconds_with_interval([0.0, 0.0, 0.0])), "0 s ");
        assert_eq!(pair(seconds_with_interval([0.0, 0.0, 0.25])), "0 s [0.0..250.0 ms]");
        assert_eq!(pair(bytes_with_interval([1536.0, 1024.0, 2048.0])), "1.500 KiB [1.000..2.000]");
        assert_eq!(pair(count_with_interval([5.0, 1.0, 20.0])), "5 [1..20]");
        assert_eq!(pair(count_with_interval([0.0, 0.0, 20.0])), "0 [0..20]");
    }

    #[test]
    fn amounts_and_counts() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.99), "1.000 KiB");
        assert_eq!(bytes(13_249_974_108.0), "12.34 GiB");
        assert_eq!(count(0.0), "0");
        assert_eq!(count(99_999.0), "99999");
        assert_eq!(count(1_234_567.0), "1.235 M");
        assert_eq!(count(156_342.0), "156.3 k");
        assert_eq!(factor(1.0), "1.00");
        assert_eq!(factor(12.345), "12.3");
        assert_eq!(factor(341.3), "341");
        assert_eq!(plural(1, "VM"), "1 VM");
        assert_eq!(plural(2, "VM"), "2 VMs");
    }
}
