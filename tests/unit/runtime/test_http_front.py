"""The HTTP front: every complete request one answer, everything else a clear refusal, whatever arrives."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.runtime.conftest import function_is_busy, read_all
from wisp_runtime.budget import Budget
from wisp_runtime.front import MAX_CONNECTIONS
from wisp_runtime.loop import PollAdapter
from wisp_runtime.request_reader import MAX_HEAD, MAX_HEADERS, RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

MAX_QUEUED = 256
LENGTH = "def handler(request):\n    return f'{request.method} {request.path} {len(request.body())}'\n"


def statuses(answer: bytes) -> list[int]:
    """Return the status of each response in a stream of bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6291457\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"NOPE / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 1\r\n\r\nx", 417),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (MAX_HEAD + 70000), 431),
        (b"GET /" + b"x" * (MAX_HEAD + 70000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * MAX_HEADERS + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_what_is_not_one_request_is_refused(serve: Callable[..., FunctionProcess], data: bytes, status: int) -> None:
    """Malformed, ambiguous and oversized requests get their status, and the connection ends."""
    function = serve(LENGTH)
    answer = function.raw(data)
    assert statuses(answer) == [status]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"wisp-request-id" not in head
    assert json.loads(body).keys() == {"errorType", "errorMessage"}
    assert function.request("/").status == 200


def test_chunked_body_and_trailers(serve: Callable[..., FunctionProcess]) -> None:
    """A chunked body arrives whole; trailers are not headers."""
    code = "def handler(request):\n    return [request.text(), request.headers.get('x-late')]\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = serve(code).raw(head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Late: 1\r\n\r\n")
    assert answer.endswith(b'["abcde",null]')


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_limit(serve: Callable[..., FunctionProcess], framing: str) -> None:
    """A body of exactly the limit is served; one byte more is 413, which the caller can read while it still sends."""
    function = serve(LENGTH, WISP_MAX_BODY_BYTES="1000000")
    for size, status in ((1_000_000, 200), (1_000_001, 413)):
        body = b"x" * size
        if framing == "length":
            answer = function.request("/", body)
        else:
            chunks = b"".join(b"3e8\r\n" + body[at : at + 1000] + b"\r\n" for at in range(0, 1_000_000, 1000))
            data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks
            data += b"1\r\nx\r\n" * (size - 1_000_000) + b"0\r\n\r\n"
            assert statuses(function.raw(data)) == [status]
            continue
        assert answer.status == status


def test_expect_continue(serve: Callable[..., FunctionProcess]) -> None:
    """A caller that waits for 100 Continue gets it before it sends the body, and 413 instead where that's too long."""
    function = serve(LENGTH)
    head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
    with function.socket() as sock:
        sock.sendall(head.format(3).encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert read_all(sock).endswith(b"POST / 3")
    with function.socket() as sock:
        sock.sendall(head.format(1 << 30).encode())
        assert statuses(read_all(sock)) == [413]


def test_keep_alive_and_head(serve: Callable[..., FunctionProcess]) -> None:
    """One connection serves many requests; HEAD has the headers of GET and no body."""
    function = serve(LENGTH)
    connection = function.connect()
    lengths = []
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, "/")
        response = connection.getresponse()
        lengths.append((response.headers["content-length"], response.headers["date"][-3:], len(response.read())))
    connection.close()
    assert lengths == [("7", "GMT", 7), ("8", "GMT", 0), ("7", "GMT", 7)]


@pytest.mark.parametrize(
    ("head", "kept"),
    [("HTTP/1.1", True), ("HTTP/1.1\r\nConnection: close", False), ("HTTP/1.0", False)],
)
def test_connection_is_kept_as_asked(serve: Callable[..., FunctionProcess], head: str, kept: bool) -> None:  # noqa: FBT001
    """HTTP/1.1 keeps the connection unless told otherwise; HTTP/1.0 closes it."""
    with serve(LENGTH).socket() as sock:
        version, _, rest = head.partition("\r\n")
        sock.sendall(f"GET / {version}\r\nHost: a\r\n{rest + chr(13) + chr(10) if rest else ''}\r\n".encode())
        answer = b""
        while b"GET / 0" not in answer:
            answer += sock.recv(1000)
        assert (b"connection: close" in answer) is not kept
        if not kept:
            assert sock.recv(1) == b""


def test_pipelined_requests_are_answered_in_order(serve: Callable[..., FunctionProcess]) -> None:
    """Thousands of requests in one write are all answered, in order, health among them."""
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(2000))
    health = b"GET /_wisp/health HTTP/1.1\r\nHost: a\r\n\r\n" * 2000
    with serve(LENGTH).socket() as sock:
        sock.sendall(requests)
        sock.sendall(health)
        sock.sendall(b"POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab")
        answer = read_all(sock)
    assert statuses(answer) == [200] * 4001
    assert [int(number) for number in re.findall(rb"GET /(\d+) 0", answer)] == list(range(2000))
    assert answer.endswith(b"POST /last 2")


def test_half_closed_caller_gets_its_answer(serve: Callable[..., FunctionProcess]) -> None:
    """A caller that closes its sending side early still gets the answer of a slow handler."""
    code = "import time\ndef handler(request):\n    time.sleep(0.2)\n    return 'slow'\n"
    assert serve(code).raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"slow")


