"""Streamed responses: what of them is with the front before they end, and how they fail."""

from __future__ import annotations

import base64
import json
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker import CHUNK, END, ERROR, PAUSE, RESUME, START

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge

PRELUDE_TYPE = "application/vnd.awslambda.http-integration-response"


def chunks(*parts: bytes, trailers: bytes = b"") -> bytes:
    """Encode a chunked body."""
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return encoded + b"0\r\n" + trailers + b"\r\n"


def begin_stream(worker: Bridge, content_type: str = "") -> tuple[int, Any]:
    """Invoke, and send the head of a streamed response."""
    runtime = worker.polling()
    number = worker.invoke(b"1", id="one")
    runtime.receive()
    sock = runtime.raw()
    head = "POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
    head += f"Content-Type: {content_type}\r\n" if content_type else ""
    sock.sendall(f"{head}\r\n".encode())
    return number, sock


def test_a_streamed_response_comes_as_it_is_written(bridge: Callable[..., Bridge]) -> None:
    """Its first bytes are with the caller before the last are written; a prelude makes its status, headers and cookies."""
    worker = bridge()
    number, sock = begin_stream(worker, PRELUDE_TYPE)
    prelude = json.dumps({"statusCode": 201, "headers": {"x-a": "1"}, "cookies": ["c=2"]}).encode()
    sock.sendall(b"%x\r\n%b\r\n" % (len(prelude), prelude))
    sock.sendall(b"8\r\n" + bytes(8) + b"\r\n4\r\nfirs\r\n")
    head = {"status": 201, "headers": [["x-a", "1"], ["set-cookie", "c=2"]]}
    kind, _, about, body = worker.receive()
    assert (kind, about) == (START, head)
    if not body:
        kind, _, about, body = worker.receive()
        assert kind == CHUNK
    assert body == b"firs"
    sock.sendall(chunks(b"t, last"))
    frames = worker.answer(number)
    assert b"".join(frame[3] for frame in frames) == b"t, last"
    assert frames[-1][:3] == (END, number, {})
    assert sock.recv(100).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    ("content_type", "head"),
    [
        ("", {}),
        ("application/octet-stream", {}),
        ("text/html", {"status": 200, "headers": [["content-type", "text/html"]]}),
    ],
)
def test_a_stream_without_a_prelude(bridge: Callable[..., Bridge], content_type: str, head: dict[str, Any]) -> None:
    """Its content type is the runtime's where that says more than bytes."""
    worker = bridge()
    number, sock = begin_stream(worker, content_type)
    sock.sendall(chunks(b"all"))
    frames = worker.answer(number)
    assert (frames[0][0], frames[0][2], frames[-1][2]) == (START, head, {})
    assert b"".join(frame[3] for frame in frames) == b"all"


@pytest.mark.parametrize(("written", "kinds"), [((), [ERROR]), ((b"some",), [START, END])])
def test_a_stream_that_fails_says_so_in_its_trailers(
    bridge: Callable[..., Bridge], written: tuple[bytes, ...], kinds: list[int]
) -> None:
    """Before its first byte that is the invocation's error; after it the stream breaks off with the error."""
    worker = bridge()
    number, sock = begin_stream(worker)
    document = base64.b64encode(b'{"errorType": "Oops", "errorMessage": "late", "stackTrace": ["f"]}')
    trailers = b"Lambda-Runtime-Function-Error-Type: Oops\r\nLambda-Runtime-Function-Error-Body: " + document + b"\r\n"
    sock.sendall(chunks(*written, trailers=trailers))
    frames = worker.answer(number)
    assert [frame[0] for frame in frames] == kinds
    assert frames[-1][2] == {"errorType": "Oops", "errorMessage": "late", "stackTrace": ["f"]}


@pytest.mark.parametrize("prelude", [b"nothing", b'{"statusCode": "x"}' + bytes(8), b"[]" + bytes(8), b" " * 300_000])
def test_a_prelude_that_is_none(bridge: Callable[..., Bridge], prelude: bytes) -> None:
    """It is the invocation's error, and nothing of it is sent."""
    worker = bridge()
    number, sock = begin_stream(worker, PRELUDE_TYPE)
    sock.sendall(chunks(prelude))
    assert [frame[0] for frame in worker.answer(number)] == [ERROR]
    assert sock.recv(100).startswith(b"HTTP/1.1 202 ")


def test_a_stream_that_breaks_off(bridge: Callable[..., Bridge]) -> None:
    """Its END tells."""
    worker = bridge()
    number, sock = begin_stream(worker)
    sock.sendall(b"4\r\nhalf\r\n")
    assert worker.receive()[0] == START
    sock.close()
    assert worker.answer(number)[-1][2]["errorType"] == "Runtime.TruncatedResponse"


def test_a_slow_caller_slows_the_runtime(bridge: Callable[..., Bridge]) -> None:
    """Between PAUSE and RESUME the runtime's bytes stay in its own socket, and none is lost."""
    worker = bridge()
    number, sock = begin_stream(worker)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    sock.sendall(b"5\r\nfirst\r\n")
    assert worker.receive()[0] == START
    worker.send(PAUSE, number)
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(sock.sendall, chunks(*[b"x" * 0x10000] * 1024))
        taken = 0
        while select.select([worker.socket], [], [], 0.3)[0]:
            taken += len(worker.receive().body)
        assert taken < 32 << 20, "nothing held the runtime up"
        worker.send(RESUME, number)
        taken += sum(len(frame.body) for frame in worker.answer(number))
        writing.result()
    assert taken == 64 << 20
