"""What a pod logs also goes to the log stream, and nothing that becomes of the stream is felt by an invocation."""

from __future__ import annotations

import json
import os
import signal
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.process import free_port, wait_until
from unit.runtime.conftest import in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unit.runtime.conftest import FunctionProcess

CODE = """
import os
def handler(event, context):
    for number in range(event.get("lines", 1)):
        print("line", number, "x" * event.get("size", 1))
    return os.getpid()
"""
CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
PATIENT = (
    "-c",
    "import runpy; from wisp_runtime import log_stream; log_stream.LAST_SECONDS = 60; runpy.run_module('wisp_runtime', None, '__main__')",
)
"""To Python: the runtime, whose last lines have a minute; the 2 s that they have are little on a busy machine."""
PATH = "/v1/namespaces/tests/functions/hello/logs/u1"


class Stream:
    """The door of the log stream: what it took, by batch, and what it answers next."""

    def __init__(self, port: int = 0) -> None:
        """Listen at once."""
        self.batches: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.answers: list[int] = []
        owner = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = owner.answers.pop(0) if owner.answers else 204
                batch = self.headers["wisp-batch"]
                owner.seen.append((self.path, self.headers["authorization"], batch))
                if status == 204:
                    owner.batches[batch] = body
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Door)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it took, in order."""
        return [json.loads(line) for body in [*self.batches.values()] for line in body.splitlines()]

    def has(self, text: str) -> bool:
        """Whether it took a line with this text."""
        return any(text in line["message"] for line in self.lines)

    def close(self) -> None:
        """Be gone."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stream() -> Iterator[Stream]:
    """A stream that takes everything."""
    made = Stream()
    yield made
    made.close()


@pytest.fixture
def told(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """What tells a function where the stream is, and the token for it."""

    def told(port: int) -> dict[str, str]:
        token = tmp_path / "token"
        token.write_text("secret-token\n")
        return {"WISP_LOG_URL": f"http://127.0.0.1:{port}{PATH}", "WISP_LOG_TOKEN_FILE": str(token)}

    return told


@pytest.mark.parametrize("isolation", ["worker", "none"])
def test_lines_go_to_the_stream_as_they_are_in_the_pods_log(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]], isolation: str
) -> None:
    """All of them, in order, to the address that the platform gave, with the token of its file."""
    function = serve(CODE, WISP_ISOLATION=isolation, **told(stream.port))
    assert function.invoke({"lines": 3}).status == 200
    wait_until(lambda: stream.has("REPORT") and stream.lines == function.lines, "all is in the stream")
    assert {seen[:2] for seen in stream.seen} == {(PATH, "Bearer secret-token")}


