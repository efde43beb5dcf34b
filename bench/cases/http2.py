"""Hits over HTTP/2 and TLS 1.3, one certificate and one cipher for all."""

import measure
import peers
from machine import fail, find, say
from measure import Goal

from .hits import check_bodies

CASES = {
    "h2-1k": "1 KiB hits, HTTP/2 over TLS",
    "h2-100k": "100 KB hits, HTTP/2 over TLS",
}


def run(bench, names):
    if not find("h2load") or not bench.certificate():
        say("no h2load or no openssl: run scripts/setup.sh bench; no HTTP/2 cases")
        return
    with bench.stage() as stage:
        servers = [stage.verge(tls=True), *peers.start(stage, "nginx", "haproxy", tls=True)]
        check_bodies(servers, ["1k", "100k"])
        for name in names:
            path = f"/{name[3:]}"
            one_round = lambda server: measure.h2load(server.tls_port, path, bench.seconds)
            # h2load asks for another host than the check did: to a cache that is another object.
            for server in servers:
                measure.h2load(server.tls_port, path, 1)
            asked = stage.origin.asked
            seen = measure.interleave(servers, bench.rounds, one_round)
            if stage.origin.asked != asked:
                fail(f"{stage.origin.asked - asked} requests reached the origin: these were no hits")
            # The goal is about nginx; HAProxy is shown beside it.
            yield measure.compare(name, seen, Goal(1.0), reference=("limit", "haproxy"))
