#!/usr/bin/env python3
"""Compares Verge with its peers on this machine, side by side in one run.

Cache hits against nginx (proxy_cache on a RAM disk), handlers against `wasmtime serve` where there is
one. The server runs on one core and wrk on another; rounds are interleaved, so that a machine that
slows down slows both; medians and their ratio are printed and written to a JSON file.
Uses the standard library alone.
"""

import argparse
import grp
import http.client
import json
import os
import pwd
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"1k": 1024, "100k": 100 * 1024, "1m": 1024 * 1024}
CONNECTIONS = 64
SERVER_CORE, CLIENT_CORE = "0", "1"
# The least ratio that the project promises, by case.
PROMISED = {"1k": 1.0, "100k": 1.0, "1m": 1.0, "handler": 1.5}
DEADLINE = 60.0


def fail(text):
    sys.exit(f"bench: {text}")


def find(name, *more):
    path = shutil.which(name)
    if path:
        return path
    return next((place for place in more if os.access(place, os.X_OK)), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Origin:
    """Serves each size at its path, cacheable for an hour, and counts the requests."""

    def __init__(self):
        self.asked = 0
        origin = self
        bodies = {f"/{name}": os.urandom(size) for name, size in SIZES.items()}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                origin.asked += 1
                body = bodies.get(self.path)
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body or b"")))
                self.send_header("Cache-Control", "public, max-age=3600")
                self.send_header("ETag", '"1"')
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server.server_address[1]}"


