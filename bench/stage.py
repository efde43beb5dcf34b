"""Where a case runs: folders of its own, an origin, and servers that are all stopped in the end."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import measure
from machine import CLIENT_CORE, ROOT, Server, ask, compile_c, fail, find, free_port

LOAD = ROOT / "bench" / "load"


class Bench:
    """What all cases share: the programs, the options, the certificate."""

    def __init__(self, arguments, folder):
        self.binaries = arguments.bin
        self.rounds, self.seconds, self.quick = arguments.rounds, arguments.seconds, arguments.quick
        self.disk = arguments.disk
        self.folder = folder
        self.origin_program = compile_c(LOAD / "origin.c", folder)
        self.load_program = compile_c(LOAD / "load.c", folder)

    def load(self, server, **options):
        return measure.load(self.load_program, server.port, **options)

    def certificate(self):
        """A certificate for localhost and its key; made once. None without openssl."""
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        if not cert.exists():
            if not find("openssl"):
                return None
            command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            done = subprocess.run(
                [*command.split(), "-subj", "/CN=localhost", "-keyout", key, "-out", cert]
                + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                fail(f"openssl: {done.stderr}")
        return cert, key

    def stage(self):
        return Stage(self)


class Origin(Server):
    """bench/load/origin.c: answers every size at its path, and counts what it is asked."""

    def __init__(self, program, folder, name="origin", core=CLIENT_CORE):
        super().__init__(name, folder, [program], core=core)
        self.wait(lambda: self.log.read_text().endswith("\n"))
        self.port = int(self.log.read_text())
        self.address = f"127.0.0.1:{self.port}"

    @property
    def asked(self):
        return int(ask(self.port, "/asked")[1])


class Stage:
    """`with bench.stage() as stage`: one origin, any servers; everything is gone at the end."""

    def __init__(self, bench):
        self.bench = bench
        self.servers = []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="stage-", dir=self.bench.folder))
        # A worker that a root server starts as nobody must reach its files.
        os.chmod(self.folder, 0o755)
        self.disk = None
        self.origin = self.add(Origin(self.bench.origin_program, self.folder))
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.disk:
            shutil.rmtree(self.disk, ignore_errors=True)

    def add(self, server):
        self.servers.append(server)
        return server

    def limit(self):
        """The origin's program in the place of the server: what the set-up can do at most."""
        return self.add(Origin(self.bench.origin_program, self.folder, "limit", 0))

    def disk_folder(self, name):
        if not self.disk:
            self.bench.disk.mkdir(parents=True, exist_ok=True)
            self.disk = Path(tempfile.mkdtemp(prefix="verge-bench-", dir=self.bench.disk))
        folder = self.disk / name
        folder.mkdir()
        return folder

    def template(self, source, name, **values):
        """Fills in a file of bench/peers: what stands as @name@. The folder that holds it now."""
        text = (ROOT / "bench" / "peers" / source).read_text()
        for key, value in {"folder": self.folder, "origin": self.origin.address, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        to = self.folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text)
        return to

    def verge(self, *options, name="verge", site="verge.toml", tls=False, **values):
        edge = self.bench.binaries / "verge-edge"
        port, tls_port = free_port(), free_port() if tls else None
        arguments = [edge, "--site", self.template(site, f"{name}.toml", **values), "--threads", "1"]
        arguments += ["--listen", f"127.0.0.1:{port}", *options]
        if tls:
            cert, key = self.bench.certificate()
            arguments += ["--tls-listen", f"127.0.0.1:{tls_port}", "--cert", cert, "--key", key]
        server = self.add(Server(name, self.folder, arguments, port, tls_port))
        server.wait_for("/1k")
        return server
