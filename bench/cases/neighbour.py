"""How long a handler's request waits at half load while fifty requests of another site's handler spin, each
until its CPU budget is used up, in the very same server.
"""

import contextlib
import shutil
import statistics
import subprocess

import measure
from machine import CLIENT_CORE, ROOT, fail, pinned, say
from measure import Goal, Result

CASES = {"neighbour": "p99 of a handler's request at half load while fifty of another handler spin"}
GUESTS = ["hello-rust.wasm", "faulty-rust.wasm"]
SPINNING = 50


@contextlib.contextmanager
def spinning(server, seconds):
    """Fifty connections that ask for nothing else, from before the measurement until after it: they share what
    is left of the core, so that the first are cut only once they have it to themselves."""
    arguments = ["wrk", "-t1", f"-c{SPINNING}", f"-d{seconds + 6}s"]
    command = pinned(CLIENT_CORE, [*arguments, f"http://127.0.0.1:{server.port}/spin"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        try:
            yield
        finally:
            out = wrk.communicate()[0]
    if "Non-2xx" not in out:
        fail(f"nobody was cut:\n{out}")


def run(bench, names):
    folder = ROOT / "wasm-handlers" / "guests" / "build"
    if not all((folder / guest).is_file() for guest in GUESTS):
        say("no example handlers: run `make guests`; no case neighbour")
        return
    with bench.stage() as stage:
        for guest in GUESTS:
            shutil.copy(folder / guest, stage.folder)
        server = stage.verge(site="neighbour.toml")
        rate = round(measure.wrk(server.port, "/hello", bench.seconds)["rps"] / 2)
        asked = lambda: bench.load(server, path="/hello", seconds=bench.seconds, rate=rate)
        alone, beside = [], []
        for _ in range(bench.rounds):
            alone.append(asked())
            with spinning(server, bench.seconds):
                beside.append(asked())
        middle = lambda rounds: statistics.median(each["p99_us"] for each in rounds)
        result = Result(names[0], "µs", {"verge": middle(beside)}, goal=Goal(1.5, at_most=True))
        result.figure, result.against = middle(beside) / middle(alone), "without them"
        result.spread = [much["p99_us"] / none["p99_us"] for much, none in zip(beside, alone)]
        result.rounds = {"alone": alone, "beside": beside}
        result.note = f"at {rate:,}/s; {middle(alone):,.0f} µs without them; no request failed"
        yield result
