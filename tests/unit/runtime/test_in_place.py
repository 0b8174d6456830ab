"""Isolation none: the handler runs in the process that serves its callers, and what goes wrong still costs one event."""

from __future__ import annotations

import base64
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.process import free_port
from unit.runtime.conftest import Answer, function_is_busy, in_time, read_all
from wisp_runtime.frames import BUSY
from wisp_runtime.lending import Lender

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unit.runtime.conftest import FunctionProcess

    Serve = Callable[..., FunctionProcess]

CODE = """
import ctypes, os, subprocess, sys, time

def handler(event, context):
    kind, value = event
    if kind == "sleep":
        print("asleep")
        time.sleep(value)
    elif kind == "wait":
        print("waiting")
        while not os.path.exists(value):
            time.sleep(0.01)
    elif kind == "hold":
        print("holding")
        ctypes.PyDLL(None).sleep(value)  # C code that keeps the interpreter's lock
    elif kind == "exit":
        print("leaving")
        os._exit(value)
    elif kind == "take":
        return len(bytearray(value << 20))
    elif kind == "child":
        subprocess.run(["echo", value])
        print("after it")
    elif kind == "stream":
        return (b"x" * 65536 for _ in range(value))
    return os.getpid()
"""
LAMBDA = {"wisp-event-format": "lambda"}


@pytest.fixture
def serve_here(serve: Callable[..., FunctionProcess]) -> Callable[..., FunctionProcess]:
    """Serve a handler in the serving process."""

    def serve_here(code: str = CODE, **env: str) -> FunctionProcess:
        return serve(code, WISP_ISOLATION="none", **env)

    return serve_here


def say(function: FunctionProcess, kind: str, value: Any = 0) -> Answer:
    """Send an event on a connection of its own."""
    return function.invoke([kind, value])


def report(function: FunctionProcess, answer: Answer) -> dict[str, Any]:
    """Wait for an answer's REPORT line."""
    wanted = "platform.report", answer.headers["wisp-request-id"]
    return function.log(lambda line: (line.get("type"), line.get("requestId")) == wanted)


def encode(kind: str, value: Any = 0) -> bytes:
    """Make a request with this event."""
    body = json.dumps([kind, value]).encode()
    return b"POST / HTTP/1.1\r\nHost: a\r\nwisp-event-format: lambda\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def test_connections_outlive_a_crash(serve_here: Serve) -> None:
    """A caller whose connection is at rest notices nothing of another's crash but another process's answer."""
    function = serve_here()
    connection = function.connect()
    pids, ids = [], []
    for _ in range(3):
        connection.request("POST", "/", b'["pid", 0]', LAMBDA)
        answer = Answer(connection.getresponse())
        pids.append(answer.json)
        ids.append(answer.headers["wisp-request-id"])
        assert say(function, "exit", 3).json["errorType"] == "Runtime.ExitError"
    connection.close()
    assert len(set(pids)) == len(set(ids)) == 3
    function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] not in ids)
    lines = [line["message"].split(" ")[0] for line in function.lines if line.get("requestId") not in ids]
    assert lines[1:6] == ["START", "leaving", "Runtime.ExitError:", "END", "REPORT"]


def test_what_waits_outlives_a_timeout(serve_here: Serve) -> None:
    """Requests that wait while one exceeds its time are answered by the next process, and that one has Lambda's error."""
    function = serve_here(WISP_TIMEOUT_SECONDS="3")
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(say, function, "sleep", 60)
        function.log(lambda line: line["message"] == "asleep")
        others = [pool.submit(say, function, "pid") for _ in range(8)]
        assert (slow.result().status, slow.result().headers["wisp-function-error"]) == (504, "Timeout")
        assert {other.result().status for other in others} == {200}
    report = function.log(lambda line: "Status: timeout" in line["message"])
    assert report["requestId"] == slow.result().headers["wisp-request-id"]


def test_code_that_keeps_the_lock(serve_here: Serve) -> None:
    """Health is answered while C code keeps the interpreter's lock, and its timeout ends it."""
    function = serve_here(WISP_TIMEOUT_SECONDS="2")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(say, function, "hold", 100)
        function.log(lambda line: line["message"] == "holding")
        assert function.request("/_wisp/health").status == 200
        assert slow.result().status == 504
    assert in_time(lambda: say(function, "pid")).status == 200


