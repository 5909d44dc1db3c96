//! Quantities as users write them: a number with a unit, `"5 GiB"`, `"1 Gbit/s"`, `"250 us"`.
//!
//! Sizes and times are read exactly, in decimal, and rounded once, to whole bytes and nanoseconds. Rates are floating point;
//! their factors are exact, so that a byte rate written as a page rate comes back as it was.

use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span};

/// Something that has a written form.
pub(crate) trait Quantity: Copy {
    /// What is expected, with an example and the units, for messages and for the schema.
    const WHAT: &'static str;
    /// What it is called in the schema.
    const NAME: &'static str;
    /// Its written form.
    const FORM: Form;

    /// Reads the written form.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(text: &str) -> Result<Self, String>;

    /// A number without a unit, where that is allowed.
    fn bare(_number: Number) -> Option<Self> {
        None
    }

    /// The value in its base unit, for random draws.
    fn to_base(self) -> f64;

    /// The value nearest to so many base units; not negative.
    fn from_base(base: f64) -> Self;
}

/// The shortest exact written form of a size.
pub(crate) fn written_size(size: Bytes) -> String {
    written(size.0, &SIZES)
}

/// The shortest exact written form of a time.
pub(crate) fn written_time(time: Span) -> String {
    written(time.0, &TIMES)
}

fn written(value: u64, units: &[(&str, u128)]) -> String {
    let value = u128::from(value);
    let whole = units.iter().filter(|(_, unit)| value > 0 && value.is_multiple_of(*unit));
    let (name, unit) = whole.max_by_key(|(_, unit)| *unit).unwrap_or(&units[0]);
    format!("{} {name}", value / unit)
}

/// A number as TOML tells it apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Without a point.
    Whole(i64),
    /// With one.
    Real(f64),
}

/// The written form of a quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// Text that matches this regular expression.
    Text(&'static str),
    /// A whole number, not negative.
    Whole,
    /// A number from 0 to 1.
    Share,
    /// A number above 0.
    AboveZero,
}

/// Pages per second; byte rates are divided by the page size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PageRate(pub(crate) f64);

/// A whole number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u32);

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction(pub(crate) f64);

/// A number above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Positive(pub(crate) f64);

const SIZES: [(&str, u128); 11] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

const TIMES: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Bytes per second of each unit; all are whole or halves of powers of two, hence exact.
const RATES: [(&str, f64); 14] = [
    ("bit/s", 0.125),
    ("kbit/s", 125.0),
    ("Mbit/s", 125e3),
    ("Gbit/s", 125e6),
    ("Tbit/s", 125e9),
    ("B/s", 1.0),
    ("kB/s", 1e3),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("TB/s", 1e12),
    ("KiB/s", 1024.0),
    ("MiB/s", 1_048_576.0),
    ("GiB/s", 1_073_741_824.0),
    ("TiB/s", 1_099_511_627_776.0),
];

/// The first of [`RATES`] that counts bytes.
const BYTE_RATES_FROM: usize = 5;

/// Bytes per second of each unit of page rates: pages, and bytes as in [`RATES`].
const PAGE_RATES: [(&str, f64); 1 + RATES.len() - BYTE_RATES_FROM] = {
    let mut rates = [("pages/s", PAGE_SIZE as f64); 1 + RATES.len() - BYTE_RATES_FROM];
    let mut i = 1;
    while i < rates.len() {
        rates[i] = RATES[BYTE_RATES_FROM + i - 1];
        i += 1;
    }
    rates
};

impl Quantity for Bytes {
    const WHAT: &'static str = r#"a size such as "5 GiB" (units: B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB, PiB)"#;
    const NAME: &'static str = "Size";
    const FORM: Form = Form::Text(r"^[0-9_.eE+-]+ *([kMGTP]?B|[KMGTP]iB)$");

    fn read(text: &str) -> Result<Bytes, String> {
        exact(text, &SIZES, Self::WHAT).map(Bytes)
    }

    fn to_base(self) -> f64 {
        self.0 as f64
    }

    /// Whole pages: what is drawn is the size of memory or a part of it.
    fn from_base(base: f64) -> Bytes {
        Bytes(((base / PAGE_SIZE as f64).round() as u64).saturating_mul(PAGE_SIZE))
    }
}

