"""A real function process over real sockets: ``serve(code)`` starts one, its log lines and exit status can be awaited."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parents[3] / "function-runtime/python/src"
DEADLINE = 120.0


class Answer:
    """A response: status, headers with lower-case names (all of them, repeated ones too, in ``message``), body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        """Read a response whole."""
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.message = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class FunctionProcess:
    """A running function, ``python -m wisp_runtime`` unless told otherwise."""

    def __init__(self, folder: Path, env: dict[str, str], interpreter: tuple[str, ...], under: tuple[str, ...]) -> None:
        """Start it with these arguments to Python, ``under`` another program if one is given; don't wait."""
        self.folder = folder
        self.termination_log = folder.parent / "termination-log"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "PYTHONWARNINGS": "error",
            "PORT": "0",
            "WISP_CODE_DIR": str(folder),
            "WISP_FUNCTION": "hello",
            "WISP_NAMESPACE": "tests",
            "WISP_HOST": "127.0.0.1",
            "WISP_METRICS_PORT": "0",
            "WISP_INIT_TIMEOUT_SECONDS": "60",  # importing a framework takes many seconds where all processors are busy
            "WISP_TERMINATION_LOG": str(self.termination_log),
            "K_REVISION": "hello-00001",
            **env,
        }
        self.process = subprocess.Popen(
            [*under, sys.executable, *interpreter],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self.raw_lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.raw_lines.append(line.decode())
                self._news.notify_all()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far; every line must be a JSON object."""
        return [json.loads(line) for line in list(self.raw_lines)]

    def log(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a log line."""
        line: dict[str, Any] = json.loads(self.raw_log(lambda line: wanted(json.loads(line))))
        return line

    def raw_log(self, wanted: Callable[[str], bool]) -> str:
        """Wait for a log line that need not be JSON."""
        until = time.monotonic() + DEADLINE
        with self._news:
            while True:
                for line in self.raw_lines:
                    if wanted(line):
                        return line
                assert self._news.wait(until - time.monotonic()), f"not in the log: {self.raw_lines}"

    def ready(self) -> FunctionProcess:
        """Wait until it serves."""
        line = self.log(lambda line: line["message"].startswith("Serving ") or line["level"] == "ERROR")
        assert line["message"].startswith("Serving "), self.raw_lines
        self.port = int(line["message"].rsplit(" ", 1)[1])
        return self

    def exit_status(self) -> int:
        """Wait for its end."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def connect(self) -> http.client.HTTPConnection:
        """Open a keep-alive connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def socket(self) -> socket.socket:
        """Open a plain connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def raw(self, data: bytes) -> bytes:
        """Send bytes, close the sending side, and read until the server closes."""
        with self.socket() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def request(
        self,
        path: str = "/",
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        method: str | None = None,
    ) -> Answer:
        """Make one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def invoke(self, event: Any, **headers: str) -> Answer:
        """Send a JSON event as ``wisp invoke`` does."""
        fields = {"content-type": "application/json", "wisp-event-format": "lambda"}
        return self.request("/", json.dumps(event), fields | headers)

    def event(self, data: Any = None, **attributes: str) -> Answer:
        """Send a CloudEvent in binary mode."""
        wanted = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "test"} | attributes
        headers = {f"ce-{name}": value for name, value in wanted.items()} | {"content-type": "application/json"}
        return self.request("/", json.dumps(data), headers)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes."""
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def in_time(ask: Callable[[], Answer]) -> Answer:
    """Ask until the answer isn't that it came too late: on a busy machine the short time of any invocation may be over."""
    until = time.monotonic() + DEADLINE
    while (answer := ask()).status == 504:
        assert time.monotonic() < until, "its time is over each time"
    return answer


def function_is_busy(function: FunctionProcess) -> None:
    """Wait until what was sent before has been read: health is answered after it."""
    assert function.request("/_wisp/health").status == 200


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FunctionProcess]]:
    """Start functions, ready or not, and end them after the test."""
    started: list[FunctionProcess] = []

    def start(
        code: str | dict[str, str],
        handler: str = "app.handler",
        interpreter: tuple[str, ...] = ("-m", "wisp_runtime"),
        under: tuple[str, ...] = (),
        **env: str,
    ) -> FunctionProcess:
        folder = tmp_path / f"function-{len(started)}" / "task"
        folder.mkdir(parents=True)
        for name, text in (code if isinstance(code, dict) else {"app.py": code}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        started.append(FunctionProcess(folder, {"WISP_HANDLER": handler} | env, interpreter, under))
        return started[-1]

    yield start
    for function in started:
        function.stop()


@pytest.fixture
def serve(start: Callable[..., FunctionProcess]) -> Callable[..., FunctionProcess]:
    """Start functions and wait until they serve."""

    def serve(*arguments: Any, **options: Any) -> FunctionProcess:
        return start(*arguments, **options).ready()

    return serve
