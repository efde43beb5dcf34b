"""A million objects in one edge: what each costs in RAM, whether hits stay fast, what a purge takes."""

import json
import socket
import statistics
import time

import measure
from machine import fail, free_port
from measure import Goal, Result

CASES = {
    "ram": "RAM above header and body, per 1 KiB object at 1 M objects",
    "objects": "1 KiB hits at 1 M objects against 1 k objects",
    "purge": "purge of one tag that 10 of 1 M objects carry, at the edge",
}
OBJECTS, QUICK_OBJECTS, FEW = 1_000_000, 20_000, 1_000
TAGGED = 10


def origin_bytes(port):
    """Header and body of one response, as the origin sends them."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /1k/1 HTTP/1.1\r\nHost: bench\r\n\r\n")
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 1024:
            received += connection.recv(65536)
        return len(received)


class Admin:
    """A keep-alive connection to the admin listener, one write a request."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=b""):
        """The answer's body, and how long it took in seconds."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        started = time.perf_counter()
        self.socket.sendall(request)
        received = b""
        while True:
            received += self.socket.recv(65536)
            head, found, rest = received.partition(b"\r\n\r\n")
            if found:
                lines = head.lower().split(b"\r\n")
                lengths = [line for line in lines if line.startswith(b"content-length:")]
                if len(rest) >= int(lengths[0].split(b":")[1]):
                    break
        took = time.perf_counter() - started
        if not head.startswith(b"HTTP/1.1 20"):
            fail(f"{method} {path}: {received.decode(errors='replace')}")
        return rest, took


def start(stage, name):
    admin = free_port()
    server = stage.verge("--ram", "6GiB", "--admin", f"127.0.0.1:{admin}", name=name)
    return server, admin


def measure_ram(bench, stage, server, objects):
    bench.load(server, requests=FEW, path="/1k/warm/%", count=FEW)
    before = server.resident_bytes()
    bench.load(server, requests=objects, path="/1k/%", count=objects)
    grown = server.resident_bytes() - before
    asked, sample = stage.origin.asked, min(objects, 50_000)
    bench.load(server, requests=sample, path="/1k/%", count=objects, order="random")
    kept = 1 - (stage.origin.asked - asked) / sample
    if kept < 0.99:
        fail(f"only {kept:.1%} of the objects are still there: a larger --ram is needed")
    own = origin_bytes(stage.origin.port)
    above = grown / objects - own
    note = f"{objects:,} objects, {grown / objects:,.0f} B each, of which {own} B header and body"
    return Result("ram", "B", {"verge": above}, above, Goal(600, at_most=True), note=note)


def measure_objects(bench, few, many, objects):
    few.name, many.name = "few", "many"
    counts = {"few": FEW, "many": objects}
    bench.load(few, requests=FEW, path="/1k/%", count=FEW)

    def one_round(server):
        count = counts[server.name]
        return bench.load(server, seconds=bench.seconds, path="/1k/%", count=count, order="random")

    seen = measure.interleave([many, few], bench.rounds, one_round)
    return measure.against_itself("objects", seen, Goal(0.85), f"at {FEW:,} objects")


def measure_purge(bench, stage, server, admin_port, objects):
    admin = Admin(admin_port)
    body = json.dumps({"selectors": [{"tag": "bench"}]}).encode()
    idle = statistics.median(admin.ask("GET", "/healthz")[1] for _ in range(200))
    times, matched = [], 0
    for _ in range(bench.rounds * 10):
        bench.load(server, requests=TAGGED, connections=1, path="/1k/tagged/%", count=TAGGED)
        answer, took = admin.ask("POST", "/purges", body)
        receipt = json.loads(answer)
        matched = receipt.get("matched", matched)
        asked = stage.origin.asked
        bench.load(server, requests=TAGGED, connections=1, path="/1k/tagged/%", count=TAGGED)
        if stage.origin.asked - asked != TAGGED:
            fail(f"the purge missed some of the tagged objects: {receipt}")
        times.append(took)
    cost = max(statistics.median(times) - idle, 0) * 1000
    note = f"{objects:,} objects, {matched} matched; an empty request takes {idle * 1000:.2f} ms; "
    note += f"slowest purge {(max(times) - idle) * 1000:.2f} ms"
    rounds = {"verge": [{"ms": took * 1000} for took in times]}
    return Result("purge", "ms", {"verge": cost}, cost, Goal(1, at_most=True), rounds=rounds, note=note)


def run(bench, names):
    objects = QUICK_OBJECTS if bench.quick else OBJECTS
    with bench.stage() as stage:
        many, admin = start(stage, "many")
        result = measure_ram(bench, stage, many, objects)
        if "ram" in names:
            yield result
        if "purge" in names:
            yield measure_purge(bench, stage, many, admin, objects)
        if "objects" in names:
            few, _ = start(stage, "few")
            yield measure_objects(bench, few, many, objects)
