#!/usr/bin/env python3
"""A guest of 1 GiB that writes 256 MiB without a pause leaves over 1 Gbit/s, which only throttling makes possible: by livemig's CPU
scheduling, livemig's auto-converge and QEMU's auto-converge.

usage: benches/real/throttling.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

CPU scheduling aims at the rest in one round, with at least 2 % of the time for the guest. All stop when what remains takes at most 300 ms, and lift the limit while the guest stands still, as QEMU does. `work_lost_s` is work that
the guest did not do, in seconds of its unhindered speed, over the migration; QEMU's is not measured. Every byte of livemig's guests is
verified. Takes about two minutes per round of the three (`--pairs` rounds).
"""

import argparse
import math

from common import HOT, QEMU_RULE, Table, arguments, interval, livemig, median, qemu, say, seconds, wanted

LIMIT = QEMU_RULE + 'limit = "1 Gbit/s", unlimited_while_paused = true, '
MIN_SHARE = 0.02
# Name, livemig's preset and options (QEMU has none), and what is required.
CASES = [
    ("cpu-scheduling", "cpu-scheduling", LIMIT + f'throttle = {{ policy = "cpu-scheduling", min_share = {MIN_SHARE}, rounds = 1 }}, ',
     "total at most a third of QEMU's, work lost less than auto-converge's"),
    ("auto-converge", "auto-converge", LIMIT, ""),
    ("QEMU auto-converge", None, None, ""),
]  # fmt: skip


def run(args, preset, options):
    if preset:
        row = livemig(args.livemig, preset, options, HOT, at="5 s")
        return {"total": row["total_migration_time_s"], "lost": row["work_lost_s"], "gap": row["guest_gap_s"], "rounds": row["rounds"]}
    row = qemu("precopy-autoconv", True, bandwidth=125_000_000, timeout=180)
    return row and {"total": row["total"], "lost": math.nan, "gap": row["gap"], "rounds": math.nan}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, "real-throttling.csv", 3, "rounds")
    args = parser.parse_args()
    table, totals = Table(args.out), {}
    runs = {name: [] for name, *_ in wanted(args, CASES)}
    for turn in range(args.pairs):
        for name, preset, options, _ in wanted(args, CASES):
            row = run(args, preset, options)
            if row:
                runs[name].append(row)
            say(f"{name}, round {turn + 1} of {args.pairs}: {row}")
        for name, _, _, required in wanted(args, CASES):
            if not runs[name]:
                continue
            totals[name], low, high = interval([row["total"] for row in runs[name]])
            table.add({
                "case": name, "runs": len(runs[name]), "total_s": seconds(totals[name]), "total_low_s": seconds(low),
                "total_high_s": seconds(high), "work_lost_s": median(runs[name], "lost"), "guest_gap_s": median(runs[name], "gap"),
                "guest_gap_max_s": seconds(max(row["gap"] for row in runs[name])), "rounds": median(runs[name], "rounds").split(".")[0],
                "required": required,
            })  # fmt: skip
    table.show()


if __name__ == "__main__":
    main()
