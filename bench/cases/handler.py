"""Handlers: a request of each contract and language against `wasmtime serve` of the same component, and a
handler in front of the cache against the handler alone.
"""

import re
import shutil
import statistics
import subprocess

import measure
from machine import ROOT, SERVER_CORE, Server, fail, find, free_port, pinned, say
from measure import Goal, Result

BUILT = ROOT / "wasm-handlers" / "guests" / "build"
# Component, what `wasmtime serve` needs for it, what the case is to reach.
PEERED = {
    "handler": ("hello-rust", ["-S", "cli"], Goal(2.5)),
    "handler-p3": ("hello-p3-rust", ["-S", "cli,p3", "-W", "component-model-async"], Goal(1.3)),
    "handler-js": ("hello-js", ["-S", "cli"], Goal(1.5)),
}
CASES = {
    "handler": "a handler's request, no cache, a fresh instance each, against `wasmtime serve`",
    "handler-p3": "the same by `wasi:http/handler@0.3`, where instances serve again",
    "handler-js": "the same in JavaScript",
    "handler-start": "a call through the sandbox alone: instantiate, run, tear down",
    "handler-hits": "a handler that fetches a cached object of its site, against the handler alone",
}


def against_wasmtime(bench, case):
    component, needs, goal = PEERED[case]
    guest = BUILT / f"{component}.wasm"
    with bench.stage() as stage:
        shutil.copy(guest, stage.folder)
        verge = stage.verge(site="handler.toml", component=guest.name)
        servers = [verge]
        wasmtime = find("wasmtime")
        if wasmtime:
            port = free_port()
            arguments = [wasmtime, "serve", *needs, "--addr", f"127.0.0.1:{port}", guest]
            servers.append(stage.add(Server("wasmtime", stage.folder, arguments, port)))
        else:
            say("no wasmtime here (cargo install wasmtime-cli@48.0.8): our own figure alone")
        for server in servers:
            server.wait_for("/hello")
        one_round = lambda server: measure.wrk(server.port, "/hello", bench.seconds)
        return measure.compare(case, measure.interleave(servers, bench.rounds, one_round), goal)


def start(bench, case):
    """The sandbox without an edge and without sockets. The 50th percentile is held against the goal of the start and
    the end of an instance; the request and the guest's own code come on top."""
    program = bench.binaries / "verge-bench-sandbox"
    command = pinned(SERVER_CORE, [program, BUILT / "hello-rust.wasm", "/hello", str(bench.seconds)])
    rounds = []
    for _ in range(bench.rounds):
        done = subprocess.run(command, capture_output=True, text=True)
        told = re.search(r"p50 ([\d.]+) µs, p99 ([\d.]+) µs", done.stdout)
        if not told:
            fail(f"{program}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        rounds.append({"p50_us": float(told[1]), "p99_us": float(told[2])})
    p50, p99 = (statistics.median(each[key] for each in rounds) for key in ("p50_us", "p99_us"))
    note = f"p99 {p99:.1f} µs (goal ≤ 60)"
    return Result(
        case, "µs", {"verge": p50}, p50, Goal(15, at_most=True), rounds={"verge": rounds}, note=note
    )


def over_hits(bench, case):
    with bench.stage() as stage:
        shutil.copy(BUILT / "hello-rust.wasm", stage.folder)
        servers = [
            stage.verge(site="handler.toml", component="hello-rust.wasm", name=name)
            for name in ("many", "few")
        ]
        paths = {"many": "/fetch?path=/1k", "few": "/hello"}
        for server in servers:
            server.wait_for(paths[server.name])
        one_round = lambda server: measure.wrk(server.port, paths[server.name], bench.seconds)
        seen = measure.interleave(servers, bench.rounds, one_round)
        return measure.against_itself(case, seen, Goal(0.6), "that answers by itself")


def run(bench, names):
    for name in names:
        component = PEERED[name][0] if name in PEERED else "hello-rust"
        if not (BUILT / f"{component}.wasm").is_file():
            say(f"no example handlers: run `make guests`; no case {name}")
        elif name in PEERED:
            yield against_wasmtime(bench, name)
        elif name == "handler-start":
            yield start(bench, name)
        else:
            yield over_hits(bench, name)
