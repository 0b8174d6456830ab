"""`wisp invoke --local`: run a function of wisp.yaml on this machine, once, in the runtime that its pods have.

The runtime is a program beside this one (`python -m wisp_runtime`), which the command doesn't import: it is run where it is installed.
"""

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wisp import output, project
from wisp.errors import CommandError, UsageError
from wisp.logs import render


def run(folder: Path, name: str, payload: bytes) -> None:
    """Run the handler with the payload as its event; its answer goes to standard output, its log lines to standard error.

    Raises:
        UsageError: wisp.yaml has no such function, or its code is not Python in a folder.
        CommandError: the function failed, or the runtime isn't installed.
    """
    manifests, archives, _ = project.load(folder)
    spec = next((item["spec"] for item in manifests if _is_function(item, name)), None)
    if spec is None:
        raise UsageError(f"{folder / project.FILE} has no function {name}")
    archive = archives.get(spec["code"].get("zip", {}).get("key", ""))
    if not spec["runtime"].startswith("python") or not ("files" in spec["code"] or archive):
        raise UsageError(f"--local runs Python in code.folder or code.files; {name} has another runtime, or an image")
    if find_spec("wisp_runtime") is None:
        raise CommandError("--local needs the runtime beside this command: pip install ./function-runtime/python")
    with tempfile.TemporaryDirectory() as place:
        code = Path(place, "code")
        code.mkdir()
        for file, text in spec["code"].get("files", {}).items():
            (code / file).write_text(text, encoding="utf-8")
        if archive:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(code)
        Path(place, "event.json").write_bytes(payload)
        if _run(spec, code, Path(place, "event.json")):
            raise CommandError(f"{name} failed here: its answer and log lines say why")


def _is_function(item: Any, name: str) -> bool:
    return (item["kind"], item["metadata"]["name"]) == ("Function", name)


def _run(spec: Any, code: Path, event: Path) -> int:
    """The exit code of the runtime."""
    command = [sys.executable, "-m", "wisp_runtime", spec["handler"], "--event", str(event)]
    with subprocess.Popen(command, cwd=code, env=environment(spec), stderr=subprocess.PIPE, text=True) as running:
        for line in running.stderr or ():
            output.tell(render(line.rstrip("\n")))
    return running.returncode


def environment(spec: Any) -> dict[str, str]:
    """What the runtime is told of a function, and the function's own variables as far as wisp.yaml has their values."""
    own = {entry["name"]: entry["value"] for entry in spec.get("env") or [] if "value" in entry}
    settings = {
        "WISP_SIGNATURE": spec.get("signature", "auto"),
        "WISP_TIMEOUT_SECONDS": str(spec.get("timeoutSeconds", 30)),
    }
    return os.environ | own | settings
