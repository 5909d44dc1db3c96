#!/usr/bin/env python3
"""How soon a guest of 1 GiB has left its host, with snapshots sent before the order (quick eviction) and without (pre-copy).

usage: benches/real/eviction.py [--livemig PROGRAM] [--pairs N] [--case NAME ...] [--out FILE]

Both under the same stop rule, in turn, over loopback without a limit; the guest is idle, or writes 256 MiB without a pause. Snapshots
have five seconds before the order. Quoted are medians, and the median of the ratios of the pairs with an interval for it. Every
byte is verified. Takes about fifteen seconds per pair.
"""


from common import HOT, IDLE, QEMU_RULE, interval, livemig, median, say, seconds, table_of

# Name, the stop rule of both, the workload, and what is required.
CASES = [
    ("idle", "", IDLE, "eviction below 0.1 s"),
    ("256 MiB hot", QEMU_RULE, HOT, "at least 5 times faster"),
]


def case(args, name, rule, workload, required):
    quick, plain = [], []
    for pair in range(args.pairs):
        quick.append(livemig(args.livemig, "quick-eviction", rule, workload, at="5 s"))
        plain.append(livemig(args.livemig, "pre-copy", rule, workload))
        say(f"{name}, pair {pair + 1} of {args.pairs}: " + ", ".join(f"{runs[-1]['eviction_time_s']:.3f} s" for runs in (quick, plain)))
    factor, low, high = interval([b["eviction_time_s"] / a["eviction_time_s"] for a, b in zip(quick, plain)])
    return {
        "case": name, "pairs": args.pairs, "quick_eviction_s": median(quick, "eviction_time_s"),
        "quick_eviction_max_s": seconds(max(run["eviction_time_s"] for run in quick)), "pre_copy_eviction_s": median(plain, "eviction_time_s"),
        "times_faster": f"{factor:.2f}", "times_faster_low": f"{low:.2f}", "times_faster_high": f"{high:.2f}", "required": required,
        "quick_guest_gap_s": median(quick, "guest_gap_s"), "pre_copy_guest_gap_s": median(plain, "guest_gap_s"),
    }  # fmt: skip


if __name__ == "__main__":
    table_of(__doc__, "real-eviction.csv", 7, "pairs of runs", CASES, case)
