"""Builds `handler.wasm`: `.venv/bin/python build.py`. With `module`, the module that it is made of only;
with `test`, builds the tests for this machine and runs them."""

import os
import subprocess
import sys
from pathlib import Path

import ziglang

# By its real path, by which it finds again what it has compiled of the C library.
COMPILER = Path(ziglang.__file__).resolve().with_name("zig")
ZIG = [str(COMPILER), "cc", "-std=c17", "-Wall", "-Wextra", "-O2"]
WASI = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-s"]
MODULE = "build/handler.module.wasm"


def run(*command: str) -> None:
    try:
        code = subprocess.run(command).returncode
    except FileNotFoundError:
        sys.exit(f"build.py: there is no `{command[0]}` in the PATH")
    if code != 0:
        sys.exit(f"build.py: {command[0]} failed")


os.chdir(Path(__file__).parent)
Path("build").mkdir(exist_ok=True)
sources = sorted(str(path) for path in Path(".").glob("*.c") if not path.name.startswith("test_"))
if sys.argv[1:] == ["test"]:
    # What calls the edge is left out: this machine is none.
    pure = [path for path in sources if path not in ("handler.c", "edge.c")]
    run(*ZIG, *(str(path) for path in Path(".").glob("test_*.c")), *pure, "-o", "build/tests")
    run("build/tests")
    print("build.py: the tests passed")
else:
    bindings = [str(path) for path in Path("bindings").glob("*.c")]
    run(*ZIG, *WASI, *sources, *bindings, "-o", MODULE)
    if sys.argv[1:] != ["module"]:
        run(os.environ.get("VERGE", "verge"), "component", MODULE, "--out", "handler.wasm")
