"""Misses: every URL is new, each response is stored, the origin is a loop that answers from memory."""

import itertools

import measure
import peers
from machine import fail
from measure import Goal

CASES = {"miss": "1 KiB misses, every URL new"}


def run(bench, names):
    with bench.stage() as stage:
        servers = [stage.verge("--ram", "4GiB"), *peers.start(stage, "nginx")]
        part = itertools.count()

        def one_round(server):
            asked = stage.origin.asked
            # A new part of the address space each round, so that no URL comes twice.
            figures = bench.load(server, seconds=bench.seconds, path=f"/1k/{next(part)}/%", count=10**9)
            if stage.origin.asked - asked != figures["requests"]:
                fail(f"{server.name}: not every request reached the origin")
            return figures

        for server in servers:
            one_round(server)
        yield measure.compare(names[0], measure.interleave(servers, bench.rounds, one_round), Goal(1.0))
