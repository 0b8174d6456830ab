"""A function of wisp.yaml on this machine, in the runtime that its pods have; `wisp invoke --local` runs it once.

The runtime is a program beside this one (`python -m wisp_runtime`), which the command doesn't import: it is run where it is installed.
Invariant: the function gets from `--local` what it gets from the cluster for the same call, byte for byte: the request is made by
one and the same `make_call`, and all that reads it is the runtime.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from wisp import output, project
from wisp.errors import CommandError, UsageError
from wisp.invoke import Call
from wisp.logs import render

_MIB: Final = {"Mi": 1, "Gi": 1024}


def run(folder: Path, name: str, call: Call) -> None:
    """Call the function once; its answer goes to standard output, its log lines to standard error.

    Raises:
        UsageError: wisp.yaml has no such function, or its code is not here.
        CommandError: the function failed, or the runtime isn't installed.
    """
    require_runtime()
    loaded = project.load(folder)
    spec = servable(loaded).get(name)
    if spec is None:
        if any((item["kind"], item["metadata"]["name"]) == ("Function", name) for item in loaded.manifests):
            raise UsageError(f"--local runs code.folder and code.files; the code of {name} is elsewhere, or an image")
        raise UsageError(f"{folder / project.FILE} has no function {name}")
    worker = worker_command(spec["runtime"])
    with tempfile.TemporaryDirectory() as place:
        code = loaded.folders.get(name) or write(Path(place, "code"), spec["code"]["files"])
        request = Path(place, "request")
        request.write_bytes(_as_http(call))
        told = {"WISP_FUNCTION": name, "WISP_WORKER": worker}
        if _run(spec.get("handler", "bootstrap"), code, request, environment(spec) | told):
            raise CommandError(f"{name} failed here: its answer and log lines say why")


def require_runtime() -> None:
    """Go on where the runtime is installed.

    Raises:
        CommandError: it isn't.
    """
    if find_spec("wisp_runtime") is None:
        raise CommandError("--local needs the runtime beside this command: pip install ./function-runtime/python")


def servable(loaded: project.Project) -> dict[str, Any]:
    """Specs by name of the functions whose code is here."""
    specs = {item["metadata"]["name"]: item["spec"] for item in loaded.manifests if item["kind"] == "Function"}
    return {name: spec for name, spec in specs.items() if name in loaded.folders or "files" in spec["code"]}


def worker_command(runtime: str) -> str:
    """The command of the runtime's workers, in place of Python's own; empty for Python.

    Raises:
        UsageError: there is none on this machine.
    """
    if runtime == "provided":
        return shlex.join([sys.executable, "-m", "wisp_runtime.bridge"])
    if not runtime.startswith("nodejs"):
        return ""
    found = find_spec("wisp_runtime")
    script = Path(found.origin if found and found.origin else "").parents[3] / "nodejs" / "worker.mjs"
    node = shutil.which("node")
    if node is None or not script.is_file():
        raise UsageError(f"{runtime} on this machine asks for `node` and for the runtime in place: `uv run wisp dev`")
    _check_node(node, int(runtime.removeprefix("nodejs")))
    return shlex.join([node, str(script)])


def _check_node(node: str, needed: int) -> None:
    """Refuse a Node.js that is older than that of the pods."""
    told = subprocess.run([node, "--version"], check=False, capture_output=True, text=True).stdout.strip()
    major = told.removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < needed:
        found = f"is {told}" if told else "tells no version"
        raise UsageError(f"nodejs{needed} on this machine asks for Node.js {needed} or newer, and {node} {found}")


def write(folder: Path, files: dict[str, str]) -> Path:
    """Make the folder anew, of code that wisp.yaml itself holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
        (folder / file).chmod(0o755)  # a bootstrap is executed
    return folder


def environment(spec: Any) -> dict[str, str]:
    """What the runtime is told of a function, and the function's own variables as far as wisp.yaml has their values.

    Raises:
        UsageError: its memory is none.
    """
    own = {entry["name"]: entry["value"] for entry in spec.get("env") or [] if "value" in entry}
    isolation = spec.get("isolation", "worker")
    at_once = 1 if isolation == "none" else spec.get("scale", {}).get("perInstance", 1)  # none: so many wait
    settings = {
        "WISP_SIGNATURE": spec.get("signature", "auto"),
        "WISP_TIMEOUT_SECONDS": str(spec.get("timeoutSeconds", 30)),
        "WISP_MEMORY_MB": str(_mebibytes(spec.get("memory", "128Mi"))),
        "WISP_ISOLATION": isolation,
        "WISP_CONCURRENCY": str(at_once),
        "WISP_LOG_FORMAT": spec.get("logFormat", "json"),
    }
    return os.environ | own | settings


def _mebibytes(memory: str) -> int:
    number, unit = memory[:-2], memory[-2:]
    if not number.isdecimal() or unit not in _MIB:
        raise UsageError(f"memory: {memory}: write a whole number of Mi or Gi, as 256Mi")
    return int(number) * _MIB[unit]


def _as_http(call: Call) -> bytes:
    """The call as it stands on the wire, in the version whose answers are read to their end."""
    body = call.body or b""
    fields = {"Host": "localhost", **call.headers, "Content-Length": str(len(body))}
    head = [f"{call.method} {call.path} HTTP/1.0", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*head, "", ""]).encode() + body


def _run(handler: str, code: Path, request: Path, env: dict[str, str]) -> int:
    """The exit code of the runtime."""
    command = [sys.executable, "-m", "wisp_runtime", handler, "--request", str(request)]
    with subprocess.Popen(command, cwd=code, env=env, stderr=subprocess.PIPE, text=True, errors="replace") as running:
        for line in running.stderr or ():
            output.tell(render(line.rstrip("\n")))
    return running.returncode
