"""A fleet: an edge with a control plane. Its many sites against the one of a standalone edge, by hits and by handlers
of which each site has a component of its own; and how soon a handler is in force.
"""

import hashlib
import json
import shutil
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import measure
from machine import CLIENT_CORE, ROOT, Server, ask, fail, free_port, say
from measure import Goal, Result

CASES = {
    "sites": "1 KiB hits at 10,000 sites against 1 site, 10,000 objects each",
    "handler-deploy": "from the upload of a component to its site being in force on an edge, and the first request",
    "handler-sites": "handlers of 1,000 sites, a component each, against the handler of 1 site",
}
SITES, QUICK_SITES = 10_000, 200
HANDLER_SITES, QUICK_HANDLER_SITES = 1_000, 10
HANDLER = ROOT / "wasm-handlers" / "guests" / "build" / "hello-rust.wasm"
# A tenant may have a thousand.
SITES_PER_TENANT = 500
DEADLINE = 900.0
SITE = """site = "s{number}"
domains = ["s{number}.bench.test"]
[origins.web]
urls = ["http://{origin}"]
[[routes]]
path = "/*"
origin = "web"
"""
HANDLER_SITE = """site = "s{number}"
domains = ["s{number}.bench.test"]
[handlers.hello]
component = "sha256:{digest}"
[[routes]]
path = "/hello"
handler = "hello"
cache = {{ position = "off" }}
"""


class Control:
    """A control plane with its admin token."""

    def __init__(self, stage):
        program, data = stage.bench.binaries / "verge-control", stage.folder / "control"
        made = subprocess.run([program, "init", "--data", data], capture_output=True, text=True)
        if made.returncode != 0:
            fail(f"verge-control init: {made.stderr}")
        self.token, self.port = made.stdout.split()[-1], free_port()
        arguments = [program, "--data", data, "--listen", f"127.0.0.1:{self.port}"]
        self.server = stage.add(
            Server("control", stage.folder, arguments, self.port, core=CLIENT_CORE)
        )
        self.server.wait_for("/readyz")

    def tenant(self, name):
        """Makes a tenant; a token to deploy its sites with."""
        self.call("POST", "/v1/tenants", {"name": name})
        wanted = {"name": "deploy", "scopes": ["deploy"], "tenant": name}
        return self.call("POST", "/v1/tokens", wanted)["token"]

    def call(self, method, path, body=None, kind="application/json", token=None):
        text = json.dumps(body) if isinstance(body, dict) else body
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": kind}
        status, answer = ask(self.port, path, f"127.0.0.1:{self.port}", method, headers, text)
        if status >= 300:
            fail(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer)

    def upload(self, component, token):
        """Uploads a component; its digest."""
        digest = hashlib.sha256(component).hexdigest()
        self.call("PUT", f"/v1/blobs/{digest}", component, "application/wasm", token)
        return digest

    def deploy(self, number, text, token):
        """Uploads and activates a site; the revision."""
        path = f"/v1/sites/s{number}"
        uploaded = self.call("POST", f"{path}/versions", text, "application/toml", token)
        active = {"version": uploaded["version"]}
        return self.call("PUT", f"{path}/active", active, token=token)["revision"]

    def applied(self, revision):
        edges = self.call("GET", "/v1/edges")["items"]
        return bool(edges) and all(e["connected"] and e["applied"] >= revision for e in edges)


def start_edge(stage, control):
    token = control.call("POST", "/v1/tokens", {"name": "join", "scopes": ["join"]})["token"]
    port, config = free_port(), stage.folder / "edge.toml"
    config.write_text(
        f'name = "bench"\ncontrol = "http://127.0.0.1:{control.port}"\njoin_token = "{token}"\n'
        f'state_dir = "{stage.folder / "edge"}"\nthreads = 1\nallow_private_origins = true\n'
        f'[listen]\nhttp = ["127.0.0.1:{port}"]\n[cache]\nram = "1GiB"\n'
    )
    arguments = [stage.bench.binaries / "verge-edge", "--config", config]
    server = stage.add(Server("many", stage.folder, arguments, port))
    server.wait(lambda: control.applied(0))
    return server


