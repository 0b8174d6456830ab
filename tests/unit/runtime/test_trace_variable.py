"""``_X_AMZN_TRACE_ID``: the running event's, for Python and for the processes that it starts."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import os, subprocess, sys
from wisp_runtime.trace_variable import TraceVariable

def shown():
    inherited = subprocess.check_output(["sh", "-c", "echo $_X_AMZN_TRACE_ID"], text=True).strip()
    os.system("echo $_X_AMZN_TRACE_ID > out")
    return [os.environ.get("_X_AMZN_TRACE_ID", ""), dict(os.environ).get("_X_AMZN_TRACE_ID", ""), inherited, open("out").read().strip()]

variable = TraceVariable()
for value in ("Root=1-a", "Root=1-b", ""):
    variable.set(value)
    assert shown() == [value] * 4, (value, shown())

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
for number in range(40_000):
    variable.set(f"Root=1-{number:060}")
assert resident() - before < 2 << 20
"""


def test_the_trace_in_the_environment(tmp_path: Path) -> None:
    """os.environ, its copies and children of every kind have the running event's trace, and 40,000 events leave no memory behind."""
    subprocess.run([sys.executable, "-c", CODE], check=True, cwd=tmp_path)
