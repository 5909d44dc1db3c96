#!/usr/bin/env python3
"""Migrates a real guest of 1 GiB with livemig and with QEMU in turn, over loopback, and writes how they compare.

usage: benches/real/against_qemu.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

Runs are interleaved, A B C A B C, so that what else the machine does meets all of them: QEMU, livemig, and a bare copy of 1 GiB through a
socket. Quoted are the median of the ratios of the pairs with an interval for it (order statistics, at least 95 %), and medians of the
times. Every byte of livemig's guests is verified; nothing is left out of what is sent, no page is equal to another, and the
destination's memory was never touched. With `4 streams` livemig is compared with itself.

Needs KVM, qemu-system-x86, gcc and binutils (Debian: qemu-system-x86 gcc binutils). Takes about ten seconds per pair.
"""

import argparse
import math

from common import HOT, IDLE, QEMU_RULE, Table, arguments, interval, livemig, median, qemu, say, socket_copy, wanted

# Name, livemig's preset and options, QEMU's strategy, the workload, the ratio of total times that is required, and the same to a
# bare socket copy.
CASES = [
    ("pre-copy, idle", "pre-copy", QEMU_RULE, "precopy", IDLE, 0.8, 1.5),
    ("pre-copy, 256 MiB hot", "pre-copy", QEMU_RULE, "precopy", HOT, 0.6, 1.5),
    ("post-copy, idle", "post-copy", "", "postcopy", IDLE, 0.6, 1.5),
    ("post-copy, 256 MiB hot", "post-copy", "", "postcopy", HOT, 0.6, 1.5),
]
STREAMS = [
    ("4 streams, pre-copy, idle", "pre-copy", QEMU_RULE, IDLE, 1.05),
    ("4 streams, post-copy, idle", "post-copy", "", IDLE, 1.05),
]


def ratios(ours, theirs):
    middle, low, high = interval([a / b for a, b in zip(ours, theirs)])
    return {"ratio": f"{middle:.3f}", "ratio_low": f"{low:.3f}", "ratio_high": f"{high:.3f}"}


def against_qemu(args, name, preset, options, strategy, workload, required, required_floor):
    ours, theirs, floors = [], [], []
    while len(ours) < args.pairs:
        them, us, floor = qemu(strategy, workload == HOT), livemig(args.livemig, preset, options, workload), socket_copy()
        if them:
            ours.append(us)
            theirs.append(them)
            floors.append(floor)
        total = us["total_migration_time_s"]
        say(f"{name}, pair {len(ours)} of {args.pairs}: {total:.3f} s, QEMU {them and them['total']} s, bare copy {floor:.3f} s")
    totals = [us["total_migration_time_s"] for us in ours]
    floor = ratios(totals, floors)
    return {
        "case": name, "pairs": len(ours), "livemig_total_s": median(ours, "total_migration_time_s"), "other": "QEMU",
        "other_total_s": median(theirs, "total"), **ratios(totals, [them["total"] for them in theirs]), "required_ratio": required,
        "bare_copy_s": median([{"s": s} for s in floors], "s"), "ratio_to_bare_copy": floor["ratio"],
        "ratio_to_bare_copy_low": floor["ratio_low"], "ratio_to_bare_copy_high": floor["ratio_high"],
        "required_ratio_to_bare_copy": required_floor, "livemig_downtime_s": median(ours, "downtime_s"),
        "other_reported_downtime_s": median(theirs, "downtime"), "livemig_guest_gap_s": median(ours, "guest_gap_s"),
        "livemig_guest_gap_max_s": f"{max(us['guest_gap_s'] for us in ours):.4f}", "other_guest_gap_s": median(theirs, "gap"),
    }  # fmt: skip


def against_one_stream(args, name, preset, options, workload, required):
    four, one = [], []
    for pair in range(args.pairs):
        four.append(livemig(args.livemig, preset, f"{options}streams = 4, ", workload))
        one.append(livemig(args.livemig, preset, options, workload))
        say(f"{name}, pair {pair + 1} of {args.pairs}: " + ", ".join(f"{runs[-1]['total_migration_time_s']:.3f} s" for runs in (four, one)))
    totals = [[run["total_migration_time_s"] for run in runs] for runs in (four, one)]
    return {
        "case": name, "pairs": args.pairs, "livemig_total_s": median(four, "total_migration_time_s"), "other": "one stream",
        "other_total_s": median(one, "total_migration_time_s"), **ratios(*totals), "required_ratio": required,
        "livemig_downtime_s": median(four, "downtime_s"), "other_reported_downtime_s": median(one, "downtime_s"),
        "livemig_guest_gap_s": median(four, "guest_gap_s"),
        "livemig_guest_gap_max_s": f"{max(us['guest_gap_s'] for us in four if not math.isnan(us['guest_gap_s'])):.4f}",
        "other_guest_gap_s": median(one, "guest_gap_s"),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, "qemu-pairs.csv", 15, "pairs of runs")
    args = parser.parse_args()
    table = Table(args.out)
    for case in wanted(args, CASES):
        table.add(against_qemu(args, *case))
    for case in wanted(args, STREAMS):
        table.add(against_one_stream(args, *case))
    table.show()


if __name__ == "__main__":
    main()