impl Quantity for Span {
    const WHAT: &'static str = r#"a time such as "250 us" (units: ns, us, ms, s, min, h, d)"#;
    const NAME: &'static str = "Time";
    const FORM: Form = Form::Text(r"^[0-9_.eE+-]+ *(ns|us|ms|s|min|h|d)$");

    fn read(text: &str) -> Result<Span, String> {
        exact(text, &TIMES, Self::WHAT).map(Span)
    }

    fn to_base(self) -> f64 {
        self.0 as f64
    }

    fn from_base(base: f64) -> Span {
        Span(base.round() as u64)
    }
}

impl Quantity for Rate {
    const WHAT: &'static str = r#"a rate such as "1 Gbit/s" or "125 MB/s" (units: bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s)"#;
    const NAME: &'static str = "Rate";
    const FORM: Form = Form::Text(r"^[0-9_.eE+-]+ *([kMGT]?bit|[kMGT]?B|[KMGT]iB)/s$");

    fn read(text: &str) -> Result<Rate, String> {
        let (number, factor) = factor(text, &RATES, Self::WHAT)?;
        finite(number * factor, text).map(Rate)
    }

    fn to_base(self) -> f64 {
        self.0
    }

    fn from_base(base: f64) -> Rate {
        Rate(base)
    }
}

impl Quantity for PageRate {
    const WHAT: &'static str = r#"a page rate such as "20000 pages/s" or "80 MB/s" (units: pages/s, B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s)"#;
    const NAME: &'static str = "PageRate";
    const FORM: Form = Form::Text(r"^[0-9_.eE+-]+ *(pages|[kMGT]?B|[KMGT]iB)/s$");

    fn read(text: &str) -> Result<PageRate, String> {
        let (number, factor) = factor(text, &PAGE_RATES, Self::WHAT)?;
        // The page size is a power of two: neither the product nor the quotient rounds for `pages/s`, and a byte rate rounds once.
        finite(number * factor / PAGE_SIZE as f64, text).map(PageRate)
    }

    fn to_base(self) -> f64 {
        self.0
    }

    fn from_base(base: f64) -> PageRate {
        PageRate(base)
    }
}

impl Quantity for Count {
    const WHAT: &'static str = "a whole number from 0 to 4294967295";
    const NAME: &'static str = "Count";
    const FORM: Form = Form::Whole;

    fn read(text: &str) -> Result<Count, String> {
        text.trim().parse().map(Count).map_err(|_| format!("`{text}` is not {}", Self::WHAT))
    }

    fn bare(number: Number) -> Option<Count> {
        match number {
            Number::Whole(n) => u32::try_from(n).ok().map(Count),
            Number::Real(_) => None,
        }
    }

    fn to_base(self) -> f64 {
        f64::from(self.0)
    }

    fn from_base(base: f64) -> Count {
        Count(base.round() as u32)
    }
}

impl Quantity for Fraction {
    const WHAT: &'static str = "a number from 0 to 1";
    const NAME: &'static str = "Fraction";
    const FORM: Form = Form::Share;

    fn read(text: &str) -> Result<Fraction, String> {
        let number = decimal(text.trim()).ok().map(Decimal::to_f64).filter(|x| *x <= 1.0);
        number.map(Fraction).ok_or_else(|| format!("`{text}` is not {}", Self::WHAT))
    }

    fn bare(number: Number) -> Option<Fraction> {
        Some(Fraction(number.real())).filter(|f| (0.0..=1.0).contains(&f.0))
    }

    fn to_base(self) -> f64 {
        self.0
    }

    fn from_base(base: f64) -> Fraction {
        Fraction(base.clamp(0.0, 1.0))
    }
}

impl Quantity for Positive {
    const WHAT: &'static str = "a number above 0";
    const NAME: &'static str = "Positive";
    const FORM: Form = Form::AboveZero;

    fn read(text: &str) -> Result<Positive, String> {
        let number = decimal(text.trim()).ok().map(Decimal::to_f64).filter(|x| x.is_finite() && *x > 0.0);
        number.map(Positive).ok_or_else(|| format!("`{text}` is not {}", Self::WHAT))
    }

    fn bare(number: Number) -> Option<Positive> {
        Some(Positive(number.real())).filter(|p| p.0.is_finite() && p.0 > 0.0)
    }

    fn to_base(self) -> f64 {
        self.0
    }

