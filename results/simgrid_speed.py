#!/usr/bin/env python3
"""Runs SimGrid and livemig in turn on the same fleets and writes how they compare to results/validation/simgrid-speed.csv.

usage: results/simgrid_speed.py [--livemig PROGRAM] [--quick] [--pairs N,N,N] [--out FILE]

Whole processes are compared, with the reading of the scenario and the writing of every VM's results: A B A B, so that what else the
machine does meets both. A ratio is the median of the ratios of the pairs, and stands beside the lowest and the highest of them; seconds
and memory are medians. `cpu` is user and system time, which a loaded machine disturbs less than time on the wall. The total time of
each VM must be the same to 1e-6. Ends with 1 when that, or what is required, does not hold.

--quick runs the first case only, in which SimGrid takes seconds, and writes nothing. --pairs says how many pairs of runs (one of
SimGrid, one of livemig) each of the cases below gets, in their order, such as 15,5,3, which is the default; 0 leaves a case out. The
growth of livemig's own time is measured in 15 pairs of runs whatever --pairs says. The file is written anew after every case, so that a run
that is cut off keeps the cases that it has finished.

Needs libsimgrid-dev, g++ and GNU time (Debian: libsimgrid-dev g++ time). Takes 15 minutes, most of it SimGrid's.
"""

import argparse
import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import reference

ROOT = reference.ROOT
OUT = ROOT / "results" / "validation" / "simgrid-speed.csv"
BANDWIDTH, MEMORY = 1250, 4000  # MB/s, MB
# Hosts, VMs per source, dirty rate in MB/s, mode, pairs of runs, the ratio that is required.
CASES = [(200, 10, 20, "rnd", 15, 50), (2000, 10, 100, "het", 5, 50), (2000, 10, 20, "rnd", 3, 200)]
MOST_MEGABYTES = 100
# From 1,000 to 10,000 migrations in `rnd`: pairs of runs, and the growth of the time that is allowed.
GROWTH_PAIRS, MOST_GROWTH = 15, 15
STEP = {"rnd": 'table = "{name}.csv"', "het": "count = {vms}"}
VALUES = {
    "rnd": '''to = "dst{{destination}}"
memory = "{{memory}} B"
workload = {{ kind = "sequential", working_set = "{{working_set}} B", writes = "{{dirty}} B/s" }}''',
    "het": '''to = "dst{{(i/{per_source} + i%{per_source}) % {sources}}}"
memory = "{{4000 + 500*(i%7)}} MB"
workload = {{ kind = "sequential", working_set = "{{3600 + 450*(i%7)}} MB", writes = "{{{dirty}*(500 + 125*(i%5))}} kB/s" }}''',
}
SCENARIO = '''schema = 1
name = "{name}"
calibration = "ideal"

[[host]]
count = {sources}
name = "src{{i}}"
nics = [{{ rate = "1250 MB/s" }}]
cores = {cores}

[[host]]
count = {sources}
name = "dst{{i}}"
nics = [{{ rate = "1250 MB/s" }}]
cores = {cores}

[[vm]]
{step}
name = "vm{{i}}"
host = "src{{i/{per_source}}}"
{values}

[migrate]
strategies = [{{ name = "simgrid", preset = "pre-copy", stop = {{ rule = "simgrid" }}, skip_redirtied = false }}]
'''


def scenario(folder, hosts, per_source, dirty, mode):
    """Writes the scenario of a fleet; returns its path."""
    sources = hosts // 2
    name = f"{hosts}x{per_source}-{mode}"
    fill = {"name": name, "sources": sources, "per_source": per_source, "cores": per_source + 1, "vms": sources * per_source,
            "dirty": dirty}
    text = SCENARIO.format(step=STEP[mode].format(**fill), values=VALUES[mode].format(**fill), **fill)
    (folder / f"{name}.toml").write_text(text)
    if mode == "rnd":
        (folder / f"{name}.csv").write_text(reference.fleet_table(hosts, per_source, dirty * 1e6))
    return folder / f"{name}.toml"