def test_half_a_request(serve_here: Serve) -> None:
    """Who has sent half a request to a process that dies is told to come again, by an answer without the runtime's mark."""
    function = serve_here()
    with function.socket() as sock:
        sock.sendall(encode("pid")[:40])
        assert say(function, "pid").status == 200  # so the half that came before is read, too
        assert say(function, "exit", 1).status == 500
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"wisp-request-id" not in answer


def test_pipelined_requests(serve_here: Serve) -> None:
    """Requests sent ahead on one connection are answered in their order."""
    function = serve_here()
    with function.socket() as sock:
        sock.sendall(b"".join(encode("pid", number) for number in range(50)))
        sock.shutdown(socket.SHUT_WR)
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 200 OK") == data.count(b"wisp-request-id") == 50


def test_a_slow_reader(serve_here: Serve) -> None:
    """A stream waits for its caller, within bounded memory, and comes out whole."""
    function = serve_here(WISP_MEMORY_MB="96")
    connection = function.connect()
    connection.request("POST", "/", b'["stream", 1600]', LAMBDA)
    response = connection.getresponse()
    time.sleep(0.3)  # in which it could make all of it
    assert len(response.read()) == 1600 * 65536
    connection.close()
    assert say(function, "pid").status == 200


def test_too_much_memory(serve_here: Serve) -> None:
    """What takes more than the function's memory is ended, with Lambda's error, and the next event is served."""
    function = serve_here(WISP_MEMORY_MB="96")
    answer = say(function, "take", 300)
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.ExitError")
    assert answer.json["errorMessage"].endswith("signal: killed")
    assert say(function, "take", 1).status == 200


def test_lines_of_children(serve_here: Serve) -> None:
    """A child's line carries the invocation's id."""
    function = serve_here()
    answer = say(function, "child", "from below")
    line = function.log(lambda line: line["message"] == "from below")
    assert line["requestId"] == answer.headers["wisp-request-id"]


def test_text(start: Callable[..., FunctionProcess]) -> None:
    """With text lines, what the handler prints stands between START and END."""
    function = start(CODE, WISP_ISOLATION="none", WISP_LOG_FORMAT="text")
    function.port = int(function.raw_log(lambda line: "Serving" in line).rsplit(" ", 1)[1])
    assert say(function, "child", "from below").status == 200
    function.raw_log(lambda line: line.startswith("REPORT"))
    said = [line.split(" ")[0].strip() for line in function.raw_lines[1:]]
    assert said == ["START", "from", "after", "END", "REPORT"]


def test_figures(serve_here: Serve) -> None:
    """Metrics count what all processes of the function have run, those that died too, and the first start is reported."""
    port = free_port()
    function = serve_here(WISP_METRICS_PORT=str(port))
    answers = [say(function, kind) for kind in ("pid", "exit", "pid")]
    function.port = port
    text = function.request("/metrics").body.decode()
    for line in (
        'invocations_total{status="success"} 2',
        'invocations_total{status="error"} 1',
        "duration_seconds_count 3",
    ):
        assert f"wisp_function_{line}\n" in text
    first, *others = [report(function, answer) for answer in answers]
    assert "Init Duration" in first["message"]
    assert not any("Init Duration" in other["message"] for other in others)


def test_it_finishes_what_runs(serve_here: Serve) -> None:
    """SIGTERM: what runs is finished, what waits is answered, and the process ends with 0."""
    function = serve_here()
    with ThreadPoolExecutor(1) as pool, function.socket() as other:
        slow = pool.submit(say, function, "sleep", 1)
        function.log(lambda line: line["message"] == "asleep")
        other.sendall(encode("pid"))
        function_is_busy(function)  # so it is accepted
        function.process.send_signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert read_all(other).startswith(b"HTTP/1.1 200 ")
    assert function.exit_status() == 0


