"""The loads, interleaved rounds, and what a case says in the end."""

import json
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional

from machine import CLIENT_CORE, fail, pinned

CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 16, 8
# The same cipher for every server, whatever it prefers.
CIPHER = "TLS_AES_128_GCM_SHA256"


@dataclass
class Goal:
    """What the project promises of a case: a figure to reach, or not to exceed."""

    limit: float
    at_most: bool = False

    def holds(self, figure):
        return figure <= self.limit if self.at_most else figure >= self.limit

    def __str__(self):
        return f"{'≤' if self.at_most else '≥'} {self.limit:,.2f}".rstrip("0").rstrip(".")


@dataclass
class Result:
    """One row: a figure for each server (median of its rounds), and the one that the goal is about."""

    case: str
    unit: str
    medians: Dict[str, float]
    figure: Optional[float] = None
    goal: Optional[Goal] = None
    against: Optional[str] = None
    spread: Optional[List[float]] = None
    # The ratio of requests a second of CPU: what is left when others use the machine too.
    by_cpu: Optional[float] = None
    rounds: Dict[str, list] = field(default_factory=dict)
    note: str = ""

    @property
    def holds(self):
        return self.figure is None or self.goal is None or self.goal.holds(self.figure)


def run(arguments):
    done = subprocess.run(pinned(CLIENT_CORE, arguments), capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{arguments[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def wrk(port, path, seconds):
    """One round: requests a second, and the 99th percentile in milliseconds."""
    out = run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", "Host: bench"]
        + [f"http://127.0.0.1:{port}{path}"]
    )
    if "Non-2xx" in out or "Socket errors" in out:
        fail(f"wrk saw errors:\n{out}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return {"rps": float(rate[1]), "p99_ms": float(p99[1]) * scale[p99[2]]}


def h2load(port, path, seconds):
    """One round over HTTP/2 and TLS, with the streams of each connection all in use."""
    out = run(
        ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", f"--duration={seconds}"]
        + ["--warm-up-time=1", f"--tls13-ciphers={CIPHER}", f"https://127.0.0.1:{port}{path}"]
    )
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    failed = re.search(r"(\d+) failed, (\d+) errored", out)
    wrong = [int(count) for count in [*statuses.groups()[1:], *failed.groups()]]
    if not rate or any(wrong) or "Application protocol: h2" not in out:
        fail(f"h2load saw errors or no HTTP/2:\n{out}")
    return {"rps": float(rate[1])}


def load(program, port, **options):
    """One round of bench/load/load.c."""
    words = [f"{name}={value}" for name, value in options.items()]
    return json.loads(run([program, port, *words]))


def interleave(servers, rounds, measure):
    """Rounds of every server in turn; who goes first changes, so that none always has the warmer machine."""
    seen = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            before, started = server.cpu_seconds(), time.monotonic()
            figures = measure(server)
            took, used = time.monotonic() - started, server.cpu_seconds() - before
            by_cpu = figures["rps"] * took / used if used > 0.1 else None
            seen[server.name].append({**figures, "cpu_s": round(used, 2), "per_cpu_s": by_cpu})
    return seen


def medians(seen, key):
    return {
        name: statistics.median(each[key] for each in rounds) for name, rounds in seen.items()
    }


def compare(case, seen, goal, key="rps", unit="/s", lower_is_better=False, reference=("limit",)):
    """Ours against the best of the peers; servers in `reference` are shown and not counted."""
    middle = medians(seen, key)
    result = Result(case, unit, middle, goal=goal, rounds=seen)
    peers = {n: v for n, v in middle.items() if n != "verge" and n not in reference}
    if peers:
        result.against = (min if lower_is_better else max)(peers, key=peers.get)
        pairs = zip(seen["verge"], seen[result.against])
        result.spread = [ours[key] / theirs[key] for ours, theirs in pairs]
        result.figure = middle["verge"] / middle[result.against]
        # At a fixed rate the CPU has time to spare, and the figure is about waiting.
        result.by_cpu = None if lower_is_better else cpu_ratio(seen, "verge", peers)
    return result


def against_itself(case, seen, goal, note):
    """Hits of the server `many`, which holds much, against those of `few`, which does the same with little."""
    middle = medians(seen, "rps")
    return Result(
        case,
        "/s",
        {"verge": middle["many"]},
        figure=middle["many"] / middle["few"],
        goal=goal,
        against="itself",
        spread=[much["rps"] / little["rps"] for much, little in zip(seen["many"], seen["few"])],
        by_cpu=cpu_ratio(seen, "many", ["few"]),
        rounds=seen,
        note=f"{middle['few']:,.0f}/s {note}",
    )


def cpu_ratio(seen, ours, others):
    """Ours against the one that does most with a second of CPU; None when a round was too short."""
    counted = {name: [each["per_cpu_s"] for each in seen[name]] for name in [ours, *others]}
    if any(None in figures for figures in counted.values()):
        return None
    middle = {name: statistics.median(figures) for name, figures in counted.items()}
    return middle[ours] / max(middle[name] for name in others)
