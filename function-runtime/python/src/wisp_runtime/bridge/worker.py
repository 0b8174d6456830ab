"""The bridge's process: one loop over the front's socket, the APIs' connections and the executables.

Order of start: extensions are started and register; then the runtime is started; when it and all extensions have asked for
their first event, READY. Order of end: SIGTERM to the runtime, telemetry's rest, SHUTDOWN to the extensions, SIGKILL.

Invariant: when the runtime or an extension ends by itself, so does the bridge, in the same way: the front then tells the
caller what it tells of any worker's end, and starts anew with nothing left over.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from wisp_runtime.bridge import extensions, runtime_api, telemetry
from wisp_runtime.bridge.processes import HeardProcess, Process, end_like, executables
from wisp_runtime.bridge.report import Report
from wisp_runtime.bridge.server import Server
from wisp_runtime.bridge.settings import Settings
from wisp_runtime.errors import InitError
from wisp_runtime.frames import FAILED, INVOKE, PAUSE, READY, RESUME, STOP, FrameReader, pack
from wisp_runtime.loop import READ, Loop

if TYPE_CHECKING:
    from typing import Never

    from wisp_runtime.bridge.runtime_api import Invocation
    from wisp_runtime.bridge.server import Exchange

READ_SIZE = 64 * 1024
BACKLOG = 128
# After STOP the front waits 2 seconds.
RUNTIME_END_SECONDS = 0.5
END_SECONDS = 1.8
HEAR_OUT_SECONDS = 1.0  # to read what an ended runtime left in its sockets, while others may speak without a pause
LEFT_SECONDS = 1.0  # for a client that gives a poll up to ask again


class Worker:
    """The bridge."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        """Serve the APIs; nothing is started yet."""
        self._settings = settings
        self._socket = sock
        self._reader = FrameReader()
        self.loop = Loop()
        self.runtime_api = runtime_api.RuntimeApi(settings, self)
        self.extensions = extensions.Extensions(settings, self._advance, self._extension_failed)
        self.telemetry = telemetry.Telemetry(self.loop, self.extensions, json_logs=settings.json_logs)
        self.report = Report(settings, self.telemetry)
        self._server = Server(self.loop, _listener(settings), self._begin)
        self._runtime: Process | None = None
        self._agents: list[Process] = []
        self._polled = self._ready = self._ending = False
        self.loop.watch(sock.fileno(), READ, self._on_front)

    def run(self) -> Never:
        """Start what there is to start, and serve until the front ends it."""
        self.report.init_started()
        if not self._settings.external:
            self._start_extensions()
            self._advance()
        while True:
            self.loop.run_once()

    # What the APIs tell, and ask.

    def _begin(self, exchange: Exchange) -> None:
        if exchange.path.startswith(runtime_api.PREFIX):
            self.runtime_api.begin(exchange)
        elif exchange.path.startswith(extensions.PREFIX):
            self.extensions.begin(exchange)
        else:
            self.telemetry.begin(exchange)

    def send(self, kind: int, number: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Write a frame to the front, after what was printed before."""
        if self._ending:
            return
        for process in (self._runtime, *self._agents):
            if isinstance(process, HeardProcess):
                process.drain()
        try:
            self._socket.sendall(pack(kind, number, head, body))
        except OSError:
            self._end_at_once(1)  # the front is gone, and with it who would want to know

    def runtime_polls(self) -> None:
        """The runtime asks for an invocation."""
        self._polled = True
        self._advance()

    def runtime_left(self) -> None:
        """The runtime of another container no longer waits: end with it, unless it asks anew."""
        self.loop.after(LEFT_SECONDS, self._end_if_alone)

    def _end_if_alone(self) -> None:
        if not self.runtime_api.attended:
            self._end_at_once(0)

    def may_run(self) -> bool:
        """Whether the extensions have done with the last invocation."""
        return self.extensions.idle

    def began(self, invocation: Invocation) -> None:
        """Tell the extensions of an invocation."""
        invocation.started = time.monotonic()
        head = invocation.head
        self.report.started(invocation)
        event = {
            "deadlineMs": head["deadline"],
            "requestId": invocation.id,
            "invokedFunctionArn": self._settings.arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": head.get("xray", "")},
        }
        self.extensions.tell(extensions.INVOKE, event)

    def done(self, invocation: Invocation, error_type: str | None) -> None:
        """Tell of its end."""
        if isinstance(self._runtime, HeardProcess):
            self._runtime.drain()
        self.report.done(invocation, error_type, self._runtime)

    def init_failed(self, error: dict[str, Any]) -> None:
        """Give up: the function can't be made ready, or not again after its container ended."""
        if self._ready:
            self.runtime_api.fail_all(error)
            self._end_at_once(1)
        self.report.init_done(error["errorType"])
        self.send(FAILED, 0, error)
        self._end_at_once(1)

    # Starting.

    def _start_extensions(self) -> None:
        paths = executables(self._settings.extensions_dir)
        if len(paths) > extensions.MAX_EXTENSIONS:
            self._init_error("Extension.TooManyExtensions", f"Extension limit ({extensions.MAX_EXTENSIONS}) reached")
        env = self._settings.extension_env(self._server.address)
        for path in paths:
            self.extensions.expect(path.rpartition("/")[2])
            try:
                self._agents.append(HeardProcess(self.loop, path, env, self._agent_ended, self._hear_extension))
            except OSError as error:
                self._init_error("Extension.LaunchError", _exec_error(path, error))

    def _start_runtime(self) -> None:
        paths = self._settings.bootstraps
        path = next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - pathlib costs 10 ms
        if path is None:
            self._init_error("Runtime.InvalidEntrypoint", f"Couldn't find valid bootstrap(s): [{' '.join(paths)}]")
        env = self._settings.runtime_env(self._server.address)
        try:
            if self._agents:
                self._runtime = HeardProcess(self.loop, path, env, self._runtime_exited, self._hear_runtime)
            else:  # nobody to hear it: it prints where we would
                self._runtime = Process(self.loop, path, env, self._runtime_exited)
        except OSError as error:
            self._init_error("Runtime.InvalidEntrypoint", _exec_error(path, error))

    def _hear_runtime(self, line: bytes) -> None:
        self.telemetry.publish_line("function", line)

    def _hear_extension(self, line: bytes) -> None:
        self.telemetry.publish_line("extension", line)

    def _advance(self) -> None:
        """Take the next step, now that an extension or the runtime has done one."""
        if self._ready:
            self.runtime_api.dispatch()
        elif not self._settings.external and self._runtime is None:
            if self.extensions.registered:
                self._start_runtime()
        elif self._polled and self.extensions.ready:
            self._ready = True
            self.report.extensions(self.extensions.all)
            self.report.init_done(None)
            self.extensions.open = False
            self.telemetry.close()
            self.send(READY, 0, {"signature": "lambda", "concurrency": 1})

    def _init_error(self, error_type: str, message: str) -> Never:
        self.send(FAILED, 0, {"errorType": error_type, "errorMessage": f"Error: {message}", "stackTrace": []})
        self._end_at_once(1)

    # What goes wrong.

    def _runtime_exited(self, process: Process) -> None:
        """Hear it out: it may have answered just before, on a connection that this round of the loop has not read yet."""
        if not self._ending:
            self.loop.soon(lambda: self._hear_out(process))

    def _hear_out(self, process: Process) -> None:
        last = time.monotonic() + HEAR_OUT_SECONDS
        while self.loop.run_once(wait=False) and time.monotonic() < last:
            pass
        self._runtime_ended(process)

    def _runtime_ended(self, process: Process) -> None:
        reason = f"with error: {process.describe_end()}" if process.status else "without providing a reason"
        if not self._ready:
            self._init_error("Runtime.ExitError", f"Runtime exited {reason}")
        if self.runtime_api.stranded and self._polled and not self._agents:
            # The front took it for idle: what it gave us since has reached nobody, and is not to blame.
            os.write(2, f"Runtime exited {reason} after its answer; starting another for the next event\n".encode())
            self._polled = False  # a second one that ends before it asks for an event ends us
            self._start_runtime()
            return
        self._kill_all()
        end_like(process.status or 0)

    def _agent_ended(self, process: Process) -> None:
        if not self._ending:
            end = process.describe_end() if process.status else "exit code 0"
            self._extension_failed("Extension.Crash", process.name, end)

    def _extension_failed(self, error_type: str, name: str, text: str) -> None:
        if not self._ready:
            self._init_error(error_type, f"extension {name}: {text}")
        os.write(2, f"{error_type}: extension {name}: {text}\n".encode())
        self.runtime_api.fail_all({"errorType": error_type, "errorMessage": f"Error: extension {name}: {text}"})
        self._end_at_once(1)

    # The front.

    def _on_front(self, events: int) -> None:
        del events
        data = self._socket.recv(READ_SIZE)
        if not data:
            self._end()
        for kind, number, head, body in self._reader.feed(data):
            if kind == INVOKE:
                self.runtime_api.invoke(number, head, body)
            elif kind in (PAUSE, RESUME):
                self.runtime_api.pause(number, paused=kind == PAUSE)
            elif kind == STOP:
                self._end()

    def _end(self) -> Never:
        """End in order."""
        self._ending = True
        self.loop.forget(self._socket.fileno())
        now = time.monotonic()
        last = now + END_SECONDS
        self.loop.after(RUNTIME_END_SECONDS, lambda: None)  # so that the loop wakes for each deadline
        self.loop.after(END_SECONDS, lambda: None)
        if self._runtime is not None:
            self._runtime.send_signal(signal.SIGTERM)
            while self._runtime.status is None and time.monotonic() < now + RUNTIME_END_SECONDS:
                self.loop.run_once()
            self._runtime.kill()
        self.telemetry.flush()
        deadline = int((time.time() + last - time.monotonic()) * 1000)
        self.extensions.tell(extensions.SHUTDOWN, {"shutdownReason": "spindown", "deadlineMs": deadline})
        told = {extension.name for extension in self.extensions.all if extensions.SHUTDOWN in extension.events}
        while time.monotonic() < last and not (self.telemetry.delivered and self._all_ended(told)):
            self.loop.run_once()
        self._end_at_once(0)

    def _all_ended(self, names: set[str]) -> bool:
        return all(process.status is not None for process in self._agents if process.name in names)

    def _kill_all(self) -> None:
        """End what we started, and see it end: as orphans they would be left to whoever is process 1."""
        self._ending = True
        for process in (self._runtime, *self._agents):
            if process is not None:
                process.kill()

    def _end_at_once(self, status: int) -> Never:
        self._kill_all()
        os._exit(status)


def _listener(settings: Settings) -> socket.socket:
    """Return the API's port: a free one, or for a runtime in another container the front's, which is our descriptor 0."""
    if settings.external:
        return socket.socket(fileno=0)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def _exec_error(path: str, error: OSError) -> str:
    return f"fork/exec {path}: {(error.strerror or str(error)).lower()}"


def main() -> Never:
    """Run as the front's worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(os.environ.get("WISP_WORKER_FD") or -1))
    sock.set_inheritable(False)
    try:
        worker = Worker(Settings(os.environ), sock)
    except InitError as error:
        head = {"errorType": error.error_type, "errorMessage": error.message, "stackTrace": []}
        sock.sendall(pack(FAILED, 0, head))
        os._exit(1)
    worker.run()
