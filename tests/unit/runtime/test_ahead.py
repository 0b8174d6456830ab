"""Invocations that are sent to a worker before it has answered the one that runs: nobody notices but the clock."""

from __future__ import annotations

import json
import os
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from unit.runtime.conftest import function_is_busy
from unit.runtime.test_workers import wait_until
from wisp_runtime.frames import ERROR, INVOKE, RESULT, STOP, FrameReader, pack
from wisp_runtime.loop import Loop
from wisp_runtime.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

CODE = """
import os, time
def handler(event, context):
    kind, wait = event
    begun = time.time()
    time.sleep(wait)
    if kind == "exit":
        os._exit(1)
    if kind == "raw":
        os.write(1, f"raw of {context.aws_request_id}\\n".encode())
    if kind == "print":
        print("line of", context.aws_request_id)
    if kind == "large":
        return "x" * 10000
    return {"begun": begun, "left": context.get_remaining_time_in_millis() / 1000, "ended": time.time()}
"""


def send(sock: socket.socket, name: str, kind: str, wait: float = 0) -> None:
    """Send an invocation."""
    body = json.dumps([kind, wait])
    head = f"POST / HTTP/1.1\r\nhost: x\r\nwisp-event-format: lambda\r\nwisp-request-id: {name}\r\n"
    sock.sendall(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())


def answer(sock: socket.socket) -> tuple[int, Any]:
    """Read an answer: status and document."""
    data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def is_short(function: FunctionProcess) -> bool:
    """Run an invocation; return whether it was short enough for another to wait behind the next."""
    name = function.invoke(["", 0]).headers["wisp-request-id"]
    report = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == name)
    return bool(report["metrics"]["durationMs"] < 4)


def behind(function: FunctionProcess, kind: str, wait: float, others: list[str]) -> list[tuple[int, Any]]:
    """Have others wait in the worker behind a first; return all answers."""
    wait_until(lambda: is_short(function))  # then the next may wait in the worker
    socks = [function.socket() for _ in range(1 + len(others))]
    send(socks[0], "first", kind, wait)
    function.log(lambda line: line.get("requestId") == "first")
    for index, (sock, other) in enumerate(zip(socks[1:], others, strict=True)):
        send(sock, f"behind-{index}", other)
    function_is_busy(function)
    (function.folder.parent / "sent").touch()
    answers = [answer(sock) for sock in socks]
    for sock in socks:
        sock.close()
    return answers


def kinds(function: FunctionProcess, name: str) -> list[str]:
    """Return the kinds of the platform's lines about a request."""
    return [line["type"] for line in function.lines if line.get("requestId") == name and "type" in line]


@pytest.mark.parametrize(
    ("kind", "wait", "error"),
    [("exit", 0.4, "Runtime.ExitError"), ("", 60, "Sandbox.Timedout"), ("large", 0.4, "Function.ResponseSizeTooLarge")],
)
def test_behind_one_that_fails(serve: Callable[..., FunctionProcess], kind: str, wait: float, error: str) -> None:
    """What waits in a worker behind one that ends it, or fails, runs once, afterwards, and in its order."""
    function = serve(CODE, WISP_TIMEOUT_SECONDS="3" if wait == 60 else "60", WISP_MAX_BODY_BYTES="1000")
    first, *others = behind(function, kind, wait, ["print", "", "raw", ""])
    assert first[1]["errorType"] == error
    assert [status for status, _ in others] == [200] * 4
    begun = [document["begun"] for _, document in others]
    assert begun == sorted(begun)
    names = ["first", *(f"behind-{index}" for index in range(4))]
    wait_until(lambda: all("platform.report" in kinds(function, name) for name in names))
    for name in names:
        assert kinds(function, name) == ["platform.start", "platform.end", "platform.report"]
    ids = [line["requestId"] for line in function.lines if line.get("requestId") in names]
    assert ids == sorted(ids, key=names.index)


def test_time_begins_with_the_invocation(serve: Callable[..., FunctionProcess]) -> None:
    """Time that an invocation spent in a worker behind another is not its own: deadline and duration are."""
    function = serve(CODE, WISP_TIMEOUT_SECONDS="60")
    (_, first), (_, second), (_, third) = behind(function, "", 1.5, ["", "print"])
    for other in (second, third):
        assert other["begun"] >= first["ended"]
        assert other["ended"] + other["left"] >= first["ended"] + 60 - 0.1
    report = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == "first")
    assert report["metrics"]["durationMs"] >= 1500
    last = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == "behind-0")
    assert last["metrics"]["durationMs"] >= (second["ended"] - second["begun"]) * 1000 - 1


