#!/usr/bin/env python3
"""Compares Verge with its peers on this machine, side by side in one run.

The server has one core to itself, the load another; rounds are interleaved, so that a machine that
slows down slows all; medians and their ratio against the best peer are written as a Markdown table on
standard output and, with every round, to a JSON file. README.md beside this says what each case is.
Uses the standard library alone.
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import cases
from machine import CLIENT_CORE, ROOT, fail, find, say
from stage import Bench

COLUMNS = ["verge", "nginx", "varnish", "haproxy", "trafficserver", "wasmtime", "limit"]


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def figure(result):
    """What the goal is about: a ratio against a peer, or the figure itself."""
    if result.figure is None:
        return ""
    if not result.against:
        return f"{number(result.figure)} {result.unit}"
    text = f"{result.figure:.2f} × {result.against}"
    if result.spread:
        text += f" ({min(result.spread):.2f}–{max(result.spread):.2f})"
    return text


def table(results):
    columns = [name for name in COLUMNS if any(name in result.medians for result in results)]
    rows = [["case", "unit", *columns, "ratio (rounds) or figure", "by CPU", "goal", "holds"]]
    for result in results:
        judged = result.figure is not None and result.goal
        row = [result.case, result.unit, *(number(result.medians.get(name)) for name in columns)]
        row += [figure(result), f"{result.by_cpu:.2f}" if result.by_cpu else "", str(result.goal or "")]
        row.append(("yes" if result.holds else "NO") if judged else "–")
        rows.append(row)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    notes = [f"- {result.case}: {result.note}" for result in results if result.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("--only", default=",".join(cases.CASES), help="cases, with commas between them")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--rounds", type=int, help="5 when absent")
    parser.add_argument("--seconds", type=int, help="the length of a round; 5 when absent")
    parser.add_argument("--quick", action="store_true", help="one short round, small sets: a smoke test")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench.json")
    parser.add_argument("--disk", type=Path, default=ROOT / "target", help="where the disk tier is")
    parser.add_argument("--strict", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    options.bin = options.bin.resolve()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 5)
    return options


def check(options):
    unknown = set(options.only) - set(cases.CASES)
    if unknown:
        fail(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(cases.CASES)}")
    for tool in ("wrk", "taskset"):
        if not find(tool):
            fail(f"no {tool}: run scripts/setup.sh bench")
    if not (options.bin / "verge-edge").exists():
        fail("no verge-edge: run `make bench`, or say where it is with --bin")
    if (os.cpu_count() or 1) < 2:
        fail("two cores are needed: one for the server, one for the load")


def write(options, results):
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(result) for result in results]
    options.out.write_text(json.dumps(rows, indent=2) + "\n")


def main():
    options = parse(sys.argv[1:])
    if options.list:
        for name, text in cases.CASES.items():
            print(f"{name:10} {text}")
        return 0
    check(options)
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, lambda number, _: sys.exit(128 + number))
    os.sched_setaffinity(0, {CLIENT_CORE})
    ram = Path("/dev/shm")
    place = ram if os.access(ram, os.W_OK) else None
    say(f"{options.rounds} round(s) of {options.seconds} s for each server and case")
    results = []
    with tempfile.TemporaryDirectory(prefix="verge-bench-", dir=place) as folder:
        os.chmod(folder, 0o755)
        for result in cases.run(Bench(options, Path(folder)), options.only):
            results.append(result)
            shown = ", ".join(f"{name} {number(value)}" for name, value in result.medians.items())
            say(f"{result.case}: {shown} {result.unit}  {figure(result)}")
            # After each case: a run that is cut short has not been for nothing.
            write(options, results)
    print(table(results))
    print(f"\nwritten to {os.path.relpath(options.out)}")
    missed = [result.case for result in results if not result.holds]
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
