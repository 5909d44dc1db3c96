#!/usr/bin/env python3
"""Makes the reference results in this folder, or checks that they are still what livemig gives.

usage: results/reference.py [--check] [--livemig PROGRAM] [--simgrid PROGRAM]

Without options the files in results/papers/ and results/validation/ are written anew. With --check nothing is written; a line
that would change is shown and the exit code is 1. --simgrid runs the reference simulator beside livemig (its program is built
from validation/simgrid/mig_bench.cpp) instead of using what it gave when sim/tests/data/ was recorded.

Standard library only.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLEETS = [(20, 1, "het"), (20, 10, "het"), (200, 10, "het"), (20, 1, "rnd"), (20, 10, "rnd"), (200, 10, "rnd")]


def draw(i, k):
    """Splitmix64 of (i, k): the upper 53 bits as a number from 0 to 1, as the reference program draws it."""
    mask = (1 << 64) - 1
    z = ((i * 3 + k + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def fleet_table(hosts, per_source, dirty_rate=100e6):
    """The CSV from which the irregular fleets are made; `dirty_rate` in bytes per second."""
    sources = hosts // 2
    lines = ["memory,working_set,dirty,destination"]
    for i in range(sources * per_source):
        memory = int(4000e6 * (1 + draw(i, 0)))
        dirty = dirty_rate * (0.5 + draw(i, 1) / 2)
        lines.append(f"{memory},{int(memory * 0.9)},{dirty!r},{int(draw(i, 2) * sources)}")
    return "\n".join(lines) + "\n"


def livemig(program, scenario):
    """The rows of a scenario's metrics.csv."""
    path = ROOT / "scenarios" / f"{scenario}.toml"
    done = subprocess.run([program, "run", "--format", "csv", str(path)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: a migration did not complete, which some rows are about
        sys.exit(f"{scenario}: {done.stderr.strip()}")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def table(header, rows):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def papers(program):
    """Published figures beside ours: one file per paper, one chart per figure."""
    with tempfile.TemporaryDirectory() as out:
        command = [program, "reproduce", "--from", str(ROOT / "scenarios" / "papers"), "-o", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr.strip())
        return {f"results/papers/{path.name}": path.read_text() for path in Path(out).iterdir()}


def simgrid_grid(program):
    with open(ROOT / "sim" / "tests" / "data" / "simgrid-grid.csv", newline="") as f:
        reference = {(r["ram_MB"], float(r["dirty_MBps"]), r["bw_MBps"]): r for r in csv.DictReader(f)}
    rows = []
    for bandwidth, dirty in (("125", [0, 6.25, 25, 62.5, 100, 118.75]), ("1250", [0, 62.5, 250, 625, 1000, 1187.5])):
        points = [(m, d) for m in ("1024", "4096", "16384") for d in dirty]
        for r in livemig(program, f"validation/simgrid-grid-{bandwidth}"):
            memory, d = points[int(r["point"])]
            assert r["vm"] == f"vm{memory}", r
            ref = reference[(memory, d, bandwidth)]
            total, downtime = float(r["total_migration_time_s"]), float(r["downtime_s"])
            rows.append([memory, d, bandwidth, ref["total_s"], f"{total:.6f}", f"{abs(total / float(ref['total_s']) - 1):.1e}",
                         ref["downtime_s"], f"{downtime:.6f}", f"{abs(downtime - float(ref['downtime_s'])):.1e}"])
    assert len(rows) == 36
    header = ["memory_MB", "dirty_MBps", "bandwidth_MBps", "simgrid_total_s", "livemig_total_s", "total_deviation",
              "simgrid_downtime_s", "livemig_downtime_s", "downtime_deviation_s"]
    return table(header, rows)


def fleet_reference(simgrid, hosts, per_source, mode):
    """(total, downtime) per VM, recorded or measured now."""
    if simgrid is None:
        with open(ROOT / "sim" / "tests" / "data" / f"simgrid-{hosts}x{per_source}-{mode}.csv", newline="") as f:
            return [(float(r["total_s"]), float(r["downtime_s"])) for r in csv.DictReader(f)]
    command = [simgrid, str(hosts), str(per_source), "4000", "100", "1250", mode, "1",
               "--cfg=contexts/guard-size:0", "--cfg=contexts/stack-size:16"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(float(w[7]), float(w[9])) for w in map(str.split, lines) if w[0] == "VM"]


def simgrid_fleets(program, simgrid):
    rows = []
    for hosts, per_source, mode in FLEETS:
        ours = [r for r in livemig(program, f"validation/simgrid-fleet-{hosts}x{per_source}-{mode}") if r["vm"] != "*"]
        reference = fleet_reference(simgrid, hosts, per_source, mode)
        assert len(ours) == len(reference) == hosts // 2 * per_source
        total = max(abs(float(r["total_migration_time_s"]) / t - 1) for r, (t, _) in zip(ours, reference))
        downtime = max(abs(float(r["downtime_s"]) - d) for r, (_, d) in zip(ours, reference))
        rows.append([f"{hosts}x{per_source}", mode, len(ours), f"{total:.1e}", f"{downtime:.1e}"])
    return table(["fleet", "mode", "migrations", "largest_total_deviation", "largest_downtime_deviation_s"], rows)


# Total time in seconds as QEMU 7.2 measured it; None: it never converged.
QEMU = [("idle", "pre-copy", 8.317), ("hot", "pre-copy", None), ("hot", "post-copy", 8.276), ("hot", "hybrid", 10.404),
        ("hot", "auto-converge", 45.136)]


def qemu(program):
    runs = {(r["vm"], r["strategy"]): r for r in livemig(program, "validation/qemu-1gbit")}
    rows = []
    for vm, strategy, measured in QEMU:
        r = runs[(vm, strategy)]
        if measured is None:
            rows.append([vm, strategy, "never", r["outcome"], "", r["converged"]])
        else:
            ours = float(r["total_migration_time_s"])
            rows.append([vm, strategy, measured, f"{ours:.3f}", f"{ours / measured - 1:+.4f}", r["converged"]])
    return table(["guest", "strategy", "qemu_total_s", "livemig_total_s", "deviation", "converged"], rows)


def geometric_series(program):
    """Pre-copy at a constant dirty rate against its closed form."""
    points = [(d, t) for d in (0.0, 12.5e6, 50e6, 100e6, 118.75e6) for t in (0.03, 0.3)]
    memory, bandwidth, rows = 2.0**32, 125e6, []
    for r in livemig(program, "validation/geometric-series"):
        dirty, limit = points[int(r["point"])]
        ratio, n, rest = dirty / bandwidth, 0, memory
        while n == 0 or rest > bandwidth * limit:
            rest, n = rest * ratio, n + 1
        total = memory / bandwidth * (1 - ratio ** (n + 1)) / (1 - ratio)
        ours = float(r["total_migration_time_s"])
        rounds = n + (rest > 0)  # nothing is sent in the stopped round when nothing is left
        rows.append([f"{dirty / 1e6:g}", limit, rounds, r["rounds"], f"{total:.9f}", f"{ours:.9f}", f"{abs(ours / total - 1):.1e}"])
    header = ["dirty_MBps", "downtime_limit_s", "closed_form_rounds", "livemig_rounds", "closed_form_total_s", "livemig_total_s",
              "total_deviation"]
    return table(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a result has changed")
    parser.add_argument("--livemig", default=str(ROOT / "target" / "release" / "livemig"), help="the program")
    parser.add_argument("--simgrid", help="the reference simulator's program, to be run beside livemig")
    args = parser.parse_args()

    tables = {f"scenarios/validation/simgrid-fleet-{h}x{v}-rnd.csv": fleet_table(h, v) for h, v, m in FLEETS if m == "rnd"}
    if not args.check:
        for name, text in tables.items():
            (ROOT / name).write_text(text)
    files = tables | papers(args.livemig)
    files["results/validation/simgrid-grid.csv"] = simgrid_grid(args.livemig)
    files["results/validation/simgrid-fleets.csv"] = simgrid_fleets(args.livemig, args.simgrid)
    files["results/validation/qemu-1gbit.csv"] = qemu(args.livemig)
    files["results/validation/geometric-series.csv"] = geometric_series(args.livemig)

    changed = 0
    for path in (ROOT / "results" / "papers").iterdir():
        name = f"results/papers/{path.name}"
        if name not in files:
            changed += 1
            print(f"{name}: nothing makes this file")
            if not args.check:
                path.unlink()
    for name, text in sorted(files.items()):
        path = ROOT / name
        before = path.read_text().splitlines() if path.exists() else []
        after = text.splitlines()
        differing = [(o, n) for o, n in zip(before, after) if o != n]
        if differing and name.endswith(".svg"):
            changed += 1
            print(f"{name}: {len(differing)} lines of the chart differ")
            differing = []
        for old, new in differing:
            changed += 1
            print(f"{name}:\n  was {old}\n  is  {new}")
        if len(before) != len(after):
            changed += 1
            print(f"{name}: {len(before)} lines before, {len(after)} now")
        if not args.check:
            path.write_text(text)
    print(f"{len(files)} files, {changed} changes")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
