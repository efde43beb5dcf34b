"""Hits over HTTP/1.1 with keep-alive, every cache in RAM, against all peers."""

import measure
import peers
from machine import ask, fail
from measure import Goal

CASES = {
    "1k": "1 KiB hits, HTTP/1.1 keep-alive, 64 connections",
    "100k": "100 KB hits",
    "1m": "1 MiB hits",
}
GOALS = {"1k": Goal(1.10), "100k": Goal(1.0), "1m": Goal(1.0)}
SIZES = {"1k": 1024, "100k": 100 * 1024, "1m": 1024 * 1024}


def check_bodies(servers, names):
    """Each must answer whole, and the same; after this it has it."""
    for name in names:
        for server in servers:
            for _ in range(3):
                status, body = ask(server.port, f"/{name}")
                if (status, len(body)) != (200, SIZES[name]):
                    fail(f"{server.name} answers /{name} with {status} and {len(body)} bytes")


def run(bench, names):
    with bench.stage() as stage:
        servers = [stage.verge(), *peers.start(stage, *peers.CACHES)]
        check_bodies(servers, names)
        asked = stage.origin.asked
        servers.append(stage.limit())
        for name in names:
            one_round = lambda server: measure.wrk(server.port, f"/{name}", bench.seconds)
            seen = measure.interleave(servers, bench.rounds, one_round)
            if stage.origin.asked != asked:
                fail(f"{stage.origin.asked - asked} requests reached the origin: these were no hits")
            yield measure.compare(name, seen, GOALS[name])
