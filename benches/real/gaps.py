#!/usr/bin/env python3
"""How long guests of 1 GiB are away: many migrations, the longest interval between two of the guest's own time stamps in each.

usage: benches/real/gaps.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

- A guest that writes 256 MiB without a pause, under a limit of 300 ms: by pre-copy over all of the machine's bandwidth, and at 4 Gbit/s,
  where it converges only by throttling. The sleeps of throttling count.
- An idle guest by pre-copy, with the preset's own stop rule.
- Post-copy of the hot guest, and QEMU's beside it.

The baseline gap is what the machine does to the same guest without a migration. Every byte is verified. Takes about five seconds per
migration, and twice that where QEMU is compared. `--pairs 50` stands for 40 + 10 migrations under the limit, 50 of the idle guest, and 10 pairs.
"""

import math
import statistics

from common import HOT, IDLE, QEMU_RULE, livemig, median, qemu, quantile, say, seconds, table_of

LIMITED = QEMU_RULE + 'limit = "4 Gbit/s", '
# Name, preset, options, workload, share of --pairs that is run, QEMU's strategy beside it; and what is required of the gaps.
CASES = [
    ("pre-copy, 256 MiB hot, limit 300 ms", "pre-copy", QEMU_RULE, HOT, 0.8, None, "max <= 0.3"),
    ("cpu-scheduling, 256 MiB hot, 4 Gbit/s, limit 300 ms", "cpu-scheduling", LIMITED, HOT, 0.2, None, "max <= 0.3"),
    ("pre-copy, idle", "pre-copy", "", IDLE, 1.0, None, "median <= 0.010, p95 <= 0.025"),
    ("post-copy, 256 MiB hot", "post-copy", "", HOT, 0.2, "postcopy", "median at most half of QEMU's"),
]


def case(args, name, preset, options, workload, share, strategy, required):
    ours, theirs = [], []
    count = max(round(args.pairs * share), 1)
    while len(ours) < count:
        them = qemu(strategy, workload == HOT) if strategy else None
        us = livemig(args.livemig, preset, options, workload)
        if them or not strategy:
            ours.append(us)
            theirs += [them] if them else []
        say(f"{name}, {len(ours)} of {count}: {us['guest_gap_s'] * 1e3:.1f} ms" + (f", QEMU {them['gap'] * 1e3:.1f} ms" if them else ""))
    gaps = [us["guest_gap_s"] for us in ours]
    baselines = [us["baseline_gap_s"] for us in ours if not math.isnan(us["baseline_gap_s"])]
    row = {
        "case": name, "migrations": count, "gap_median_s": seconds(statistics.median(gaps)), "gap_p95_s": seconds(quantile(gaps, 0.95)),
        "gap_max_s": seconds(max(gaps)), "required": required, "downtime_median_s": median(ours, "downtime_s"),
        "total_median_s": median(ours, "total_migration_time_s"),
        "baseline_gap_median_s": seconds(statistics.median(baselines)) if baselines else "",
        "baseline_gap_max_s": seconds(max(baselines)) if baselines else "",
    }  # fmt: skip
    if theirs:
        row |= {"qemu_gap_median_s": median(theirs, "gap"), "qemu_gap_max_s": seconds(max(them["gap"] for them in theirs))}
    return row


if __name__ == "__main__":
    table_of(__doc__, "real-gaps.csv", 50, "migrations", CASES, case)
