#!/usr/bin/env python3
"""Every strategy moves a real guest of 1 GiB over loopback, idle and with 256 MiB written without a pause; every byte is compared.

usage: benches/real/strategies.py [--livemig PROGRAM] [--case NAME ...] [--out FILE]

One migration each, at full speed. Then pre-copy over 1 Gbit/s of the guest that writes, which cannot converge: it ends by its stop rule,
either at the destination or, where the rule is to give up, at the source, where the guest runs on. Every byte of the guest is
compared where it is in the end: at the destination or, after an abort, at the source. Takes about eight minutes.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from common import HOT, IDLE, Table, arguments, number, say, seconds, wanted

HOSTS = """schema = 1
name = "strategies"
host = [
    { name = "src", nics = [{ rate = "40 Gbit/s" }] },
    { name = "dst", nics = [{ rate = "40 Gbit/s" }] },
    { name = "mid1", role = "intermediary", memory = "1 GiB", nics = [{ rate = "40 Gbit/s" }] },
    { name = "mid2", role = "intermediary", memory = "1 GiB", nics = [{ rate = "40 Gbit/s" }] },
]
[[vm]]
name = "vm1"
host = "src"
memory = "1 GiB"
"""
# Name, and a preset with options.
STRATEGIES = [
    ("stop-and-copy", 'preset = "stop-and-copy"'),
    ("pre-copy", 'preset = "pre-copy"'),
    ("post-copy", 'preset = "post-copy"'),
    ("hybrid", 'preset = "hybrid"'),
    ("scatter-gather", 'preset = "scatter-gather"'),
    ("scatter-gather, all through intermediaries", 'preset = "scatter-gather", scatter = { direct = false }'),
    ("scatter-gather, two copies", 'preset = "scatter-gather", scatter = { copies = 2 }'),
    ("quick-eviction", 'preset = "quick-eviction"'),
    ("quick-eviction, staged", 'preset = "post-copy", snapshots = "fixed", staging = true'),
    ("pmigrate, 4 streams", 'preset = "pmigrate", streams = 4, nics = 1'),
    ("cpu-scheduling", 'preset = "cpu-scheduling"'),
    ("auto-converge", 'preset = "auto-converge"'),
]
LIMIT = 'limit = "1 Gbit/s"'
ENDLESS = [
    ("pre-copy, 1 Gbit/s, Xen's rule", f'preset = "pre-copy", stop = "clark", {LIMIT}'),
    ("pre-copy, 1 Gbit/s, 5 rounds", f'preset = "pre-copy", stop = {{ rule = "fixed-rounds", rounds = 5 }}, {LIMIT}'),
    ("pre-copy, 1 Gbit/s, PMigrate's rule", f'preset = "pre-copy", stop = "pmigrate", {LIMIT}'),
    ("pre-copy, 1 Gbit/s, gives up", f'preset = "pre-copy", stop = {{ rule = "kubevirt", on_stall = ["abort"], progress_timeout = "10 s" }}, {LIMIT}'),
]  # fmt: skip
CASES = [(f"{name}, {load}", load, options) for load in ("idle", "hot") for name, options in STRATEGIES]
CASES += [(f"{name}, hot", "hot", options) for name, options in ENDLESS]


def run(program, load, options):
    """One migration: its row of metrics and what the manifest says of it. Exit code 1 is a migration that did not complete."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strategies.toml"
        migrate = '[migrate]\nto = "dst"\nat = "5 s"\nstrategies = [{ name = "s", elide_zero_pages = false, ' + options + " }]\n"
        path.write_text(HOSTS + (HOT if load == "hot" else IDLE) + "\n" + migrate)
        command = [program, "exec", "--lead", "5s", "-o", f"{folder}/out", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            sys.exit(f"livemig ended with {done.returncode}: {done.stdout[-800:]} {done.stderr[-800:]}")
        with open(f"{folder}/out/metrics.csv") as rows:
            row = next(csv.DictReader(rows))
        return row, json.loads(Path(f"{folder}/out/manifest.json").read_text())["migrations"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, "real-strategies.csv", 1, "runs")
    args = parser.parse_args()
    table = Table(args.out)
    for name, load, options in wanted(args, CASES):
        row, facts = run(args.livemig, load, options)
        say(f"{name}: {row['outcome']} in {row['total_migration_time_s']} s, {facts}")
        times = {f"{what}_s": float(row[f"{what}_s"] or math.nan) for what in ("eviction_time", "total_migration_time", "downtime", "guest_gap")}
        table.add({
            "case": name, "outcome": row["outcome"], "converged": row["converged"], "rounds": row["rounds"],
            "sent_mib": f"{number(row['bytes_total']) / (1 << 20):.0f}", **{what: seconds(value) for what, value in times.items()},
            "verification": facts["verification"],
        })  # fmt: skip
    table.show()


if __name__ == "__main__":
    main()