def test_lines_stand_with_their_invocation(serve: Callable[..., FunctionProcess]) -> None:
    """With many callers, each line is between its invocation's START and END, one that Python didn't write too."""
    function = serve(CODE)
    statuses: list[int] = []

    def call(seed: int) -> None:
        for number in range(40):
            kind = ("raw", "print", "")[(seed + number) % 3]
            statuses.append(function.invoke([kind, 0], **{"wisp-request-id": f"{seed}-{number}"}).status)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 320
    wait_until(lambda: sum(line.get("type") == "platform.report" for line in function.lines) == 320)
    running = ""
    for line in function.lines:
        if line.get("type") == "platform.start":
            assert not running
            running = line["requestId"]
        elif line.get("type") == "platform.end":
            assert line["requestId"] == running
            running = ""
        elif " of " in line["message"]:
            assert line["message"].endswith(f" of {running}")
            assert line["requestId"] == running


def test_a_reload_with_some_that_wait(start: Callable[..., FunctionProcess]) -> None:
    """Code that changes while others wait behind one that has logged costs none of them."""
    arguments = ("-m", "wisp_runtime", "app.handler")
    function = start(CODE, interpreter=arguments).ready()
    changed = threading.Timer(0.2, lambda: os.utime(function.folder / "app.py", ns=(0, 0)))
    changed.start()
    answers = behind(function, "print", 2, ["print", "", "print"])
    changed.join()
    assert [status for status, _ in answers] == [200] * 4
    assert function.log(lambda line: "Reloading" in line["message"])


def test_the_end_overtakes_nothing() -> None:
    """What was given ahead in the same round reaches the worker before STOP does."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    owner: Any = SimpleNamespace(settings=SimpleNamespace(max_body=1000))
    worker = Worker(Loop(), owner, ours, reader)
    call: Any = SimpleNamespace(frame=lambda number: pack(INVOKE, number, {}), due_ms=0)
    worker.give(call)
    worker.send(STOP, 0, {})
    kinds = [kind for kind, *_ in FrameReader().feed(theirs.recv(1000))]
    assert kinds == [INVOKE, STOP]
    worker.let_go()
    theirs.close()
    os.close(writer)


def test_a_head_in_pieces_of_what_is_too_large() -> None:
    """A result that is too large says as much as any other how long it took, however its bytes arrive."""
    data = pack(RESULT, 7, {"took": 5, "waits": True}, b"x" * 20) + pack(RESULT, 8, {}, b"y")
    for size in (1, 2, 15, 30, len(data)):
        reader = FrameReader(10)
        frames = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
        assert [(kind, number, body) for kind, number, _, body in frames] == [(ERROR, 7, b""), (RESULT, 8, b"y")]
        assert (frames[0][2]["took"], frames[0][2]["waits"]) == (5, True)


def test_an_answer_before_its_turn(serve: Callable[..., FunctionProcess]) -> None:
    """A worker that answers what it hasn't begun is replaced; who was answered for runs in the next."""
    code = """
import os, struct, time
numbers = iter(range(2, 1000))
def handler(event, context):
    following = next(numbers)
    if event[0] == "forge":
        while not os.path.exists(os.path.dirname(__file__) + "/../sent"):
            time.sleep(0.01)
        for name in os.listdir("/proc/self/fd"):
            link = "/proc/self/fd/" + name
            if os.path.islink(link) and os.readlink(link).startswith("socket:"):  # not what the listing itself had open
                os.write(int(name), struct.pack(">BIII", 18, following, 0, 2) + b"13")
                time.sleep(600)
    return event[0]
"""
    function = serve(code, WISP_TIMEOUT_SECONDS="300")
    first, second = behind(function, "forge", 0, ["mine"])
    assert first[1]["errorType"] == "Runtime.ExitError"
    assert second == (200, "mine")
    assert function.log(lambda line: line.get("errorType") == "Runtime.ProtocolError")