def test_a_start_that_fails_later(start: Callable[..., FunctionProcess]) -> None:
    """Code that can't be imported again ends the process, which says why: nobody is there to tell callers."""
    code = (
        CODE
        + "import pathlib, threading\nmark = pathlib.Path('mark')\nassert not mark.exists(), 'second'\nmark.touch()\n"
    )
    code += "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"  # no forks of what was imported
    function = start(code, WISP_ISOLATION="none").ready()
    assert say(function, "exit", 1).status == 500
    assert function.exit_status() == 1
    assert "second" in function.termination_log.read_text()


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"WISP_SIGNATURE": "asgi"}, "make it shared for an ASGI app"),
        ({"WISP_WORKER": "node worker.mjs"}, "another runtime than Python's"),
        ({"WISP_AUTH_FILE": "/x"}, "whose callers show tokens"),
    ],
)
def test_refused(start: Callable[..., FunctionProcess], env: dict[str, str], wanted: str) -> None:
    """What can't be had in the serving process is refused at the start, with what to write instead."""
    function = start("async def handler(scope, receive, send): ...", WISP_ISOLATION="none", **env)
    assert function.exit_status() == 1
    assert wanted in function.termination_log.read_text()


def test_paths_like_ours(serve_here: Serve) -> None:
    """Of what begins with ``/_wisp/`` only health is the front's own: all else is the handler's."""
    function = serve_here("def handler(event, context):\n    return event['rawPath']\n")
    for path in ("/_wisp/x", "/_wisp/healthy", "/_wisp/"):
        assert function.request(path).body.decode().strip('"') == path
    assert function.request("/_wisp/health").status == function.request("/_wisp/life").status == 200


def test_who_sends_while_a_handler_runs_is_read(serve_here: Serve) -> None:
    """A request whose rest came in time, but while another's event ran for longer than callers may stall, is answered."""
    code = """
import os, time

def handler(event, context):
    if event[0] == "long":
        print("begun")
        while not os.path.exists("mark"):
            time.sleep(0.01)
        clock = time.monotonic
        time.monotonic = lambda: clock() + 1000
    return event
"""
    function = serve_here(code)
    request = encode("pid")
    with function.socket() as sock, ThreadPoolExecutor(1) as pool:
        sock.sendall(request[:40])
        assert say(function, "short").status == 200  # so the half that came before is read, too
        long = pool.submit(say, function, "long")
        function.log(lambda line: line["message"] == "begun")
        sock.sendall(request[40:])
        (function.folder / "mark").touch()
        assert long.result().status == 200
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_no_descriptor_is_left(serve_here: Serve) -> None:
    """Where the handler has used up its descriptors, the next connection is another process's."""
    code = """
import os, resource, traceback

def handler(event, context):
    if event[0] == "all":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                os.dup(0)
        except OSError:
            pass
    return os.getpid()
"""
    function = serve_here(code)
    connection = function.connect()
    connection.request("POST", "/", b'["all", 0]', LAMBDA)
    pid = Answer(connection.getresponse()).json
    assert say(function, "pid").json != pid
    connection.close()


def test_lines_of_forks(serve_here: Serve) -> None:
    """What the handler and its forks say at the same time is in the log whole."""
    code = """
import os

def handler(event, context):
    children = []
    for name in "abcd":
        if not (child := os.fork()):
            for number in range(event[1]):
                print(name, number)
            os._exit(0)
        children.append(child)
    for number in range(event[1]):
        print("e", number)
    for child in children:
        os.waitpid(child, 0)
"""
    function = serve_here(code)
    assert say(function, "fork", 500).status == 200
    for name in "abcde":
        function.raw_log(lambda line, last=f'"{name} 499"': last in line)  # type: ignore[misc]
    said = {line["message"] for line in function.lines}
    assert said >= {f"{name} {number}" for name in "abcde" for number in range(500)}


def test_a_crash_behind_a_large_answer(serve_here: Serve) -> None:
    """Who sent a request ahead that ends the process gets its error, whole answers before it, although it reads slowly."""
    function = serve_here(CODE.replace("return os.getpid()", "return 'x' * (value or 0)"))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", function.port))
        sock.sendall(encode("text", 5 << 20) + encode("exit", 1))
        function.log(lambda line: line.get("type") == "platform.report")
        data = read_all(sock)
    assert data.count(b"x") > 5 << 20
    assert data[-1000:].count(b"HTTP/1.1 500 ") == data[-1000:].count(b"Runtime.ExitError") == 1


@pytest.mark.parametrize("isolation", ["none", "worker"])
def test_a_deep_client_context(serve: Serve, isolation: str) -> None:
    """A client context that is nested too deep is refused, wherever the handler runs."""
    context = base64.b64encode(b'{"custom":' + b"[" * 150 + b"]" * 150 + b"}").decode()
    function = serve(CODE, WISP_ISOLATION=isolation)
    assert function.invoke(["pid", 0], **{"x-amz-client-context": context}).status == 400