def test_slow_reader_gets_all_and_blocks_nobody(serve: Callable[..., FunctionProcess]) -> None:
    """A large reply waits for its reader while others are served."""
    function = serve("def handler(request):\n    return b'x' * int(request.path[1:])\n")
    with function.socket() as sock:
        sock.sendall(b"GET /6000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        select.select([sock], [], [], 30)
        assert function.request("/10").status == 200
        assert len(read_all(sock).partition(b"\r\n\r\n")[2]) == 6_000_000


def test_health_is_answered_while_the_handler_computes(serve: Callable[..., FunctionProcess]) -> None:
    """Health is answered while a handler holds the interpreter; the next event waits its turn."""
    code = """
import os
running = 0
def handler(event, context):
    global running
    running += 1
    while not os.path.exists("go"):
        pass
    running -= 1
    return running
"""
    function = serve(code)
    first, second, health = function.connect(), function.connect(), function.connect()
    headers = {"wisp-event-format": "lambda"}
    first.request("POST", "/", "0", headers)
    second.request("POST", "/", "0", headers)
    for _ in range(5):
        health.request("GET", "/_wisp/health")
        assert json.loads(health.getresponse().read()) == {"status": "ok"}
    (function.folder / "go").touch()
    assert first.getresponse().read() == b"0"
    assert second.getresponse().read() == b"0"
    for connection in (first, second, health):
        connection.close()


def test_health_path_is_reserved_for_get_alone(serve: Callable[..., FunctionProcess]) -> None:
    """Any other method on the health path, and any other path, is the function's."""
    function = serve(LENGTH)
    assert function.request("/_wisp/health", b"x").body == b"POST /_wisp/health 1"
    assert function.request("/_wisp/health", method="HEAD").status == 200
    assert function.request("/_wisp/other").body == b"GET /_wisp/other 0"


def test_full_queue_is_429(serve: Callable[..., FunctionProcess]) -> None:
    """Beyond the queue a request is refused with 429 and no mark; those in the queue are all served."""
    code = "import os\ndef handler(request):\n    while not os.path.exists('go'):\n        pass\n    return 'ok'\n"
    function = serve(code)
    sockets = [function.socket() for _ in range(MAX_QUEUED + 10)]
    sockets[0].sendall(b"GET /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    function_is_busy(function)
    for sock in sockets[1:]:
        sock.sendall(b"GET /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    function_is_busy(function)
    (function.folder / "go").touch()
    answers = [read_all(sock) for sock in sockets]
    for sock in sockets:
        sock.close()
    refused = [answer for answer in answers if statuses(answer) == [429]]
    assert len(refused) == 9
    assert all(b"retry-after" in answer and b"wisp-request-id" not in answer for answer in refused)
    assert sum(statuses(answer) == [200] for answer in answers) == MAX_QUEUED + 1


def test_idle_connections_make_room(serve: Callable[..., FunctionProcess]) -> None:
    """More idle connections than the limit don't lock anybody out."""
    function = serve(LENGTH)
    sockets: list[socket.socket] = []
    try:
        sockets.extend(function.socket() for _ in range(MAX_CONNECTIONS + 5))
        assert function.request("/").status == 200
        assert sockets[0].recv(1) == b""
    finally:
        for sock in sockets:
            sock.close()


def test_caller_that_leaves_is_forgotten(serve: Callable[..., FunctionProcess]) -> None:
    """A caller that hangs up while its handler runs costs nothing but that run."""
    function = serve("import time\ndef handler(request):\n    time.sleep(0.1)\n    return 'x'\n")
    for _ in range(3):
        sock = function.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.03)
        sock.close()
    assert function.request("/").body == b"x"


PIECES = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n",
    b"0\r\n\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"\n", b"\x00", b":", b"ce-id: \xff\r\n",
])  # fmt: skip


@given(st.lists(st.one_of(PIECES, PIECES, PIECES, st.binary(max_size=20)), max_size=20), st.integers(1, 40))
@settings(max_examples=500, deadline=None)
def test_the_reader_takes_any_bytes_in_any_pieces(pieces: list[bytes], step: int) -> None:
    """Whatever bytes come, cut however: no exception, and the cut changes nothing of what is read."""
    data = b"".join(pieces)
    readers = [RequestReader("peer", 100, Budget(1 << 20)) for _ in range(2)]
    readers[0].feed(data)
    for at in range(0, len(data), step):
        readers[1].feed(data[at : at + step])
    seen = [[(one.method, one.target, one.headers, one.body) for one in reader.ready] for reader in readers]
    closes = any(not one.keep_alive for reader in readers for one in reader.ready)
    assert seen[0] == seen[1]
    assert (
        closes
        or [reader.refusal and reader.refusal.status for reader in readers] in ([None] * 2, [400] * 2)
        or all(reader.refusal for reader in readers)
    )


@given(st.lists(st.one_of(PIECES, st.binary(max_size=50)), min_size=1, max_size=15))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_server_survives_any_bytes(fuzzed: FunctionProcess, pieces: list[bytes]) -> None:
    """Whatever is sent, the connection ends with whole responses only, and the server serves on."""
    answer = fuzzed.raw(b"".join(pieces))
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert set(statuses(answer)) <= {100, 200, 400, 413, 417, 431, 501, 505}
    assert fuzzed.request("/").status == 200


@pytest.fixture
def fuzzed(serve: Callable[..., FunctionProcess]) -> FunctionProcess:
    """One server for all examples."""
    return serve(LENGTH)


def test_poll_adapter() -> None:
    """Where there is no epoll, poll serves in its place, with timeouts in seconds."""
    poller = PollAdapter()
    left, right = socket.socketpair()
    with left, right:
        poller.register(left.fileno(), select.POLLIN)
        started = time.monotonic()
        assert poller.poll(0.05) == []
        assert 0.04 < time.monotonic() - started < 30
        right.send(b"x")
        assert poller.poll(-1) == [(left.fileno(), select.POLLIN)]