def test_the_last_lines_come_before_the_pod_ends(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """What was logged just before SIGTERM is sent, and the sender ends with its front."""
    function = serve(CODE, interpreter=PATIENT, **told(stream.port))
    function.invoke({"lines": 20})
    os.kill(function.process.pid, signal.SIGTERM)
    assert function.exit_status() == 0
    assert stream.lines == function.lines


def test_a_start_that_fails_is_in_the_stream(
    start: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """The error of the import outlives the pod, whose end is that of all its processes."""
    function = start("import nowhere_to_be_found", interpreter=PATIENT, under=CONTAINER, **told(stream.port))
    assert function.exit_status() == 1
    assert stream.has("nowhere_to_be_found")


def test_a_batch_comes_again_under_its_id_until_it_is_taken(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """503 and 429 are asked again, so that nothing is missing and the stream can tell what it has."""
    stream.answers = [503, 429]
    function = serve(CODE, **told(stream.port))
    wait_until(lambda: stream.has("Serving"), "the first lines are in the stream")
    assert len({batch for _, _, batch in stream.seen[:3]}) == 1
    for said in ("answered 503", "answered 429"):
        function.raw_log(partial(_has, f"does not take log lines: {said}"))


def test_lines_that_are_refused_for_good_are_counted(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """They are not sent again; the next batch says how many are missing, and so does the pod's log."""
    stream.answers = [403]
    function = serve(CODE, WISP_METRICS_PORT=str(metrics := free_port()), **told(stream.port))
    function.log(lambda line: "does not take log lines: answered 403" in line["message"])
    wait_until(lambda: bool(stream.lines), "the next lines are in the stream")
    missing = stream.lines[0]["droppedLines"]
    wait_until(
        lambda: function.lines[missing:][: len(stream.lines) - 1] == stream.lines[1:], "the rest is as in the pod's log"
    )
    assert _dropped(function, metrics) == missing


def test_a_refusal_is_said_once(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """What is said of a refusal is a line as well, and would be refused, and said, without end."""
    stream.answers = [404] * 1000
    function = serve(CODE, **told(stream.port))

    def refused_again() -> bool:
        assert function.invoke({}).status == 200
        return len(stream.seen) > 2

    wait_until(refused_again, "more was refused")
    assert len([line for line in function.lines if "does not take log lines" in line["message"]]) == 1


def test_a_stream_that_is_away_costs_lines_and_nothing_else(
    serve: Callable[..., FunctionProcess], told: Callable[[int], dict[str, str]]
) -> None:
    """Invocations that log 5 MiB are answered while nobody listens; once somebody does, the stream says what is missing."""
    port = free_port()
    function = serve(CODE, WISP_METRICS_PORT=str(metrics := free_port()), **told(port))
    before = _resident_mib(function.process.pid)
    for _ in range(5):
        assert function.invoke({"lines": 250, "size": 4096}).status == 200
    [sender] = [pid for pid in _children(function.process.pid) if _is_sender(pid)]
    assert _resident_mib(function.process.pid) < before + 16
    assert _resident_mib(sender) < 32
    stream = Stream(port)
    try:
        wait_until(lambda: bool(stream.batches), "the stream is found")

        def all_is_told() -> bool:
            return _logs_again(function, stream) and _told(stream) == _dropped(function, metrics)

        wait_until(all_is_told, "the stream says what is missing")
        os.kill(function.process.pid, signal.SIGTERM)
        assert function.exit_status() == 0
        sent = [line for line in stream.lines if "droppedLines" not in line]
        assert len(sent) + _told(stream) == len(function.lines)
    finally:
        stream.close()


def test_a_sender_that_died_is_replaced(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """What is logged meanwhile is counted, what is logged then is sent."""
    function = serve(CODE, **told(stream.port))
    wait_until(lambda: stream.has("Serving"), "the first lines are in the stream")
    [sender] = [pid for pid in _children(function.process.pid) if _is_sender(pid)]
    os.kill(sender, signal.SIGKILL)

    wait_until(lambda: _logs_again(function, stream), "another sender is at work")


def test_the_sender_is_spared_when_strays_are_killed(
    serve: Callable[..., FunctionProcess], stream: Stream, told: Callable[[int], dict[str, str]]
) -> None:
    """Process 1 kills what an ended worker has left behind, and not what sends its lines: none is missing."""
    code = "import time\ndef handler(event, context):\n    time.sleep(event)\n"
    function = serve(code, under=CONTAINER, WISP_TIMEOUT_SECONDS="3", **told(stream.port))
    for _ in range(2):
        assert function.invoke(60).status == 504
    last = in_time(lambda: function.invoke(0)).headers["wisp-request-id"]

    def reports() -> list[str]:
        return [line["requestId"] for line in stream.lines if line.get("type") == "platform.report"]

    wait_until(lambda: last in reports(), "all are in the stream")
    assert _told(stream) == 0


def _logs_again(function: FunctionProcess, stream: Stream) -> bool:
    """Log a little; whether the stream says by now that something is missing."""
    assert function.invoke({}).status == 200
    return any("droppedLines" in line for line in stream.lines)


def _has(text: str, line: str) -> bool:
    return text in line


def _told(stream: Stream) -> int:
    """How many lines are missing, as the stream says."""
    return sum(line.get("droppedLines", 0) for line in stream.lines)


def _dropped(function: FunctionProcess, port: int) -> int:
    """The same, as the function's metrics have it."""
    function.port, own = port, function.port
    try:
        text = function.request("/metrics").body.decode()
    finally:
        function.port = own
    return int(text.partition("\nwisp_function_log_lines_dropped_total ")[2].split()[0])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_sender(pid: int) -> bool:
    """Whether a process is the sender: its output goes nowhere, while a worker's goes to the front."""
    return Path(f"/proc/{pid}/fd/1").readlink() == Path(os.devnull)


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
