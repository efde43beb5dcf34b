"""Hits of objects that do not fit into the RAM tier, against nginx with its cache on the same disk."""

import measure
import peers
from machine import fail, say
from measure import Goal

CASES = {"disk-100k": "100 KB hits from disk, 200 MB of objects, 16 MiB of RAM tier"}
OBJECTS, QUICK_OBJECTS = 2_000, 400
OBJECT = 100 * 1024


def stored(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def run(bench, names):
    objects = QUICK_OBJECTS if bench.quick else OBJECTS
    with bench.stage() as stage:
        ours, theirs = stage.disk_folder("verge"), stage.disk_folder("nginx")
        verge = stage.verge("--cache-dir", ours, "--ram", "16MiB")
        servers = [verge, *peers.start(stage, "nginx", cache=theirs)]
        path = {"path": "/100k/%", "count": objects}
        for server in servers:
            # Twice: a cache may wait for the second request before it stores.
            for _ in range(2):
                bench.load(server, requests=objects, **path)
        if stored(ours) < objects * OBJECT // 2:
            say("this verge-edge has no disk tier: no case disk-100k")
            return
        asked = stage.origin.asked
        one_round = lambda s: bench.load(s, seconds=bench.seconds, order="random", **path)
        seen = measure.interleave(servers, bench.rounds, one_round)
        again = stage.origin.asked - asked
        total = sum(each["requests"] for rounds in seen.values() for each in rounds)
        if again > total // 1000:
            fail(f"{again} of {total} requests reached the origin: these were no hits")
        yield measure.compare(names[0], seen, Goal(1.0))
