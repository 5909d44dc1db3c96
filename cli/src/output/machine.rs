//! The machine that a result was made on, as far as Linux tells.

use serde_json::{Value, json};
use std::fs;

/// CPU model, cores, memory and kernel; what is not known is `null`.
pub(super) fn describe() -> Value {
    let read = |path| fs::read_to_string(path).ok();
    json!({
        "cpu": read("/proc/cpuinfo").as_deref().and_then(cpu_model),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "memory_bytes": read("/proc/meminfo").as_deref().and_then(memory_bytes),
        "kernel": read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        "architecture": std::env::consts::ARCH,
        "os": std::env::consts::OS,
    })
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_understood() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n").as_deref(), Some("A CPU @ 2 GHz"));
        assert_eq!(memory_bytes("MemTotal:       16000 kB\nMemFree: 1 kB\n"), Some(16_384_000));
        assert_eq!((cpu_model(""), memory_bytes("MemTotal: lots")), (None, None));
    }
}
