"""Serving on a laptop: the arguments, one invocation from a file, and a new start of the workers when the code changes.

Nothing of this is imported in a pod.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from typing import TYPE_CHECKING, NoReturn

from wisp_runtime import journal
from wisp_runtime.budget import Budget
from wisp_runtime.connection import Connection
from wisp_runtime.errors import InitError
from wisp_runtime.leaving import reload
from wisp_runtime.request_reader import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.front import Front
    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes

WATCH_SECONDS = 0.3
WATCHED = (".py", ".js", ".mjs", ".cjs", ".json", ".toml", ".yaml", ".yml", ".txt", ".html", "/bootstrap")


class Arguments(argparse.Namespace):
    """What the command line says."""

    handler: str
    event: str | None
    request: str | None
    reload: bool

    @property
    def once(self) -> bool:
        """Whether it is run once, and nothing is served."""
        return self.event is not None or self.request is not None


def parse(arguments: list[str]) -> Arguments:
    """Read the command line; ends the process where it is wrong."""
    parser = argparse.ArgumentParser("python -m wisp_runtime", description="Serve a function of the current folder.")
    parser.add_argument("handler", metavar="MODULE.ATTRIBUTE", help="the handler, for example app.handler")
    parser.add_argument("--event", metavar="FILE", help="run it once with this JSON, print the result, and end")
    parser.add_argument("--request", metavar="FILE", help="the same with this HTTP request, head and body, as HTTP/1.0")
    parser.add_argument("--no-reload", dest="reload", action="store_false", help="don't look for changes of the code")
    return parser.parse_args(arguments, Arguments())


def run_once(front: Front, signature: str, given: Arguments, until: Callable[[Callable[[], bool]], None]) -> NoReturn:
    """Run the handler with a file's event or request, print what it answers, and end: with 1 if that is an error.

    Raises:
        InitError: The file can't be read, or an event's has no JSON.
    """
    request = _read(given.request) if given.request else _request(given.event or "", signature)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # noqa: FBT003 - socket's own signature
    connection = Connection(front, theirs, RequestReader("127.0.0.1", 1 << 40, Budget(1 << 40)))
    front.connections[connection.fd] = connection
    ours.setblocking(False)  # noqa: FBT003 - socket's own signature
    left, answer = memoryview(request), bytearray()

    def ended() -> bool:
        nonlocal left
        try:
            while left:  # what the buffers hold goes at once, the rest as it is read
                left = left[ours.send(left) :]
                if not left:
                    ours.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            left = left[:0]  # it was refused before all of it was read
        try:
            while data := ours.recv(1 << 16):
                answer.extend(data)
        except BlockingIOError:
            return False
        return True

    until(ended)
    journal.flush(journal.LAST_SECONDS)
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    os.write(1, body + b"\n")
    os._exit(0 if head.split(b" ")[1] < b"400" else 1)


def _request(path: str, signature: str) -> bytes:
    """Make the request that carries a file's event."""
    body = _read(path)
    try:
        event = json.loads(body)
    except ValueError as error:
        raise InitError("InvalidEvent", f"{path} can't be read as JSON: {error}") from None
    is_event = isinstance(event, dict) and "specversion" in event
    kind = "application/cloudevents+json" if is_event or signature == "cloudevent" else "application/json"
    form = "" if is_event or signature != "lambda" else "wisp-event-format: lambda\r\n"
    head = f"POST / HTTP/1.0\r\ncontent-type: {kind}\r\n{form}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _read(path: str) -> bytes:
    """Read a file that the command line names."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as everywhere here
            return file.read()
    except OSError as error:
        raise InitError("InvalidEvent", f"{path} can't be read: {error.strerror}") from None


class Watcher:
    """Looks at the code's files now and then."""

    def __init__(self, loop: Loop, processes: Processes, folder: str) -> None:
        """Begin to look."""
        processes.patient = True
        self._loop = loop
        self._processes = processes
        self._folder = folder
        self._seen = self._look()
        loop.after(WATCH_SECONDS, self._watch)

    def _watch(self) -> None:
        now = self._look()
        if now != self._seen:
            changed = sorted(path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path))
            self._seen = now
            journal.emit("INFO", f"Reloading: {os.path.relpath(changed[0], self._folder)} has changed")
            reload(self._processes)
        self._loop.after(WATCH_SECONDS, self._watch)

    def _look(self) -> dict[str, int]:
        """Return when each file was written."""
        seen = {}
        for folder, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__pycache__", "node_modules"))]
            for name in files:
                path = f"{folder}/{name}"
                if path.endswith(WATCHED):
                    try:
                        seen[path] = os.stat(path).st_mtime_ns  # noqa: PTH116 - many of them, often
                    except OSError:
                        continue
        return seen
