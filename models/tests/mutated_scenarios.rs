//! Damaged scenario files are refused with a message or read, and never crash: shipped scenarios with bytes, lines and values changed
//! at random. `LIVEMIG_FUZZ_CASES` sets how many; a failure prints the text that caused it.

use livemig_models::scenario;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

const DEFAULT_CASES: u64 = 800;

/// Values that have a way of ending up where they are not expected.
const NASTY: [&str; 22] = [
    "0",
    "-1",
    "\"\"",
    "\"0 B\"",
    "\"1e308 GiB\"",
    "\"-5 GiB\"",
    "\"NaN Gbit/s\"",
    "\"inf Gbit/s\"",
    "18446744073709551616",
    "\"9999999999 TiB\"",
    "\"{i/0}\"",
    "\"{9223372036854775807+1}\"",
    "\"{((((((((i))))))))}\"",
    "[]",
    "{}",
    "[[]]",
    "true",
    "1e400",
    "nan",
    "\"\\u0000\"",
    "1979-05-27",
    "\"0.0000000001 pages/s\"",
];

fn mutate(text: &str, rng: &mut Pcg64Mcg) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..lines.len());
        match rng.random_range(0..6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[rng.random_range(0..lines.len())].clone()),
            2 => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", NASTY[rng.random_range(0..NASTY.len())]);
                }
            }
            3 => {
                let mut bytes = lines[at].clone().into_bytes();
                if !bytes.is_empty() {
                    let i = rng.random_range(0..bytes.len());
                    bytes[i] = rng.random_range(0..=255);
                }
                lines[at] = String::from_utf8_lossy(&bytes).into_owned();
            }
            4 => {
                let digits: Vec<usize> = lines[at].match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
                if !digits.is_empty() {
                    let i = digits[rng.random_range(0..digits.len())];
                    lines[at].replace_range(i..=i, &rng.random_range(0..1_000_000u32).to_string());
                }
            }
            _ => {
                let keep = lines[at].char_indices().map(|(i, _)| i).nth(rng.random_range(0..40)).unwrap_or(lines[at].len());
                lines[at].truncate(keep);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

fn shipped() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios");
    let mut found = Vec::new();
    for folder in ["examples", "papers", "validation"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((root.join(folder), text));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn damaged_scenarios_are_refused_or_read() {
    let cases = std::env::var("LIVEMIG_FUZZ_CASES").ok().map_or(DEFAULT_CASES, |n| n.parse().unwrap());
    let shipped = shipped();
    let (mut refused, mut read) = (0, 0);
    for seed in 0..cases {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let (dir, text) = &shipped[rng.random_range(0..shipped.len())];
        let damaged = mutate(text, &mut rng);
        match catch_unwind(|| scenario::parse(&damaged, dir, "damaged.toml").map_err(|e| e.to_string())) {
            Ok(Ok(_)) => read += 1,
            Ok(Err(message)) => {
                assert!(message.starts_with("damaged.toml"), "the message names no file: {message}");
                refused += 1;
            }
            Err(_) => panic!("seed {seed} crashes:\n{damaged}"),
        }
    }
    println!("{refused} refused, {read} read");
    assert!(refused > cases / 4 && read > 0, "{refused} refused, {read} read: the damage is of no use");
}
