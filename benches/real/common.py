"""What the scripts of this folder share: runs of livemig, QEMU and a bare socket, medians and intervals, files that grow case by case."""

import argparse
import csv
import json
import math
import mmap
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "validation"
QEMU = ROOT / "validation" / "qemu"
GIB = 1 << 30

# Written without a pause, in address order again and again.
HOT = 'workload = { kind = "sequential", working_set = "256 MiB", writes = "100000000 pages/s" }'
IDLE = ""
# QEMU's stop rule, with its default limit.
QEMU_RULE = 'stop = { rule = "qemu", downtime_limit = "300 ms" }, '
SCENARIO = """schema = 1
name = "real"
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
at = "{at}"
strategies = [{{ name = "s", preset = "{preset}", {options}elide_zero_pages = false }}]
"""


def arguments(parser, out, count, what):
    """Adds what every script takes."""
    parser.add_argument("--livemig", default=str(ROOT / "target" / "release" / "livemig"), help="the program")
    parser.add_argument("--pairs", type=int, default=count, help=f"{what} per case (default {count})")
    parser.add_argument("--case", action="append", help="only cases with this in their name; may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS / out, help="where to write")


def wanted(args, cases):
    return [case for case in cases if not args.case or any(part in case[0] for part in args.case)]


def livemig(program, preset, options="", workload=IDLE, at="1 s"):
    """One migration of a 1 GiB guest, every byte verified: its row of metrics, times in seconds, and whether it completed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        path.write_text(SCENARIO.format(workload=workload, preset=preset, options=options, at=at))
        command = [program, "exec", "--lead", at.replace(" ", ""), "--observe", "500ms", "-o", f"{folder}/out", path]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"livemig ended with {run.returncode}: {run.stdout[-800:]} {run.stderr[-800:]}")
        with open(f"{folder}/out/metrics.csv") as rows:
            row = next(csv.DictReader(rows))
        facts = json.loads(Path(f"{folder}/out/manifest.json").read_text())["migrations"][0]
    baseline = facts["gap_without_migration_s"]
    return {name: number(value) for name, value in row.items()} | {"baseline_gap_s": math.nan if baseline is None else baseline}


def number(text):
    try:
        return float(text)
    except ValueError:
        return text or math.nan


def qemu(strategy, hot, bandwidth=0, timeout=120):
    """The same with QEMU: total time, downtime as it reports it, longest gap between two heartbeats; `None` if it did not complete."""
    if not (QEMU / "guest.bin").exists():
        subprocess.run(["sh", QEMU / "build.sh"], check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, QEMU / "qbench.py", "--accel", "kvm", "--strategy", strategy, "--ws", "256" if hot else "0"]
    command += ["--bw", str(bandwidth), "--downtime", "300", "--timeout", str(timeout)]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if result.get("status") != "completed":
        return None
    gap = max([result.get("hb_gap_ms") or math.nan, *result.get("hb_after_worst_gaps_ms", [])[:1]])
    return {"total": result["total_ms"] / 1e3, "downtime": result["downtime_ms"] / 1e3, "gap": gap / 1e3}


def socket_copy():
    """Seconds that 1 GiB takes from one process's memory through a TCP connection over loopback into memory that was never touched."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, GIB, flags=private)
    block = os.urandom(1 << 20)
    for at in range(0, GIB, len(block)):
        memory[at : at + len(block)] = block
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        try:
            peer, _ = listener.accept()
            into, done = memoryview(mmap.mmap(-1, GIB, flags=private)), 0
            while done < GIB:
                got = peer.recv_into(into[done : done + (1 << 18)], 0, socket.MSG_WAITALL)
                if got == 0:
                    os._exit(1)
                done += got
            peer.sendall(b"1")
        finally:
            os._exit(0)
    with socket.create_connection(listener.getsockname()) as out:
        view, start = memoryview(memory), time.monotonic()
        for at in range(0, GIB, 1 << 18):
            out.sendall(view[at : at + (1 << 18)])
        arrived = out.recv(1)
        took = time.monotonic() - start
    os.waitpid(child, 0)
    listener.close()
    if arrived != b"1":
        sys.exit("the bare socket copy failed")
    return took


def interval(values):
    """Median, and the order statistics between which the true one is with at least 95 % (or the extremes, where values are few)."""
    ordered, n = sorted(values), len(values)
    below, chance = 0, 0.5**n
    while below < n // 2 and chance <= 0.025:
        below += 1
        chance += math.comb(n, below) * 0.5**n
    low = max(below - 1, 0) if chance > 0.025 else below
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def quantile(values, share):
    """The least value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def seconds(value):
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def median(runs, what):
    values = [run[what] for run in runs if not math.isnan(run[what])]
    return seconds(statistics.median(values) if values else None)


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    kilobytes = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return f"{model}, {os.cpu_count()} cores, {kilobytes * 1024 / 1e9:.0f} GB, Linux {'.'.join(os.uname().release.split('.')[:2])}"


class Table:
    """Rows of results, one per case; the file is written again with every row, so that a run that is cut off keeps what it has. Rows of
    cases that are not measured this time stay."""

    def __init__(self, path):
        self.path, self.rows = path, []
        if path.exists():
            with open(path, newline="") as old:
                self.rows = list(csv.DictReader(old))

    def add(self, row):
        self.rows = [old for old in self.rows if old["case"] != row["case"]]
        self.rows.append({**row, "machine": machine(), "date": date.today().isoformat()})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with open(self.path, "w", newline="") as out:
            writer = csv.DictWriter(out, [n for n in names if n not in ("machine", "date")] + ["machine", "date"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def show(self):
        print(self.path.read_text(), end="")


def table_of(doc, out, count, what, cases, case):
    """The whole of a script that measures one case after the other, each for a row."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    arguments(parser, out, count, what)
    args = parser.parse_args()
    table = Table(args.out)
    for each in wanted(args, cases):
        table.add(case(args, *each))
    table.show()


def say(text):
    print(text, file=sys.stderr, flush=True)
