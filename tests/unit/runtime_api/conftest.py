"""The bridge as a process between a front of frames and a runtime of the test's own: ``bridge(files)`` starts one."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.process import free_port as any_free_port
from fixtures.process import listens, wait_until
from fixtures.worker import DEADLINE, END, ERROR, RESULT, Frame, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parents[3] / "function-runtime/python/src"
NEXT = "/2018-06-01/runtime/invocation/next"
# A runtime that only tells its address and waits: the test speaks to the API in its place.
IDLE_BOOTSTRAP = """#!/bin/sh
echo "api $AWS_LAMBDA_RUNTIME_API"
exec sleep 1000
"""


class Answer:
    """A response of the API."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        """Read it whole."""
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and error type."""
        return self.status, self.json["errorType"]


class Client:
    """A runtime or an extension: one connection to the API."""

    def __init__(self, address: str) -> None:
        """Connect."""
        self.connection = http.client.HTTPConnection(address, timeout=DEADLINE)

    def send(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> None:
        """Send a request; ``_`` in a header's name is a hyphen."""
        self.connection.request(
            method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()}
        )

    def receive(self) -> Answer:
        """Wait for its response."""
        return Answer(self.connection.getresponse())

    def call(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Answer:
        """Do both."""
        self.send(method, path, body, **headers)
        return self.receive()

    def next(self) -> Answer:
        """Ask for an invocation, and wait for it."""
        return self.call("GET", NEXT)

    def respond(self, request_id: str, body: bytes | str, **headers: str) -> Answer:
        """Respond to an invocation."""
        return self.call("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", body, **headers)

    def fail(self, request_id: str, body: bytes | str, **headers: str) -> Answer:
        """Report an invocation's error."""
        return self.call("POST", f"/2018-06-01/runtime/invocation/{request_id}/error", body, **headers)

    def raw(self) -> socket.socket:
        """The connection's socket."""
        if self.connection.sock is None:
            self.connection.connect()
        sock: socket.socket = self.connection.sock
        return sock


class Bridge(WorkerProcess):
    """A running bridge."""

    def __init__(self, task: Path, env: dict[str, str]) -> None:
        """Start it."""
        variables = {
            "PYTHONPATH": str(SOURCE),
            "PYTHONWARNINGS": "error",
            "WISP_OPT_DIR": str(task.parent / "opt"),
            "LAMBDA_TASK_ROOT": str(task),
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "_HANDLER": "app.handler",
        }
        self.folder = task
        self.clients: list[Client] = []
        command = [sys.executable, "-m", "wisp_runtime.bridge"]
        if address := env.get("WISP_RUNTIME_API"):
            host, _, port = address.partition(":")
            with socket.create_server((host, int(port))) as listener:  # as the front gives it
                super().__init__(command, task, variables | env, listener.fileno())
        else:
            super().__init__(command, task, variables | env)

    def wait_log(self, start: str) -> str:
        """Wait for a line of the log that starts so, and return the rest of it."""

        def found() -> list[str]:
            return [line.removeprefix(start).strip() for line in list(self._log) if line.startswith(start)]

        wait_until(lambda: bool(found()), f"no line starts with {start!r}", DEADLINE)
        return found()[0]

    def client(self) -> Client:
        """Connect to the API, whose address the idle bootstrap has printed."""
        return self.connect(self.wait_log("api "))

    def connect(self, address: str) -> Client:
        """Connect, until the end of the test."""
        self.clients.append(Client(address))
        return self.clients[-1]

    def external(self, address: str) -> Client:
        """Connect as a runtime in another container does."""
        wait_until(lambda: listens(int(address.partition(":")[2])), f"nothing listens at {address}", DEADLINE)
        return self.connect(address)

    def polling(self) -> Client:
        """Be a runtime that has polled once: READY is seen, the first ``receive()`` is the first invocation."""
        client = self.client()
        client.send("GET", NEXT)
        self.ready()
        return client

    def answer(self, number: int) -> list[Frame]:
        """Wait for the frames of an invocation's answer, to the last."""
        frames = []
        while True:
            frame = self.receive()
            assert frame.number == number, f"{frame} while {number} was waited for"
            frames.append(frame)
            if frame.kind in (RESULT, ERROR, END):
                return frames

    def result(self, event: Any, **head: Any) -> Any:
        """Run an event whose result is a JSON value."""
        frame = self.call(json.dumps(event), **head)
        assert (frame.kind, frame.head) == (RESULT, {}), frame
        return frame.json

    def close(self) -> None:
        """End it and the clients' connections."""
        super().close()
        for client in self.clients:
            client.connection.close()


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    """Start bridges: ``bridge(bootstrap, {"/extensions/name": text}, NAME=value)``; end them after the test."""
    started: list[Bridge] = []

    def start(
        bootstrap: str | bytes | None = IDLE_BOOTSTRAP,
        opt: dict[str, str] | None = None,
        mode: int = 0o755,
        files: dict[str, str] | None = None,
        **env: str,
    ) -> Bridge:
        root = tmp_path / f"bridge-{len(started)}"
        (root / "task").mkdir(parents=True)
        executables = {f"opt{name}": text for name, text in (opt or {}).items()}
        for name, text in {**executables, **{f"task/{name}": text for name, text in (files or {}).items()}}.items():
            write(root / name, text, mode)
        if bootstrap is not None:
            write(root / "task/bootstrap", bootstrap, mode)
        started.append(Bridge(root / "task", env))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens at."""
    return any_free_port()