def deploy_all(control, edge, sites, site):
    """Uploads all sites and waits for the edge; in words, where the time went. `site` gives a site's text by its
    number and a token."""
    started = time.monotonic()
    tokens = [control.tenant(f"t{n}") for n in range(-(-sites // SITES_PER_TENANT))]
    with ThreadPoolExecutor(4) as pool:
        token = lambda n: tokens[n // SITES_PER_TENANT]
        deploy = lambda n: control.deploy(n, site(n, token(n)), token(n))
        revision = max(pool.map(deploy, range(sites)))
    uploaded = time.monotonic()
    while not control.applied(revision):
        if time.monotonic() - uploaded > DEADLINE or edge.process.poll() is not None:
            fail(f"the edge has not applied revision {revision} after {DEADLINE:.0f} s")
        time.sleep(0.05)
    waited = time.monotonic() - uploaded
    return f"{sites:,} sites uploaded and activated in {uploaded - started:.0f} s, applied {waited:.1f} s later"


def own(component, number):
    """The same component with a custom section that no other has."""
    note = b"\x05bench" + number.to_bytes(4, "big")
    return component + bytes([0, len(note)]) + note


def hits(bench, case):
    sites = QUICK_SITES if bench.quick else SITES
    with bench.stage() as stage:
        control = Control(stage)
        many = start_edge(stage, control)
        origin = stage.origin.address
        site = lambda number, _: SITE.format(number=number, origin=origin)
        note = deploy_all(control, many, sites, site)
        few = stage.verge("--ram", "1GiB", name="few")
        urls = {
            "many": {"path": "/1k", "host": "s%.bench.test", "count": sites},
            "few": {"path": "/1k/%", "host": "bench", "count": sites},
        }
        for server in (many, few):
            bench.load(server, requests=sites, **urls[server.name])
        asked = stage.origin.asked

        def one_round(server):
            return bench.load(server, seconds=bench.seconds, order="random", **urls[server.name])

        seen = measure.interleave([many, few], bench.rounds, one_round)
        if stage.origin.asked != asked:
            fail(f"{stage.origin.asked - asked} requests reached the origin: these were no hits")
        return measure.against_itself(case, seen, Goal(0.85), f"at 1 site; {note}")


def handler_site(control, component, number, token):
    """Uploads a component of the site's own; the text of the site."""
    digest = control.upload(own(component, number), token)
    return HANDLER_SITE.format(number=number, digest=digest)


def deploy(bench, case):
    """Each round is a new site with a component that nobody has compiled before."""
    component, rounds = HANDLER.read_bytes(), []
    with bench.stage() as stage:
        control = Control(stage)
        edge = start_edge(stage, control)
        token = control.tenant("t0")
        for number in range(bench.rounds):
            started = time.monotonic()
            revision = control.deploy(number, handler_site(control, component, number, token), token)
            while not control.applied(revision):
                if time.monotonic() - started > DEADLINE:
                    fail(f"the edge has not applied revision {revision} after {DEADLINE:.0f} s")
                time.sleep(0.005)
            live = time.monotonic()
            status, _ = ask(edge.port, "/hello", f"s{number}.bench.test")
            first = time.monotonic() - live
            if status != 200:
                fail(f"the first request was answered {status}")
            rounds.append({"live_s": live - started, "first_ms": first * 1000})
    live, first = (statistics.median(each[key] for each in rounds) for key in ("live_s", "first_ms"))
    note = f"the first request took {first:.1f} ms with its connection (goal ≤ 5)"
    goal = Goal(2, at_most=True)
    return Result(case, "s", {"verge": live}, live, goal, rounds={"verge": rounds}, note=note)


def handlers(bench, case):
    sites = QUICK_HANDLER_SITES if bench.quick else HANDLER_SITES
    component = HANDLER.read_bytes()
    with bench.stage() as stage:
        control = Control(stage)
        many = start_edge(stage, control)
        site = lambda number, token: handler_site(control, component, number, token)
        note = deploy_all(control, many, sites, site)
        shutil.copy(HANDLER, stage.folder)
        few = stage.verge(name="few", site="handler.toml", component=HANDLER.name)
        urls = {
            "many": {"path": "/hello", "host": "s%.bench.test", "count": sites},
            "few": {"path": "/hello", "host": "bench", "count": 1},
        }
        # The first request of each is not what a second one finds.
        for server in (many, few):
            bench.load(server, requests=sites, **urls[server.name])

        def one_round(server):
            return bench.load(server, seconds=bench.seconds, order="random", **urls[server.name])

        seen = measure.interleave([many, few], bench.rounds, one_round)
        return measure.against_itself(case, seen, Goal(0.7), f"at 1 site; {note}")


def run(bench, names):
    if not (bench.binaries / "verge-control").exists():
        say(f"no verge-control in {bench.binaries.name}: no case {', '.join(names)}")
        return
    for name in names:
        if name == "sites":
            yield hits(bench, name)
        elif not HANDLER.is_file():
            say(f"no example handlers: run `make guests`; no case {name}")
        else:
            yield (deploy if name == "handler-deploy" else handlers)(bench, name)
