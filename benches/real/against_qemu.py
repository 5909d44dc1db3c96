#!/usr/bin/env python3
"""Migrates a real guest of 1 GiB with livemig and with QEMU in turn, over loopback, and writes how they compare.

usage: benches/real/against_qemu.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

Pairs are interleaved, A B A B, so that what else the machine does meets both. Quoted are the median of the ratios of the pairs with an
interval for it (order statistics, at least 95 %), and medians of the times. Every byte of livemig's guests is verified; nothing is left
out of what is sent, and no page is equal to another.

Needs KVM, qemu-system-x86, gcc and binutils (Debian: qemu-system-x86 gcc binutils). Takes about half a minute per pair.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QEMU = ROOT / "validation" / "qemu"
OUT = ROOT / "results" / "validation" / "qemu-pairs.csv"
HOT = 'workload = { kind = "sequential", working_set = "256 MiB", writes = "100000000 pages/s" }'
QEMU_RULE = 'stop = { rule = "qemu", downtime_limit = "300 ms" }, '
# Name, livemig's preset and options, QEMU's strategy, whether the guest writes, and the ratio of total times that is required.
CASES = [
    ("pre-copy, idle", "pre-copy", QEMU_RULE, "precopy", False, 0.8),
    ("pre-copy, 256 MiB hot", "pre-copy", QEMU_RULE, "precopy", True, 0.6),
    ("post-copy, idle", "post-copy", "", "postcopy", False, 0.6),
    ("post-copy, 256 MiB hot", "post-copy", "", "postcopy", True, 0.6),
]
SCENARIO = '''schema = 1
name = "{name}"
[[host]]
name = "src"
nics = [{{ rate = "10 Gbit/s" }}]
[[host]]
name = "dst"
nics = [{{ rate = "10 Gbit/s" }}]
[[vm]]
name = "vm1"
host = "src"
memory = "1 GiB"
{workload}
[migrate]
to = "dst"
at = "1 s"
strategies = [{{ name = "s", preset = "{preset}", {options}elide_zero_pages = false }}]
'''


def livemig(program, folder, preset, options, hot):
    """One migration: total time and the longest gap that the guest saw, in seconds; its QEMU counterparts are named alike."""
    path = folder / "scenario.toml"
    path.write_text(SCENARIO.format(name=preset, workload=HOT if hot else "", preset=preset, options=options))
    run = subprocess.run([program, "exec", "--lead", "1s", "-o", folder / "out", path], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"livemig ended with {run.returncode}: {run.stdout[-500:]} {run.stderr[-500:]}")
    with open(folder / "out" / "metrics.csv") as rows:
        row = next(csv.DictReader(rows))
    return float(row["total_migration_time_s"]), float(row["guest_gap_s"] or "nan"), float(row["downtime_s"])


def qemu(strategy, hot):
    command = [sys.executable, QEMU / "qbench.py", "--accel", "kvm", "--strategy", strategy, "--ws", "256" if hot else "0"]
    run = subprocess.run([*command, "--bw", "0", "--downtime", "300"], capture_output=True, text=True, check=True)
    result = json.loads(run.stdout)
    if result.get("status") != "completed":
        return None
    gap = max([result.get("hb_gap_ms") or math.nan, *result.get("hb_after_worst_gaps_ms", [])[:1]])
    return result["total_ms"] / 1e3, gap / 1e3, result["downtime_ms"] / 1e3


def interval(values):
    """Median, and order statistics between which it is with at least 95 %."""
    ordered, n = sorted(values), len(values)
    below, chance = 0, 0.5**n
    while below < n // 2 and chance <= 0.025:
        below += 1
        chance += math.comb(n, below) * 0.5**n
    low = max(below - 1, 0) if chance > 0.025 else below
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    kilobytes = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return f"{model}, {os.cpu_count()} cores, {kilobytes * 1024 / 1e9:.0f} GB, Linux {'.'.join(os.uname().release.split('.')[:2])}"


def case(program, folder, pairs, name, preset, options, strategy, hot, required):
    ours, theirs = [], []
    while len(ours) < pairs:
        them = qemu(strategy, hot)
        us = livemig(program, folder, preset, options, hot)
        if them:
            ours.append(us)
            theirs.append(them)
        print(f"{name}, pair {len(ours)} of {pairs}: {us[0]:.3f} s, QEMU {them and them[0]} s", file=sys.stderr)
    ratio, low, high = interval([o[0] / t[0] for o, t in zip(ours, theirs)])
    middle = lambda runs, what: f"{statistics.median(run[what] for run in runs):.4f}"  # noqa: E731
    return {
        "case": name, "pairs": pairs, "livemig_total_s": middle(ours, 0), "qemu_total_s": middle(theirs, 0),
        "ratio": f"{ratio:.3f}", "ratio_low": f"{low:.3f}", "ratio_high": f"{high:.3f}", "required_ratio": required,
        "livemig_downtime_s": middle(ours, 2), "qemu_reported_downtime_s": middle(theirs, 2),
        "livemig_guest_gap_s": middle(ours, 1), "livemig_guest_gap_max_s": f"{max(o[1] for o in ours):.4f}",
        "qemu_guest_gap_s": "" if math.isnan(theirs[0][1]) else middle(theirs, 1),
        "machine": machine(), "date": date.today().isoformat(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--livemig", default=str(ROOT / "target" / "release" / "livemig"), help="the program")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs per case")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    args = parser.parse_args()
    if not (QEMU / "guest.bin").exists():
        subprocess.run(["sh", QEMU / "build.sh"], check=True, stdout=subprocess.DEVNULL)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for each in CASES:
            if args.case and each[0] not in args.case:
                continue
            rows.append(case(args.livemig, Path(name), args.pairs, *each))
            # After every case, so that nothing is lost.
            with open(args.out, "w", newline="") as out:
                writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    print(args.out.read_text(), end="")


if __name__ == "__main__":
    main()
