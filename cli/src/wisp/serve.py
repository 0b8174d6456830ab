"""`wisp dev --local`: the functions of a folder served on this machine, each on a port of its own.

Each is a process of the runtime that its pods have. The runtime looks for changes of the code itself and goes on listening
meanwhile; a process is started anew only where wisp.yaml says something else of its function, or where it has ended.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from wisp import output, project
from wisp.errors import UsageError
from wisp.local import environment, require_runtime, servable, worker_command, write
from wisp.logs import render
from wisp.watch import Watch

_END_SECONDS: Final = 5


def serve(folder: Path, port: int, *, raw: bool) -> None:
    """Serve until interrupted; prints the functions' log lines, `raw` or for people.

    Raises:
        UsageError: wisp.yaml is missing or wrong when it begins, or none of its functions can be served here.
        CommandError: the runtime isn't installed.
    """
    require_runtime()
    if not servable(project.load(folder)):
        raise UsageError(f"{folder / project.FILE} has no function whose code is in a folder or in files")
    watch = Watch(folder)
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(KeyboardInterrupt):
        served = _Served(Path(place), port, raw=raw)
        try:
            watch.take()
            served.adjust(project.load(folder))
            while watch.wait():
                watch.take()
                try:
                    served.adjust(project.load(folder))
                except UsageError as error:
                    output.tell(f"wisp: {error}")
        finally:
            served.end()


class _Served:
    """The processes, by their functions."""

    def __init__(self, place: Path, port: int, *, raw: bool) -> None:
        """Of none; `place` takes code that wisp.yaml itself holds, the functions get `port` and those after it, 0: any."""
        self._place = place
        self._port = port
        self._raw = raw
        self._ports: dict[str, int] = {}
        self._said: dict[str, Any] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}

    def adjust(self, loaded: project.Project) -> None:
        """Have the functions that wisp.yaml holds, as it says.

        Raises:
            UsageError: a port is taken, or none of them can be served here.
        """
        specs = servable(loaded)
        wanted = {}
        for name, spec in specs.items():
            code = {} if name in loaded.folders else spec["code"]  # a folder's code the runtime looks at
            wanted[name] = (loaded.folders.get(name), spec | {"code": code})
        for name in list(self._running):
            if wanted.get(name) != self._said[name] or self._running[name].poll() is not None:
                _end(self._running.pop(name))
        self._said = wanted
        refused = False
        for name in wanted:
            if name in self._running:
                continue
            try:
                worker, env = worker_command(specs[name]["runtime"]), environment(specs[name])
            except UsageError as error:
                refused = True
                output.tell(f"wisp: function/{name}: {error}")
                continue
            self._start(name, specs[name], loaded.folders.get(name), env | {"WISP_WORKER": worker})
        if refused and not self._running:
            raise UsageError("no function can be served here")

    def end(self) -> None:
        """End all."""
        for process in self._running.values():
            _end(process)

    def _port_of(self, name: str) -> int:
        """The function's port, the same as long as it is served."""
        if name not in self._ports:
            self._ports[name] = self._port + len(self._ports) if self._port else _free_port()
        return self._ports[name]

    def _start(self, name: str, spec: Any, folder: Path | None, env: dict[str, str]) -> None:
        port, code = self._port_of(name), folder or write(self._place / name, spec["code"]["files"])
        _check_free(port)
        self._running[name] = process = subprocess.Popen(
            [sys.executable, "-m", "wisp_runtime", spec.get("handler", "bootstrap")],
            cwd=code,
            env=env | {"PORT": str(port), "WISP_FUNCTION": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._print, args=(name, process), daemon=True).start()
        output.tell(f"function/{name} http://127.0.0.1:{port}")

    def _print(self, name: str, process: "subprocess.Popen[str]") -> None:
        for line in process.stdout or ():
            text = line.rstrip("\n")
            shown = text if self._raw else render(text)
            output.show(f"{name}  {shown}" if len(self._said) > 1 and not self._raw else shown)
            sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _check_free(port: int) -> None:
    """Refuse a port that somebody listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            told = f"port {port} of this machine can't be had ({error.strerror})"
            raise UsageError(f"{told}: name another with --port, or --port 0 for any that is free") from None


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process, and have its port free."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
