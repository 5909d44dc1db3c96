#!/usr/bin/env python3
"""Holds class fidelity to page fidelity: makes results/validation/fidelity.csv, or checks it.

usage: results/fidelity.py [--check] [--worst N] [--livemig PROGRAM]

Every migration of scenarios/validation/fidelity.toml runs at both fidelities with the scenario's replicates; both values are means over
them, and standard_error is that of the page value as a share of it. What is so small that a few pages or faults decide has a floor.

With --check nothing is written, and the exit code is 1 when a line has changed. Standard library only.
"""

import argparse
import csv
import io
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = ROOT / "scenarios" / "validation" / "fidelity.toml"
RESULT = ROOT / "results" / "validation" / "fidelity.csv"
BANDWIDTHS = ["1 Gbit/s", "2.5 Gbit/s", "10 Gbit/s"]
WORKLOADS = ["idle", "uniform", "sequential", "hot-cold", "zipf", "phases", "read-mostly"]

# The largest deviation that counts as agreement.
TOLERANCE = {
    "eviction_time_s": 0.03,
    "total_migration_time_s": 0.03,
    "downtime_s": 0.03,
    "bytes_total": 0.03,
    "remote_faults": 0.15,
    "perceived_downtime_s": 0.15,
}
# Deviations are of the larger of the page value and this.
FLOOR = {"remote_faults": 100, "downtime_s": 0.01, "perceived_downtime_s": 0.01}


def runs(program, *options):
    """The metrics of every migration, one row per replicate, by (workload, strategy, bandwidth)."""
    command = [program, "run", "--format", "csv", *options, str(SCENARIO)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: a migration did not complete
        sys.exit(done.stderr.strip())
    found = {}
    for row in csv.DictReader(io.StringIO(done.stdout)):
        bandwidth, workload = divmod(int(row["point"]), len(WORKLOADS))
        if row["vm"] == WORKLOADS[workload]:
            found.setdefault((WORKLOADS[workload], row["strategy"], BANDWIDTHS[bandwidth]), []).append(row)
    return found


def compare(program):
    classes, pages = runs(program, "--fidelity", "class"), runs(program, "--fidelity", "page")
    rows = []
    for key in sorted(classes, key=lambda k: [WORKLOADS.index(k[0]), k[1], BANDWIDTHS.index(k[2])]):
        for quantity, tolerance in TOLERANCE.items():
            drawn = [row[quantity] for row in pages[key]]
            if "" in drawn:
                continue  # not defined for this strategy
            values = [float(v) for v in drawn]
            ours, mean = statistics.fmean(float(row[quantity]) for row in classes[key]), statistics.fmean(values)
            scale = max(mean, FLOOR.get(quantity, 0.0))
            deviation = (ours - mean) / scale if scale else 0.0
            error = statistics.stdev(values) / scale / len(values) ** 0.5 if scale else 0.0
            rows.append([*key, quantity, f"{ours:.6g}", f"{mean:.6g}", f"{deviation:+.4f}", f"{error:.4f}", tolerance])
    return rows


def report(rows, worst):
    for quantity, tolerance in TOLERANCE.items():
        these = [abs(float(r[6])) for r in rows if r[3] == quantity]
        inside = sum(d <= tolerance for d in these)
        print(f"{quantity:24} {inside:4} of {len(these)} within {tolerance:.0%}, largest {max(these):.1%}")
    inside = sum(abs(float(r[6])) <= r[8] for r in rows)
    print(f"{'all':24} {inside:4} of {len(rows)}: {inside / len(rows):.1%}")
    for r in sorted(rows, key=lambda r: -abs(float(r[6])) / r[8])[:worst]:
        print(" ", *r)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a result has changed")
    parser.add_argument("--worst", type=int, default=12, help="show so many of the worst rows")
    parser.add_argument("--livemig", default=str(ROOT / "target" / "release" / "livemig"), help="the program")
    args = parser.parse_args()

    rows = compare(args.livemig)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["workload", "strategy", "bandwidth", "quantity", "class", "page", "deviation", "standard_error", "tolerance"])
    writer.writerows(rows)
    report(rows, args.worst)
    if args.check:
        same = RESULT.exists() and RESULT.read_text() == out.getvalue()
        print("unchanged" if same else f"{RESULT.relative_to(ROOT)} has changed")
        return 0 if same else 1
    RESULT.write_text(out.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