def measured(command, folder):
    """Runs a program; returns seconds, CPU seconds, megabytes at the peak, and what it wrote."""
    output, peak = folder / "output", folder / "peak"
    with open(output, "wb") as out:
        started = time.perf_counter()
        # A child of this process would inherit its peak; one of the small program `time` does not.
        process = subprocess.Popen(["time", "-q", "-o", peak, "-f", "%M", *command], stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return elapsed, usage.ru_utime + usage.ru_stime, int(peak.read_text()) * 1024 / 1e6, output.read_text()


def totals_of_simgrid(text):
    return [float(words[7]) for words in map(str.split, text.splitlines()) if words[0] == "VM"]


def totals_of_livemig(text):
    return [float(row["total_migration_time_s"]) for row in csv.DictReader(io.StringIO(text)) if row["vm"] != "*"]


def largest_deviation(theirs, ours):
    """The largest relative deviation. SimGrid's program writes six decimals, which is that much off already."""
    assert len(theirs) == len(ours) > 0
    return max(max(abs(o - t) - 5e-7, 0.0) / t for t, o in zip(theirs, ours))


def spread(ratios):
    """Median, lowest and highest."""
    return statistics.median(ratios), min(ratios), max(ratios)


def case(simgrid, livemig, folder, hosts, per_source, dirty, mode, pairs):
    """One row, without growth."""
    path = scenario(folder, hosts, per_source, dirty, mode)
    load = os.getloadavg()[0]
    theirs, ours, deviation = [], [], 0.0
    for pair in range(pairs):
        arguments = [str(n) for n in (hosts, per_source, MEMORY, dirty, BANDWIDTH)]
        theirs.append(measured([simgrid, *arguments, mode, "1", "--cfg=contexts/guard-size:0", "--cfg=contexts/stack-size:16"], folder))
        ours.append(measured([livemig, "run", "--format", "csv", path], folder))
        deviation = max(deviation, largest_deviation(totals_of_simgrid(theirs[-1][3]), totals_of_livemig(ours[-1][3])))
        print(f"{path.stem}, pair {pair + 1} of {pairs}: {theirs[-1][0]:.2f} s, {ours[-1][0]:.3f} s", file=sys.stderr)
    wall, low, high = spread([t[0] / o[0] for t, o in zip(theirs, ours)])
    cpu = spread([t[1] / o[1] for t, o in zip(theirs, ours)])
    middle = lambda runs, what: statistics.median(run[what] for run in runs)  # noqa: E731
    return {
        "arguments": f"{hosts} {per_source} {MEMORY} {dirty} {BANDWIDTH} {mode}",
        "migrations": hosts // 2 * per_source,
        "pairs": pairs,
        "simgrid_s": f"{middle(theirs, 0):.3f}",
        "livemig_s": f"{middle(ours, 0):.4f}",
        "ratio": f"{wall:.0f}",
        "ratio_low": f"{low:.0f}",
        "ratio_high": f"{high:.0f}",
        "simgrid_cpu_s": f"{middle(theirs, 1):.3f}",
        "livemig_cpu_s": f"{middle(ours, 1):.4f}",
        "cpu_ratio": f"{cpu[0]:.0f}",
        "cpu_ratio_low": f"{cpu[1]:.0f}",
        "cpu_ratio_high": f"{cpu[2]:.0f}",
        "simgrid_MB": f"{middle(theirs, 2):.1f}",
        "livemig_MB": f"{middle(ours, 2):.1f}",
        "largest_total_deviation": f"{deviation:.1e}",
        "load": f"{load:.1f}",
    }


def growth(livemig, folder):
    """By how much livemig takes longer for ten times the migrations."""
    small, large = (scenario(folder, hosts, 10, 20, "rnd") for hosts in (200, 2000))
    pairs = [[measured([livemig, "run", "--format", "csv", path], folder) for path in (small, large)] for _ in range(GROWTH_PAIRS)]
    (wall, low, high), (cpu, _, _) = (spread([b[what] / a[what] for a, b in pairs]) for what in (0, 1))
    return {"growth": f"{wall:.1f}", "growth_low": f"{low:.1f}", "growth_high": f"{high:.1f}", "cpu_growth": f"{cpu:.1f}"}


def machine():
    """The machine, by what matters for speed."""
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    kilobytes = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    kernel = ".".join(os.uname().release.split(".")[:2])
    return f"{model}, {os.cpu_count()} cores, {kilobytes * 1024 / 1e9:.0f} GB, Linux {kernel}"


def version(command, word):
    """The word after `word` in what a program says of itself."""
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return words[words.index(word) + 1]


def pairs_of(text):
    """The numbers of `--pairs`."""
    pairs = [int(n) for n in text.split(",")]
    if len(pairs) != len(CASES) or min(pairs) < 0 or max(pairs) == 0:
        raise argparse.ArgumentTypeError(f"one number per case, {len(CASES)} in all, not all of them 0")
    return pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--livemig", default=str(ROOT / "target" / "release" / "livemig"), help="the program")
    parser.add_argument("--quick", action="store_true", help="only the first case; writes nothing")
    parser.add_argument("--pairs", type=pairs_of, default=[c[4] for c in CASES], help="pairs of runs of each case, such as 15,5,3")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simgrid = folder / "mig_bench"
        source = ROOT / "validation" / "simgrid" / "mig_bench.cpp"
        subprocess.run(["g++", "-O2", "-std=c++17", source, "-lsimgrid", "-o", simgrid], check=True)
        about = {
            "simgrid": version([simgrid, "--version"], "version"),
            "livemig": version([args.livemig, "--version"], "livemig"),
            "machine": machine(),
            "date": date.today().isoformat(),
        }
        cases = list(zip(CASES, args.pairs, strict=True))[: 1 if args.quick else None]
        grown = growth(args.livemig, folder)
        rows, failures, text = [], [], ""
        for (hosts, per_source, dirty, mode, _, required), pairs in cases:
            if pairs == 0:
                continue
            row = case(simgrid, args.livemig, folder, hosts, per_source, dirty, mode, pairs)
            row |= grown if (hosts, mode) == (2000, "rnd") else dict.fromkeys(grown, "")
            rows.append(row | {"required_ratio": required} | about)
            checks = {
                f"less than {required} times faster": float(row["ratio"]) >= required,
                f"more than {MOST_MEGABYTES} MB": float(row["livemig_MB"]) <= MOST_MEGABYTES,
                "total times deviate": float(row["largest_total_deviation"]) <= 1e-6,
            }
            failures += [f"{row['arguments']}: {what}" for what, holds in checks.items() if not holds]
            text = reference.table(rows[0].keys(), [row.values() for row in rows])
            if not args.quick:
                args.out.write_text(text)
        if float(grown["growth"]) > MOST_GROWTH:
            failures.append(f"ten times the migrations take {grown['growth']} times as long")

    print(text + "\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