    fn from_base(base: f64) -> Positive {
        Positive(base)
    }
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Real(x) => x,
        }
    }
}

/// A decimal number that is not negative: `digits` x 10^-`scale`.
#[derive(Clone, Copy, Debug)]
struct Decimal<'a> {
    text: &'a str,
    digits: u128,
    scale: i32,
}

impl Decimal<'_> {
    /// The nearest floating-point number.
    fn to_f64(self) -> f64 {
        if self.text.contains('_') { self.text.replace('_', "").parse() } else { self.text.parse() }
            .expect("a decimal number is a floating-point number")
    }

    /// The whole number nearest to `self` x `unit`; `None` when it does not fit.
    fn scaled(self, unit: u128) -> Option<u64> {
        let product = self.digits.checked_mul(unit)?;
        let power = 10_u128.checked_pow(self.scale.unsigned_abs());
        let value = if self.scale <= 0 {
            if product == 0 { 0 } else { product.checked_mul(power?)? }
        } else {
            // Beyond 38 places what is left is below half a unit.
            power.map_or(0, |p| product / p + u128::from(product % p >= p.div_ceil(2)))
        };
        u64::try_from(value).ok()
    }
}

/// Most digits that a number may have.
const MAX_DIGITS: usize = 30;

/// Reads `12`, `1_000`, `0.5`, `2.5e3`; no sign except in the exponent.
fn decimal(text: &str) -> Result<Decimal<'_>, String> {
    let bad = || format!("`{text}` is not a number of at most {MAX_DIGITS} digits, not negative");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().ok().filter(|e| (-300..=300).contains(e)).ok_or_else(bad)?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: u128 = 0;
    let (mut seen, mut scale) = (0, 0);
    for (c, places) in whole.bytes().map(|c| (c, 0)).chain(part.bytes().map(|c| (c, 1))) {
        match c {
            b'0'..=b'9' => {
                digits = digits * 10 + u128::from(c - b'0');
                seen += 1;
                scale += places;
            }
            b'_' if seen > 0 => {}
            _ => return Err(bad()),
        }
        if seen > MAX_DIGITS {
            return Err(bad());
        }
    }
    if seen == 0 || (mantissa.contains('.') && (whole.is_empty() || part.is_empty())) {
        Err(bad())
    } else {
        Ok(Decimal { text, digits, scale: scale - exponent })
    }
}

