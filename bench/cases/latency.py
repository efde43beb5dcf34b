"""How long hits wait at half load while misses come between them: open loop, equal rate for both.

The rate is half of what the slower one can do of this very mixture. A hit's time counts from when it
was due, so a server that stalls pays for all that waited meanwhile.
"""

import itertools

import measure
import peers
from measure import Goal

CASES = {"p99": "p99 of 1 KiB hits at half load, every tenth request a miss"}
MISS_EVERY = 10


def run(bench, names):
    with bench.stage() as stage:
        servers = [stage.verge("--ram", "4GiB"), *peers.start(stage, "nginx")]
        part = itertools.count()

        def mixture(server, **options):
            path = {"path": "/1k", "miss_path": f"/1k/{next(part)}/%", "miss_every": MISS_EVERY}
            return bench.load(server, seconds=bench.seconds, **path, **options)

        most = {server.name: [] for server in servers}
        for server in [*servers, *reversed(servers)]:
            most[server.name].append(mixture(server)["rps"])
        rate = min(max(rates) for rates in most.values()) / 2
        seen = measure.interleave(servers, bench.rounds, lambda s: mixture(s, rate=round(rate)))
        result = measure.compare(
            names[0], seen, Goal(1.0, at_most=True), "p99_us", "µs", lower_is_better=True
        )
        ceilings = ", ".join(f"{name} {max(rates):,.0f}/s" for name, rates in most.items())
        result.note = f"at {rate:,.0f}/s; the mixture at full speed: {ceilings}"
        yield result
