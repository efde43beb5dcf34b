#!/usr/bin/env python3
"""Shows Verge at work on this machine: an origin, a control plane, two edges, real requests.

Starts everything on loopback, tells in plain words what happens, and stops all of it at the end, by
process id. With --once it exits by itself: 0 only if every step was seen to hold.
Uses the standard library alone.
"""

import argparse
import ctypes
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "demo.example"
DEADLINE = 30.0
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".svg": "image/svg+xml"}


class Failed(Exception):
    """A step that was not seen to hold."""


# === What is shown ===


def say(text=""):
    print(text, flush=True)


def step(number, title):
    say(f"\n{number}. {title}")


def hold(condition, claim):
    """Says a claim that was seen to hold; ends the demo when it does not."""
    if not condition:
        raise Failed(claim)
    say(f"   ✓ {claim}")


def wait_for(what, condition):
    """Asks again and again until the condition gives something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise Failed(f"waited {DEADLINE:.0f} s in vain: {what}")


# === The origin ===


class Origin:
    """A plain web server of the files in a folder. It counts what it is asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                origin.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request):
        path = request.path.split("?")[0]
        self.asked.append(path)
        file = self.folder / ("index.html" if path == "/" else path.lstrip("/"))
        inside = self.folder in file.resolve().parents
        found = inside and file.is_file()
        body = file.read_bytes() if found else b"no such page\n"
        etag = '"%s"' % hashlib.sha256(body).hexdigest()[:16]
        unchanged = found and request.headers.get("If-None-Match") == etag
        request.send_response(304 if unchanged else 200 if found else 404)
        request.send_header("ETag", etag)
        request.send_header("Cache-Control", "public, max-age=3600" if found else "no-store")
        request.send_header("Cache-Tag", f"demo, {file.stem}")
        if not unchanged:
            request.send_header("Content-Type", KINDS.get(file.suffix, "text/plain"))
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if not unchanged and request.command != "HEAD":
            request.wfile.write(body)


# === Processes ===


