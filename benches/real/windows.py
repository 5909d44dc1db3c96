#!/usr/bin/env python3
"""Migrates a real guest of 1 GiB with its memory mapped once and with a window mapped per task, in turn, and writes how they compare.

usage: benches/real/windows.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

PMigrate's tasks over several streams: with range locks (no thread waits for another's mapping, which memory that is mapped once comes
to) and without (every thread maps and unmaps what it sends, under the kernel's lock of the address space, from memory in a file, in pages
of 4 KiB; memory that is mapped once is anonymous and may have huge ones). Pairs are interleaved. Quoted are the median of the ratios of
the pairs with an interval for it (order statistics, at least 95 %), and medians of total times.
PMigrate's paper has 2.06 to 3.05 for range locks, on Xen. Every byte is verified.

Needs KVM. Takes about ten seconds per pair.
"""

from common import HOT, IDLE, interval, livemig, median, say, table_of

# Name, streams, the workload.
CASES = [
    ("4 streams, idle", 4, IDLE),
    ("4 streams, 256 MiB hot", 4, HOT),
    ("2 streams, idle", 2, IDLE),
]


def windows(args, name, streams, workload):
    once, per_task = [], []
    for pair in range(args.pairs):
        for locks, runs in (("true", once), ("false", per_task)):
            options = f"streams = {streams}, range_lock = {locks}, "
            runs.append(livemig(args.livemig, "pmigrate", options, workload))
        say(f"{name}, pair {pair + 1} of {args.pairs}: " + ", ".join(f"{r[-1]['total_migration_time_s']:.3f} s" for r in (once, per_task)))
    middle, low, high = interval([b["total_migration_time_s"] / a["total_migration_time_s"] for a, b in zip(once, per_task)])
    return {
        "case": name, "pairs": args.pairs, "mapped_once_total_s": median(once, "total_migration_time_s"),
        "mapped_per_task_total_s": median(per_task, "total_migration_time_s"), "ratio": f"{middle:.3f}", "ratio_low": f"{low:.3f}",
        "ratio_high": f"{high:.3f}",
    }  # fmt: skip


if __name__ == "__main__":
    table_of(__doc__, "real-windows.csv", 15, "pairs of runs", CASES, windows)
