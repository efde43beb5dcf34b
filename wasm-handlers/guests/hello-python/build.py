"""Builds `handler.wasm`, or what the argument names: `.venv/bin/python build.py`."""

import os
import subprocess
import sys
from pathlib import Path

folder = Path(__file__).absolute().parent
out = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else folder / "handler.wasm"
os.chdir(folder)

# `app` is the module that joins `handler.py` to the interfaces in `wit`. The component goes into place
# whole: who looks for it never finds half of one.
tool = Path(sys.executable).with_name("componentize-py")
half = out.with_suffix(".tmp")
command = [tool, "--quiet", "-d", "wit", "-w", "handler", "componentize", "app", "-o", half]
if subprocess.run(command).returncode != 0:
    sys.exit("build.py: componentize-py failed")
half.replace(out)
