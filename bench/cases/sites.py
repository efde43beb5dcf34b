"""Hits at 10,000 sites against hits at one site: a fleet edge with a control plane, a standalone one."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import measure
from machine import CLIENT_CORE, Server, ask, fail, free_port, say
from measure import Goal

CASES = {"sites": "1 KiB hits at 10,000 sites against 1 site, 10,000 objects each"}
SITES, QUICK_SITES = 10_000, 200
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
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": kind}
        status, answer = ask(self.port, path, f"127.0.0.1:{self.port}", method, headers, text)
        if status >= 300:
            fail(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer)

    def deploy(self, number, origin, token):
        """Uploads and activates a site; the revision."""
        text, path = SITE.format(number=number, origin=origin), f"/v1/sites/s{number}"
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


def deploy_all(stage, control, edge, sites):
    """Uploads all sites and waits for the edge; in words, where the time went."""
    started = time.monotonic()
    tokens = [control.tenant(f"t{n}") for n in range(-(-sites // SITES_PER_TENANT))]
    with ThreadPoolExecutor(4) as pool:
        origin = stage.origin.address
        deploy = lambda n: control.deploy(n, origin, tokens[n // SITES_PER_TENANT])
        revision = max(pool.map(deploy, range(sites)))
    uploaded = time.monotonic()
    while not control.applied(revision):
        if time.monotonic() - uploaded > DEADLINE or edge.process.poll() is not None:
            fail(f"the edge has not applied revision {revision} after {DEADLINE:.0f} s")
        time.sleep(0.05)
    waited = time.monotonic() - uploaded
    return f"{sites:,} sites uploaded and activated in {uploaded - started:.0f} s, applied {waited:.1f} s later"


def run(bench, names):
    if not (bench.binaries / "verge-control").exists():
        say(f"no verge-control in {bench.binaries.name}: no case sites")
        return
    sites = QUICK_SITES if bench.quick else SITES
    with bench.stage() as stage:
        control = Control(stage)
        many = start_edge(stage, control)
        note = deploy_all(stage, control, many, sites)
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
        yield measure.against_itself(names[0], seen, Goal(0.85), f"at 1 site; {note}")