@pytest.mark.parametrize(("place", "status"), [("before", b"500"), ("after", b"200")])
def test_a_crash_at_the_answer(serve_here: Serve, place: str, status: bytes) -> None:
    """An event whose process ends just before or after its answer is written is answered once, and never run again."""
    code = """
import os
from wisp_runtime import journal
from wisp_runtime.lent_connection import LentConnection

def handler(event, context):
    if event[0] == "before":
        journal.end = lambda *about: os._exit(1)
    write = LentConnection.answer_value
    if event[0] == "after":
        LentConnection.answer_value = lambda *about: (write(*about), os._exit(1))
"""
    with serve_here(code).socket() as sock:
        sock.sendall(encode(place).replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"))
        sock.shutdown(socket.SHUT_WR)  # an answer that the front has sent leaves it open
        data = read_all(sock)
    assert data.startswith(b"HTTP/1.1 " + status)
    assert data.count(b"HTTP/1.1 ") == data.count(b"wisp-request-id") == 1


def ask_together(function: FunctionProcess, gate: Path, kind: str, value: Any) -> tuple[list[socket.socket], int]:
    """Have four quick events and one of this kind come in one round; return the sockets and the process."""
    socks = [function.socket() for _ in range(6)]
    for sock in socks:
        sock.sendall(encode("pid"))
        pid = json.loads(sock.recv(65536).partition(b"\r\n\r\n")[2])
    socks[0].sendall(encode("wait", str(gate)))
    function.log(lambda line: line["message"] == "waiting")
    for sock in socks[1:5]:
        sock.sendall(encode("pid"))
    socks[5].sendall(encode(kind, value))
    gate.touch()
    return socks, pid


def receive(socks: list[socket.socket]) -> set[int]:
    """Receive one good answer from each; return what they say."""
    answers = [sock.recv(65536) for sock in socks]
    assert all(answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 OK") == 1 for answer in answers)
    return {json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers}


def test_an_answer_outlives_the_next_event(serve_here: Serve, tmp_path: Path) -> None:
    """What was answered in the round of an event that ends the process reaches its caller once, whose connection goes on."""
    socks, pid = ask_together(serve_here(), tmp_path / "gate", "exit", 1)
    assert receive(socks[:5]) == {pid}
    assert read_all(socks[5]).startswith(b"HTTP/1.1 500 ")
    for sock in socks[:5]:
        sock.sendall(encode("pid"))
    assert pid not in receive(socks[:5])
    for sock in socks:
        sock.close()


def test_an_answer_does_not_wait_for_the_next_event(serve_here: Serve, tmp_path: Path) -> None:
    """What was answered before an event that takes long reaches its caller once, while that runs, and the connection goes on."""
    function = serve_here(WISP_TIMEOUT_SECONDS="600")
    socks, pid = ask_together(function, tmp_path / "gate", "wait", str(tmp_path / "other"))
    assert receive(socks[:5]) == {pid}
    for sock in socks[:5]:
        sock.sendall(encode("pid"))
    (tmp_path / "other").touch()
    assert receive(socks) == {pid}
    for sock in socks:
        sock.close()


class Changing:
    """A board that says something else at each look."""

    watched = False

    def __init__(self, *begins: float) -> None:
        """Say these, one after the other."""
        self._begins = [*begins]

    @property
    def number(self) -> int:
        """Which event runs."""
        return -len(self._begins)

    @property
    def begun(self) -> float:
        """When it has begun."""
        return self._begins.pop(0)


def test_a_look_between_two_events() -> None:
    """Where the event that is late ends while the front looks, the next one isn't ended in its place."""
    ended: list[str] = []
    front: Any = SimpleNamespace(loop=SimpleNamespace(after=lambda *_: None))
    function: Any = SimpleNamespace(memory=SimpleNamespace(begin=lambda: None))
    settings: Any = SimpleNamespace(timeout=1, log_format="text")
    board: Any = Changing(1.0, time.monotonic() + 60)
    lender = Lender(front, function, settings, board)
    worker: Any = SimpleNamespace(end_soon=ended.append)
    lender.worker = worker
    lender.on_frame(BUSY, 0)
    assert not ended
