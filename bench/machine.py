"""What the comparisons need of the machine: programs, ports, pinned processes, a place in RAM."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The server under test has a core to itself; the load shares the other one with the origin.
SERVER_CORE, CLIENT_CORE = 0, 1
DEADLINE = 60.0


def fail(text):
    sys.exit(f"bench: {text}")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def find(name):
    """A program in PATH, or where Debian keeps servers out of an ordinary user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, arguments):
    return ["taskset", "-c", str(core), *map(str, arguments)]


def compile_c(source, folder):
    """Compiles one of bench/load/*.c into the folder; the program."""
    program = folder / source.stem
    done = subprocess.run(
        [find("cc") or fail("no cc: install gcc"), "-O2", "-o", program, source],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        fail(f"cc {source.name}:\n{done.stderr}")
    return program


def ask(port, path, host="bench", method="GET", headers=None, body=None):
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(method, path, body=body, headers={"Host": host, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def descendants(pid):
    found = [pid]
    for parent in found:
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
            found += [int(child) for child in text.split()]
        except OSError:
            pass
    return found


class Server:
    """One server under test, pinned to its core; stopped by its process id."""

    def __init__(self, name, folder, arguments, port=None, tls_port=None, core=SERVER_CORE, env=None):
        self.name, self.port, self.tls_port = name, port, tls_port
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                pinned(core, arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                # Ctrl-C is for the script, which then stops its servers in order.
                start_new_session=True,
            )

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        workers = descendants(self.pid)
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            # A master that is killed would leave its workers behind.
            for pid in workers:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()

    def wait(self, ready):
        """Waits until the condition holds; an OSError counts as not yet."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if ready():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        fail(f"{self.name} does not get ready:\n{self.log.read_text(errors='replace')[-2000:]}")

    def wait_for(self, path):
        self.wait(lambda: ask(self.port, path)[0] == 200)

    def cpu_seconds(self):
        """User and system time so far, of the process and of what it started."""
        total = 0.0
        for pid in descendants(self.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        return total

    def resident_bytes(self):
        text = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
