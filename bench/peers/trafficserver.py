"""Apache Traffic Server: one event thread, everything in its RAM cache, storage on the RAM disk."""

import subprocess

from machine import Server, fail, find, free_port


def start(stage, program):
    port = free_port()
    root = stage.folder / "trafficserver"
    config = root / "etc"
    for name in ("cache", "log", "run"):
        (root / name).mkdir(parents=True)
    values = {"root": root, "port": port}
    for name in ("records.config", "storage.config", "remap.config", "ip_allow.yaml"):
        stage.template(f"trafficserver/{name}", config / name, **values)
    for name in ("plugin.config", "ssl_multicert.config", "logging.yaml", "sni.yaml"):
        (config / name).write_text("")
    folders = stage.template("trafficserver/runroot.yaml", root / "runroot.yaml", **values)
    layout(program, folders)
    return Server("trafficserver", stage.folder, [program, f"--run-root={folders}"], port)


def layout(program, folders):
    """Checks that the folders are taken, so that a fault is said before a round is lost."""
    done = subprocess.run([program, f"--run-root={folders}", "-V"], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"trafficserver: {done.stdout}{done.stderr}")
