"""The cases by their names, in the order in which they run; a module's cases share its servers."""

from . import disk, handler, hits, http2, latency, million, misses, neighbour, sites

MODULES = [hits, http2, disk, misses, latency, million, sites, handler, neighbour]
# Name → what it measures.
CASES = {name: text for module in MODULES for name, text in module.CASES.items()}


def run(bench, wanted):
    """Runs those that are wanted; yields a result as soon as there is one."""
    for module in MODULES:
        names = [name for name in module.CASES if name in wanted]
        if names:
            yield from module.run(bench, names)
