"""A handler's request, a fresh instance each, against `wasmtime serve` of the same component."""

import shutil

import measure
from machine import ROOT, Server, find, free_port, say
from measure import Goal

CASES = {"handler": "a handler's request, no cache, against `wasmtime serve`"}


def run(bench, names):
    guest = ROOT / "wasm-handlers" / "guests" / "build" / "hello-rust.wasm"
    if not guest.is_file():
        say("no example handler: run `make guests`; no case handler")
        return
    with bench.stage() as stage:
        shutil.copy(guest, stage.folder)
        servers = [stage.verge(site="handler.toml")]
        wasmtime = find("wasmtime")
        if wasmtime:
            port = free_port()
            arguments = [wasmtime, "serve", "-S", "cli", "--addr", f"127.0.0.1:{port}", guest]
            servers.append(stage.add(Server("wasmtime", stage.folder, arguments, port)))
        else:
            say("no wasmtime here (cargo install wasmtime-cli@48.0.8): our own figure alone")
        for server in servers:
            server.wait_for("/hello")
        one_round = lambda server: measure.wrk(server.port, "/hello", bench.seconds)
        seen = measure.interleave(servers, bench.rounds, one_round)
        yield measure.compare(names[0], seen, Goal(1.5))
