"""How long a handler's request waits while fifty requests of another handler spin, each until its CPU
budget is used up. Shown, not judged: it is as long as the machine has few cores.
"""

import contextlib
import shutil
import statistics
import subprocess

import measure
from machine import CLIENT_CORE, ROOT, fail, pinned, say
from measure import Result

CASES = {"neighbour": "p99 of a handler's request while fifty of another handler spin"}
GUESTS = ["hello-rust.wasm", "faulty-rust.wasm"]
SPINNING = 50


@contextlib.contextmanager
def spinning(server, seconds):
    """Fifty connections that ask for nothing else, from before the measurement until after it."""
    arguments = ["wrk", "-t1", f"-c{SPINNING}", f"-d{seconds + 2}s"]
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
        alone, beside = [], []
        for _ in range(bench.rounds):
            alone.append(measure.wrk(server.port, "/hello", bench.seconds))
            with spinning(server, bench.seconds):
                beside.append(measure.wrk(server.port, "/hello", bench.seconds))
        middle = lambda rounds, key: statistics.median(each[key] for each in rounds)
        rounds = {"alone": alone, "beside": beside}
        result = Result(names[0], "ms", {"verge": middle(beside, "p99_ms")}, rounds=rounds)
        result.note = (
            f"{middle(beside, 'rps'):,.0f}/s beside them; "
            f"{middle(alone, 'p99_ms'):,.2f} ms and {middle(alone, 'rps'):,.0f}/s without them"
        )
        yield result