class Peer:
    """One server under test, pinned to its core; stopped by its pid."""

    def __init__(self, name, folder, arguments, port):
        self.name, self.port = name, port
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, len(response.read())
        finally:
            connection.close()

    def wait(self, path):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                if self.get(path)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        fail(f"{self.name} does not answer {path}:\n{self.log.read_text(errors='replace')[-2000:]}")

    def cpu_seconds(self):
        """User and system time so far, of the process and of its children that still run."""
        total = 0.0
        for pid in [self.process.pid, *children(self.process.pid)]:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        return total


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def wrk(port, path, seconds):
    """One round: requests a second, and the 99th percentile in milliseconds."""
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        + ["--latency", f"http://127.0.0.1:{port}{path}"],
        capture_output=True,
        text=True,
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if done.returncode != 0 or not rate:
        fail(f"wrk: {done.stdout}{done.stderr}")
    if "Non-2xx" in done.stdout:
        fail(f"answers that are no 2xx:\n{done.stdout}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return float(rate[1]), float(p99[1]) * scale[p99[2]] if p99 else None


def start_verge(binaries, folder, origin):
    site = folder / "verge.toml"
    text = (ROOT / "bench" / "verge.toml").read_text()
    site.write_text(text.replace("127.0.0.1:9000", origin.address))
    guest = ROOT / "wasm-handlers" / "guests" / "build" / "hello-rust.wasm"
    if not guest.is_file():
        fail("no example handler: run `make guests`")
    shutil.copy(guest, folder)
    port = free_port()
    arguments = [binaries / "verge-edge", "--site", site, "--listen", f"127.0.0.1:{port}"]
    return Peer("verge", folder, [*arguments, "--threads", "1"], port)


def start_nginx(folder, origin):
    nginx = find("nginx", "/usr/sbin/nginx")
    if not nginx:
        return None
    port = free_port()
    config = folder / "nginx.conf"
    text = (ROOT / "bench" / "nginx.conf").read_text()
    # A worker of root's nginx would run as nobody, who may not write into the folder.
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    text = text.format(folder=folder, origin=origin.address, port=port, user=user, group=group)
    config.write_text(text)
    arguments = [nginx, "-c", config, "-p", folder, "-e", folder / "nginx-error.log"]
    return Peer("nginx", folder, arguments, port)


def start_wasmtime(folder):
    wasmtime = find("wasmtime")
    if not wasmtime:
        return None
    port = free_port()
    guest = folder / "hello-rust.wasm"
    arguments = [wasmtime, "serve", "-S", "cli", "--addr", f"127.0.0.1:{port}", guest]
    return Peer("wasmtime", folder, arguments, port)


def compare(case, path, peers, arguments):
    """Interleaved rounds of every peer on one path; the first peer is ours."""
    rounds = {peer.name: [] for peer in peers}
    for number in range(arguments.rounds):
        # Who goes first changes, so that neither always has the warmer machine.
        for peer in peers if number % 2 == 0 else reversed(peers):
            before = peer.cpu_seconds()
            rate, p99 = wrk(peer.port, path, arguments.seconds)
            used = peer.cpu_seconds() - before
            rounds[peer.name].append({"rps": rate, "p99_ms": p99, "cpu_s": round(used, 2)})
    result = {"case": case, "path": path, "rounds": rounds, "median_rps": {}}
    for name, measured in rounds.items():
        result["median_rps"][name] = statistics.median(m["rps"] for m in measured)
    line = "  ".join(f"{name} {rate:>10,.0f}/s" for name, rate in result["median_rps"].items())
    if len(peers) > 1:
        ours, theirs = (result["median_rps"][peer.name] for peer in peers)
        result["ratio"], result["promised"] = ours / theirs, PROMISED[case]
        pairs = zip(rounds[peers[0].name], rounds[peers[1].name])
        each = [a["rps"] / b["rps"] for a, b in pairs]
        line += f"  ratio {ours / theirs:.2f} (rounds {min(each):.2f} to {max(each):.2f}"
        line += f"; promised {PROMISED[case]:.1f})"
    print(f"{case:>8}  {line}", flush=True)
    return result


def check_bodies(peers):
    """Both must really serve the same, from their caches."""
    for name, size in SIZES.items():
        for peer in peers:
            for _ in range(3):
                status, length = peer.get(f"/{name}")
                if (status, length) != (200, size):
                    fail(f"{peer.name} answers /{name} with {status} and {length} bytes")


def run_cases(arguments, folder):
    origin = Origin()
    peers, results = [], []
    try:
        verge = start_verge(arguments.bin, folder, origin)
        peers.append(verge)
        verge.wait("/1k")
        hits = [case for case in SIZES if case in arguments.only]
        nginx = start_nginx(folder, origin) if hits else None
        if nginx:
            peers.append(nginx)
            nginx.wait("/1k")
        elif hits:
            print("bench: no nginx here: our own figures alone")
        cached = [verge, nginx] if nginx else [verge]
        check_bodies(cached)
        asked = origin.asked
        for case in hits:
            results.append(compare(case, f"/{case}", cached, arguments))
        if origin.asked != asked:
            fail(f"{origin.asked - asked} requests reached the origin: these were no hits")
        if "handler" in arguments.only:
            wasmtime = start_wasmtime(folder)
            if wasmtime:
                peers.append(wasmtime)
                wasmtime.wait("/hello")
            else:
                print("bench: no wasmtime here (cargo install wasmtime-cli@48.0.8): own figure alone")
            verge.wait("/hello")
            both = [verge, wasmtime] if wasmtime else [verge]
            results.append(compare("handler", "/hello", both, arguments))
    finally:
        for peer in peers:
            peer.stop()
    return results


def main():
    cases = [*SIZES, "handler"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("--only", default=",".join(cases), help="cases, with commas between them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="the length of a round")
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench.json")
    parser.add_argument("--strict", action="store_true", help="fail when a promise is not kept")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    arguments.bin = arguments.bin.resolve()
    unknown = set(arguments.only) - set(cases)
    if unknown:
        fail(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    for tool in ("wrk", "taskset"):
        if not find(tool):
            fail(f"no {tool}: run scripts/setup.sh bench")
    if (os.cpu_count() or 1) < 2:
        fail("two cores are needed: one for the server, one for wrk")
    ram = Path("/dev/shm")
    place = ram if os.access(ram, os.W_OK) else None
    print(f"{arguments.rounds} rounds of {arguments.seconds} s, {CONNECTIONS} connections; medians:")
    with tempfile.TemporaryDirectory(prefix="verge-bench-", dir=place) as folder:
        results = run_cases(arguments, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {os.path.relpath(arguments.out)}")
    broken = [r["case"] for r in results if "ratio" in r and r["ratio"] < r["promised"]]
    if broken:
        print(f"below what is promised: {', '.join(broken)}")
    return 1 if broken and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
