"""The peers, each started the way it does best; one that is not installed is said and left out."""

from machine import find, say

from . import haproxy, nginx, trafficserver, varnish

# In the order of the table's columns.
CACHES = {
    "nginx": nginx.start,
    "varnish": varnish.start,
    "haproxy": haproxy.start,
    "trafficserver": trafficserver.start,
}
PROGRAMS = {
    "nginx": "nginx",
    "varnish": "varnishd",
    "haproxy": "haproxy",
    "trafficserver": "traffic_server",
}


def start(stage, *names, **options):
    """Those of the peers that are here, ready."""
    started = []
    for name in names:
        program = find(PROGRAMS[name])
        if program:
            server = stage.add(CACHES[name](stage, program, **options))
            server.wait_for("/1k")
            started.append(server)
        else:
            say(f"no {name} here: run scripts/setup.sh bench; the case goes on without it")
    return started