/// Splits a quantity into its number and its unit.
fn number_and_unit<'a>(text: &'a str, what: &str) -> Result<(&'a str, &'a str), String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative; expected {what}"));
    }
    let after_number = |(at, c): (usize, char)| {
        let exponent = (c == 'e' || c == 'E') && text[at + 1..].starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+');
        let sign = (c == '-' || c == '+') && text[..at].ends_with(['e', 'E']);
        !(c.is_ascii_digit() || c == '.' || c == '_' || exponent || sign)
    };
    let end = text.char_indices().find(|&x| after_number(x)).map_or(text.len(), |(at, _)| at);
    let (number, unit) = (&text[..end], text[end..].trim_start());
    if number.is_empty() {
        return Err(format!("`{text}` does not begin with a number; expected {what}"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit; expected {what}"));
    }
    Ok((number, unit))
}

fn find_unit<T: Copy>(unit: &str, units: &[(&'static str, T)], what: &str) -> Result<T, String> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, t)| *t).ok_or_else(|| {
        let near = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let hint = near.map_or(String::new(), |(name, _)| format!(" (did you mean `{name}`?)"));
        format!("unknown unit `{unit}`{hint}; expected {what}")
    })
}

fn exact(text: &str, units: &[(&'static str, u128)], what: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text, what)?;
    let unit = find_unit(unit, units, what)?;
    decimal(number)?.scaled(unit).ok_or_else(|| format!("`{}` is too large", text.trim()))
}

fn factor(text: &str, units: &[(&'static str, f64)], what: &str) -> Result<(f64, f64), String> {
    let (number, unit) = number_and_unit(text, what)?;
    let factor = find_unit(unit, units, what)?;
    Ok((decimal(number)?.to_f64(), factor))
}

fn finite(x: f64, text: &str) -> Result<f64, String> {
    if x.is_finite() { Ok(x) } else { Err(format!("`{}` is too large", text.trim())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_read_exactly() {
        assert_eq!(Bytes::read("5 GiB"), Ok(Bytes::from_gib(5)));
        assert_eq!(Bytes::read("4000MB"), Ok(Bytes(4_000_000_000)));
        assert_eq!(Bytes::read("0.1 kB"), Ok(Bytes(100)));
        assert_eq!(Bytes::read("1e12 B"), Ok(Bytes(1_000_000_000_000)));
        assert_eq!(Bytes::read("1_000 B"), Ok(Bytes(1000)));
        assert_eq!(Bytes::read("0.00049 kB"), Ok(Bytes(0)));
        assert_eq!(Bytes::read("0.0005 kB"), Ok(Bytes(1)));
        assert_eq!(Span::read("250 us"), Ok(Span(250_000)));
        assert_eq!(Span::read("0.3 s"), Ok(Span(300_000_000)));
        assert_eq!(Span::read("1.5e-3 ms"), Ok(Span(1_500)));
        assert_eq!(Rate::read("1 Gbit/s"), Ok(Rate(125e6)));
        assert_eq!(Rate::read("131 Mbit/s"), Ok(Rate(16_375_000.0)));
        assert_eq!(PageRate::read("20000 pages/s"), Ok(PageRate(20_000.0)));
        assert_eq!(PageRate::read("100 MB/s"), Ok(PageRate(100e6 / 4096.0)));
        assert_eq!(Fraction::read("0.25"), Ok(Fraction(0.25)));
    }

    #[test]
    fn the_written_form_is_the_shortest_exact_one() {
        assert_eq!(written_size(Bytes::from_mib(256)), "256 MiB");
        assert_eq!(written_size(Bytes(1_000_000_000_000)), "1 TB");
        assert_eq!(written_size(Bytes(4097)), "4097 B");
        assert_eq!(written_size(Bytes(0)), "0 B");
        assert_eq!(written_time(Span::from_secs(7200)), "2 h");
        assert_eq!(written_time(Span(1_500)), "1500 ns");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |r: Result<Bytes, String>| r.unwrap_err();
        assert!(message(Bytes::read("5")).starts_with("`5` has no unit; expected a size such as"));
        assert!(message(Bytes::read("5 gib")).starts_with("unknown unit `gib` (did you mean `GiB`?)"));
        assert!(message(Bytes::read("-5 GiB")).contains("negative"));
        assert!(message(Bytes::read("NaN GiB")).contains("does not begin with a number"));
        assert!(message(Bytes::read("1e30 PiB")).contains("too large"));
        assert!(message(Bytes::read("1.2.3 B")).contains("not a number"));
        assert!(message(Bytes::read("")).contains("does not begin"));
        assert!(Rate::read("1e300 TB/s").is_err());
        assert!(Fraction::read("1.5").is_err());
        assert!(Positive::read("0").is_err());
        assert!(Count::read("-1").is_err());
    }

    proptest! {
        #[test]
        fn sizes_round_trip(n in 0_u64..1 << 50, unit in 0_usize..SIZES.len()) {
            let (name, factor) = SIZES[unit];
            let expected = u64::try_from(u128::from(n) * factor).ok().map(Bytes);
            let read = Bytes::read(&format!("{n} {name}")).ok();
            prop_assert_eq!(read, expected);
            if let Some(size) = read {
                prop_assert_eq!(Bytes::read(&written_size(size)), Ok(size));
            }
        }

        #[test]
        fn times_round_trip(ns in 0_u64..1 << 62) {
            let text = format!("{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000);
            prop_assert_eq!(Span::read(&text), Ok(Span(ns)));
            prop_assert_eq!(Span::read(&written_time(Span(ns))), Ok(Span(ns)));
        }

        #[test]
        fn page_rates_give_the_byte_rate_back(mb in 0.0_f64..1e9) {
            let PageRate(pages) = PageRate::read(&format!("{mb} MB/s")).unwrap();
            let bytes = mb * 1e6;
            prop_assert!((pages * PAGE_SIZE as f64 - bytes).abs() <= 1e-15 * bytes);
        }

        #[test]
        fn nothing_that_is_written_panics(text in "[0-9eE+._ kMGiBbts/-]{0,12}|\\PC{0,12}") {
            let _ = (Bytes::read(&text), Span::read(&text), Rate::read(&text), PageRate::read(&text));
            let _ = (Count::read(&text), Fraction::read(&text), Positive::read(&text));
        }
    }
}