def die_with_parent():
    """In the child: the kernel ends it when this script is gone, however it went (Linux)."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (AttributeError, OSError):
        pass


class Processes:
    """What the demo started; all of it is stopped in the end."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}

    def start(self, name, arguments):
        log = open(self.folder / f"{name}.log", "ab")
        # A session of its own: Ctrl-C reaches this script, which then stops the rest in order.
        process = subprocess.Popen(
            [str(a) for a in arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        log.close()
        self.running[name] = process
        return process

    def stop(self, name):
        process = self.running.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def stop_all(self):
        for name in reversed(list(self.running)):
            self.stop(name)

    def check(self, name):
        process = self.running[name]
        if process.poll() is not None:
            raise Failed(f"{name} ended with code {process.returncode}")

    def tails(self):
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-25:]
            say(f"---- {log.stem} said at the end")
            say("\n".join(lines))


def free_port(wanted):
    """The port wanted when it is free, so that URLs stay the same from demo to demo; else any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise Failed("no free port on 127.0.0.1")


# === Requests ===


class Reply:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.text = body.decode(errors="replace")

    @property
    def cache(self):
        return self.headers.get("Cache-Status", "")

    @property
    def hit(self):
        return any(part.strip() == "hit" for part in self.cache.split(";"))


def ask(port, method, path, headers=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Reply(response, response.read())
    finally:
        connection.close()


# === The demo ===


class Demo:
    def __init__(self, binaries, folder):
        self.binaries = binaries
        self.folder = folder
        self.processes = Processes(folder)
        (folder / "site").mkdir()
        for file in (ROOT / "demo" / "site").iterdir():
            shutil.copy(file, folder / "site")
        self.origin = Origin((folder / "site").resolve())
        self.edges = {}

    # --- the parts ---

    def run_control(self):
        self.processes.start(
            "control",
            [self.binaries / "verge-control", "--data", self.folder / "data"]
            + ["--listen", f"127.0.0.1:{self.control}"],
        )

        def up():
            self.processes.check("control")
            try:
                return ask(self.control, "GET", "/readyz").status == 200
            except OSError:
                return False

        wait_for("the control plane to be ready", up)

    def start_control(self):
        made = subprocess.run(
            [self.binaries / "verge-control", "init", "--data", self.folder / "data"],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise Failed(f"verge-control init: {made.stderr.strip()}")
        self.token = made.stdout.split()[-1]
        self.control = free_port(7700)
        self.run_control()

    def api(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        reply = ask(self.control, method, path, headers, json.dumps(body) if body else None)
        if reply.status >= 300:
            raise Failed(f"{method} {path}: {reply.status} {reply.text}")
        return json.loads(reply.text)

    def verge(self, *arguments):
        """The command line, as a developer or an admin types it."""
        say(f"   $ verge {' '.join(arguments)}")
        environment = dict(
            os.environ,
            VERGE_CONTROL=f"http://127.0.0.1:{self.control}",
            VERGE_TOKEN=self.token,
            XDG_CONFIG_HOME=str(self.folder),
        )
        done = subprocess.run(
            [self.binaries / "verge", *arguments, "--json"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            timeout=120,
        )
        if done.returncode != 0:
            raise Failed(f"verge {arguments[0]}: {done.stdout.strip()} {done.stderr.strip()}")
        return json.loads(done.stdout)

    def start_edge(self, name, wanted):
        token = self.api("POST", "/v1/tokens", {"name": f"join {name}", "scopes": ["join"]})
        port = free_port(wanted)
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'name = "{name}"\n'
            f'control = "http://127.0.0.1:{self.control}"\n'
            f'join_token = "{token["token"]}"\n'
            f'state_dir = "{self.folder / name}"\n'
            # The demo's origin is on loopback, where an edge refuses to go unless told to.
            "allow_private_origins = true\n"
            f'[listen]\nhttp = ["127.0.0.1:{port}"]\n'
        )
        self.processes.start(name, [self.binaries / "verge-edge", "--config", config])
        self.edges[name] = port

    def wait_for_edges(self, revision=0):
        def ready():
            for name in self.edges:
                self.processes.check(name)
            items = {edge["name"]: edge for edge in self.api("GET", "/v1/edges")["items"]}
            return all(
                name in items and items[name]["connected"] and items[name]["applied"] >= revision
                for name in self.edges
            )

        wait_for("both edges to follow the control plane", ready)

    def get(self, edge, path):
        started = time.monotonic()
        reply = ask(self.edges[edge], "GET", path, {"Host": HOST})
        took = (time.monotonic() - started) * 1000
        state = "hit" if reply.hit else "miss" if "fwd=" in reply.cache else "computed"
        say(f"   {edge}: GET {path} → {reply.status}, {state}, {took:.1f} ms  [{reply.cache}]")
        return reply

    # --- the steps ---

    def start(self):
        step(1, "Start a control plane (embedded store), an origin and two edges")
        self.start_control()
        say(f"   control plane on http://127.0.0.1:{self.control}, origin on {self.origin.url}")
        self.start_edge("edge-one", 8081)
        self.start_edge("edge-two", 8082)
        self.wait_for_edges()
        hold(True, "both edges have enrolled with a join token and hold their feeds open")

    def deploy(self):
        step(2, "Deploy the demo site with the command line")
        text = (ROOT / "demo" / "verge.toml").read_text()
        text = text.replace("http://127.0.0.1:9000", self.origin.url)
        (self.folder / "verge.toml").write_text(text)
        guest = ROOT / "wasm-handlers" / "guests" / "build" / "hello-rust.wasm"
        shutil.copy(guest, self.folder / "hello-rust.wasm")
        self.verge("deploy", "--site", "verge.toml")
        site = self.api("GET", "/v1/sites/demo")
        hold(site["active"] == 1, "version 1 is active")
        self.wait_for_edges(site["revision"])
        hold(True, f"both edges have applied revision {site['revision']}")

    def miss_then_hit(self):
        step(3, "The first visitor of each edge waits for the origin; the next one does not")
        for edge in self.edges:
            first, second = self.get(edge, "/news.html"), self.get(edge, "/news.html")
            hold(first.status == 200 and not first.hit, f"{edge} had to ask the origin")
            hold(second.status == 200 and second.hit, f"{edge} then answered from its cache")
            hold(first.text == second.text and "Edition 1" in second.text, "the same page")
        asked = self.origin.asked.count("/news.html")
        hold(asked == 2, "the origin was asked once by each edge")

    def handler(self):
        step(4, "A WebAssembly handler computes an answer at the edge")
        for edge in self.edges:
            reply = self.get(edge, "/hello/")
            say(f"   it says: {reply.text.strip().splitlines()[0] if reply.text else ''}")
            hold(reply.status == 200 and "Welcome to the demo" in reply.text, f"{edge} ran it")

    def purge(self):
        step(5, "The page changes at the origin; a purge by tag makes every edge forget it")
        page = self.folder / "site" / "news.html"
        page.write_text(page.read_text().replace("Edition 1", "Edition 2"))
        for edge in self.edges:
            hold("Edition 1" in self.get(edge, "/news.html").text, f"{edge} still has edition 1")
        receipt = self.verge("purge", "--site", "demo", "--tag", "news", "--wait")
        for edge in receipt["edges"]:
            say(
                f"   receipt: {edge['edge']} {edge['state']} after {edge['latency_ms']} ms, "
                f"{edge['matched']} object(s) matched"
            )
        states = {edge["edge"]: edge["state"] for edge in receipt["edges"]}
        both = all(states.get(edge) == "applied" for edge in self.edges)
        hold(receipt["complete"] and both, "the receipt says that both edges have applied it")
        for edge in self.edges:
            reply = self.get(edge, "/news.html")
            hold("Edition 2" in reply.text and not reply.hit, f"{edge} fetched edition 2")

    def offline(self):
        step(6, "Without the control plane the edges go on serving")
        self.processes.stop("control")
        say("   the control plane is stopped")
        for edge in self.edges:
            cached, cold = self.get(edge, "/news.html"), self.get(edge, "/style.css")
            hold(cached.status == 200 and cached.hit, f"{edge} serves what it has")
            hold(cold.status == 200, f"{edge} fetches what it has not")
            hold("Welcome" in self.get(edge, "/hello/").text, f"{edge} runs handlers")
        self.run_control()
        self.wait_for_edges()
        hold(True, "the control plane is back, and both edges follow it again")

    def run(self):
        self.start()
        self.deploy()
        self.miss_then_hit()
        self.handler()
        self.purge()
        self.offline()


def stop_on(number, _frame):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "debug")
    parser.add_argument("--once", action="store_true", help="exit when every step was shown")
    arguments = parser.parse_args()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop_on)
    # A shell that starts this in the background has it ignore Ctrl-C otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    say("Verge on one machine: an origin, a control plane, two edges.")
    with tempfile.TemporaryDirectory(prefix="verge-demo-") as folder:
        demo = Demo(arguments.bin.resolve(), Path(folder))
        try:
            demo.run()
            say("\nEvery step was seen to hold.")
            if arguments.once:
                return 0
            say("\nTry it:")
            for edge, port in demo.edges.items():
                say(f"  {edge:14} http://localhost:{port}/   (also /news.html and /hello/)")
            say(f"  control plane  http://127.0.0.1:{demo.control}/v1/openapi.json")
            say("\nCtrl-C stops everything.")
            while True:
                signal.pause()
        except KeyboardInterrupt:
            say("\nStopping.")
            return 0
        except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as failure:
            say(f"   ✗ {failure}")
            demo.processes.tails()
            return 1
        finally:
            demo.processes.stop_all()


if __name__ == "__main__":
    sys.exit(main())
