"""Callers and results that mean harm: each costs its own connection or invocation, never the process."""

from __future__ import annotations

import gc
import json
import re
import resource
import signal
import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from unit.runtime.conftest import function_is_busy, read_all
from wisp_runtime import journal
from wisp_runtime.budget import FREE, Budget
from wisp_runtime.calls import Call
from wisp_runtime.connection import Connection
from wisp_runtime.counting import MAX_VALUES, check_values
from wisp_runtime.errors import BadRequestError
from wisp_runtime.front import MAX_CONNECTIONS, Front
from wisp_runtime.http1 import HttpRequest, Reply
from wisp_runtime.loop import Loop
from wisp_runtime.request_reader import MAX_PIPELINED, SLICE, RequestReader
from wisp_runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unit.runtime.conftest import FunctionProcess

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    """Return the status of each response in a stream of bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


class Faulty:
    """What the front serves; it fails at POST in a way that nobody foresaw."""

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Answer, or fail."""
        if request.method == "POST":
            raise ZeroDivisionError
        connection.answer(Reply(200, [], b"fine"))

    def withdraw(self, call: Call) -> None:
        """Do nothing: nobody waits here."""


def test_an_unforeseen_fault_costs_its_connection_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """A fault of ours is a 500 and the end of that connection, with its stack in the log; others are served on."""
    loop = Loop()
    front = Front(loop, Faulty(), Settings({"WISP_HOST": "127.0.0.1"}, "app.handler", "/"))
    address = ("127.0.0.1", front.listen(0))
    with socket.create_connection(address, 10) as one, socket.create_connection(address, 10) as other:
        one.sendall(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + GET)
        other.sendall(GET)
        other.shutdown(socket.SHUT_WR)
        one.shutdown(socket.SHUT_WR)
        while not front.connections:
            loop.run_once()
        while front.connections:
            loop.run_once()
        front.drain()
        assert statuses(read_all(one)) == [200, 500]
        assert statuses(read_all(other)) == [200]
    journal.flush()
    assert "ZeroDivisionError" in capfd.readouterr().out


def test_a_deep_result_is_the_functions_error(serve: Callable[..., FunctionProcess]) -> None:
    """A result nested more deeply than can be read is Lambda's marshalling error, and the next event is served."""
    code = """
import sys
def handler(event, context):
    if event["rawPath"] == "/flat":
        return "flat"
    sys.setrecursionlimit(20000)
    value = []
    for _ in range(1500):
        value = [value]
    return {"statusCode": 200, "body": value}
"""
    function = serve(code)
    answer = function.request("/")
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.MarshalError")
    assert answer.headers["wisp-function-error"] == "Unhandled"
    assert function.request("/flat").json == "flat"


def test_an_infinite_status_is_refused(serve: Callable[..., FunctionProcess]) -> None:
    """A status code that is no finite number is the function's error."""
    function = serve("def handler(event, context):\n    return {'statusCode': float(event['rawQueryString'] or 0)}\n")
    assert function.request("/?201").status == 201
    code = "import os, struct, sys\n" + INFINITE
    function = serve(code)
    answer = function.invoke(None)
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.InvalidResponse")


INFINITE = """
def handler(event, context):
    head = b'{"status":1e999}'
    frame = struct.pack(">BIII", 18, 1, len(head), 0) + head
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                os.write(int(name), frame)
        except OSError:
            pass
"""


@pytest.mark.parametrize("status", [204, 304])
def test_a_stream_without_a_body_has_no_framing(serve: Callable[..., FunctionProcess], status: int) -> None:
    """A streamed 204 or 304 ends with its head, so that the next response on the connection is read as one."""
    code = f"def handler(request):\n    return iter([b'', b'body']), {status} if request.path == '/none' else 200\n"
    code = code.replace("iter([b'', b'body'])", "(part for part in [b'', b'body'])")
    answer = serve(code).raw(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert statuses(first) == [status]
    assert b"transfer-encoding" not in first
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"4\r\nbody\r\n0\r\n\r\n")


UPGRADE = (
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
)


@pytest.mark.parametrize(
    "framed", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_an_upgrade_is_ignored_and_its_body_read(framed: bytes, step: int) -> None:
    """A request that asks for another protocol is served in this one, body and all, and so is the next."""
    reader = RequestReader("peer", 100, Budget(1000))
    data = UPGRADE + framed + UPGRADE + b"\r\n" + GET
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    assert reader.refusal is None
    assert [(one.method, one.body, one.keep_alive) for one in reader.ready] == [
        ("POST", b"hello", True), ("POST", b"", True), ("GET", b"", True),
    ]  # fmt: skip
    assert len(reader.ready[0].headers) == 5


def test_the_body_of_an_upgrade_reaches_the_handler(serve: Callable[..., FunctionProcess]) -> None:
    """Java's client asks for HTTP/2 with its first request; the handler gets the body, and the connection is kept."""
    function = serve("def handler(request):\n    return request.body()\n")
    answer = function.raw(UPGRADE + b"Content-Length: 5\r\n\r\nhello" + GET)
    assert statuses(answer) == [200, 200]
    assert b"\r\n\r\nhello" in answer


def test_a_chunked_body_in_http_1_0_ends_its_connection(serve: Callable[..., FunctionProcess]) -> None:
    """Who speaks HTTP/1.0 may have delimited a chunked body otherwise: what follows it is not read as a request."""
    head = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert statuses(serve("def handler(request):\n    return 'x'\n").raw(head + GET)) == [200]


def test_pipelined_requests_are_parsed_as_they_are_taken() -> None:
    """However many requests arrive at once, few are held as objects; each is taken in its order."""
    reader = RequestReader("peer", 100, Budget(1 << 20))
    reader.feed(b"".join(b"GET /%d HTTP/1.1\r\nHost:\r\n\r\n" % number for number in range(2000)))
    assert reader.full
    assert len(reader.ready) <= MAX_PIPELINED + SLICE // 20
    for number in range(2000):
        request = reader.take()
        assert request is not None
        assert request.target == f"/{number}"
        reader.release(request.held)
    assert reader.take() is None
    assert not reader.full


def test_what_is_read_is_paid_from_the_budget() -> None:
    """Heads and requests count against what all connections may hold, beyond a little for each, and all is given back."""
    budget = Budget(100_000)
    readers = [RequestReader("peer", 100, budget) for _ in range(10)]
    for reader in readers:
        reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 30_000)
    assert [reader.refusal.status if reader.refusal else 0 for reader in readers] == [0] * 4 + [429] * 6
    late = RequestReader("peer", 100, budget)
    late.feed(GET)
    assert late.ready[0].held < FREE  # a small request needs no budget: it may be the one that asks for health
    late.feed(GET * 100)
    assert late.refusal is not None
    for reader in [*readers, late]:
        reader.drop()
    assert budget.left == 100_000
    assert not late.ready


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "endless",
    [b"0\r\nx: " + b"x" * 1_000_000, b"0\r\n" + b"x:\r\n" * 250_000, b"1;x=" + b"x" * 1_000_000, b"\r\n" * 500_000],
)
@pytest.mark.parametrize("body", [b"", b"8000\r\n" + b"b" * 0x8000 + b"\r\n"])
def test_endless_framing_is_refused(endless: bytes, body: bytes) -> None:
    """Trailers and extensions of chunks are gathered by the parser, at a cost that grows with its square: few are read."""
    budget = Budget(1 << 20)
    reader = RequestReader("peer", 1 << 20, budget)
    data = (CHUNKED + body if endless.strip() else b"") + endless
    fed = 0
    while reader.refusal is None and fed < len(data):
        reader.feed(data[fed : fed + SLICE])
        fed += SLICE
    assert reader.refusal is not None
    assert reader.refusal.status == 431
    assert fed <= len(CHUNKED) + len(body) + FREE + 2 * SLICE
    assert budget.left == 1 << 20


@pytest.mark.parametrize("trailer", [b"", b"x: " + b"x" * 4000 + b"\r\n"])
def test_a_body_in_many_chunks_is_not_endless_framing(trailer: bytes) -> None:
    """Chunks of one byte with an extension each, and trailers of an ordinary size, are taken."""
    reader = RequestReader("peer", 1 << 20, Budget(1 << 20))
    data = CHUNKED + b"1;x=y\r\nb\r\n" * 20_000 + b"0\r\n" + trailer + b"\r\n" + GET
    for at in range(0, len(data), 1000):
        reader.feed(data[at : at + 1000])
    assert reader.refusal is None
    assert [len(request.body) for request in reader.ready] == [20_000, 0]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process, and those that it starts, have thousands of connections."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 4096:
        pytest.skip("no process may have so many descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 4096), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("isolation", ["worker", "none"])
def test_silent_callers_keep_nobody_out(serve: Callable[..., FunctionProcess], isolation: str) -> None:
    """Where requests that don't go on have all places, the oldest goes, first of those from outside the pod; who waits stays."""
    function = serve(WAITING, WISP_ISOLATION=isolation)
    with ExitStack() as stack:
        slow, waits = stack.enter_context(function.socket()), stack.enter_context(function.socket())
        slow.sendall(b"GET /slow HTTP/1.1\r\n")
        for _ in range(2):  # which are answered when it has been read
            assert function.request("/").status == 200
        waits.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        function_is_busy(function)
        if isolation == "none":
            (function.folder / "go").touch()  # it reads nothing while a handler runs
        for _ in range(MAX_CONNECTIONS + 50):
            sock = socket.create_connection(("127.0.0.1", function.port), 10, ("127.0.0.2", 0))
            stack.enter_context(sock)
            sock.sendall(b"G")
        function_is_busy(function)
        (function.folder / "go").touch()
        slow.sendall(b"Host: a\r\nConnection: close\r\n\r\n")
        assert [statuses(read_all(sock)) for sock in (waits, slow)] == [[200], [200]]
        assert function.request("/").status == 200


FORGED = "x\nREPORT RequestId: forged\x1b[2J"
FORGED_EVENT = json.dumps({"specversion": "1.0", "id": FORGED, "source": "/", "type": "t"}).encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {"ce-specversion": "1.0", "ce-id": quote(FORGED), "ce-source": "/", "ce-type": "t"}),
        (FORGED_EVENT, {"content-type": "application/cloudevents+json"}),
        (b"", {"ce-id": quote(FORGED)}),
        (b"", {"ce-id": "x" * 5000}),
    ],
)
def test_no_callers_id_makes_lines_of_the_log(
    serve: Callable[..., FunctionProcess], body: bytes, headers: dict[str, str]
) -> None:
    """An event's id that would end a line or move a terminal's cursor, or has no end, is not the request's; the event keeps it."""
    event = "type" in str(headers)
    lambda_code = "def handler(event, context):\n    return event['id']\n"
    function = serve(lambda_code if event else "def handler(request):\n    return 'x'\n")
    answer = function.request("/", body, headers)
    report = function.log(lambda line: line.get("type") == "platform.report")
    assert report["requestId"] == answer.headers["wisp-request-id"]
    assert len(report["requestId"]) < 100
    assert "forged" not in "".join(function.raw_lines)
    assert answer.body == (json.dumps(FORGED).encode() if event else b"x")


class Large:
    """What the front serves; every answer is larger than what a socket takes."""

    asked = 0

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Answer, in one piece or as a stream that goes on."""
        self.asked += 1
        if request.target == "/stream":
            connection.call = Call(connection, request)
            connection.start(Reply(200, [], b"x" * 100_000))
        else:
            connection.answer(Reply(200, [], b"x" * 6_000_000))

    def withdraw(self, call: Call) -> None:
        """Do nothing: nobody waits here."""


def test_answers_that_nobody_reads_are_bounded_together() -> None:
    """Who lets a large answer lie longest loses it first; streams, and those who read, get theirs."""
    loop, large, most = Loop(), Large(), 20_000_000
    settings = Settings({"WISP_HOST": "127.0.0.1", "WISP_MAX_BUFFERED_BYTES": str(most)}, "app.handler", "/")
    front = Front(loop, large, settings)
    address = ("127.0.0.1", front.listen(0))
    callers = []
    for number in range(25):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(address)
        sock.sendall(GET if number else GET.replace(b"/", b"/stream", 1))
        callers.append(sock)
        while large.asked <= number:
            loop.run_once()
        assert sum(len(one.out) for one in front.connections.values() if isinstance(one, Connection)) <= most
    stream, first, *_, last = callers
    assert len(front.connections) < 25
    last.settimeout(0)
    received = bytearray()
    while len(received) < 6_000_000:
        loop.run_once(wait=False)
        with suppress(BlockingIOError):
            received += last.recv(1 << 20)
    assert received.endswith(b"x" * 1000)
    first.settimeout(10)
    assert len(read_all(first)) < 6_000_000
    stream.settimeout(0)
    assert stream.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert sum(one.call is not None for one in front.connections.values() if isinstance(one, Connection)) == 1
    for sock in callers:
        sock.close()
    while front.connections:
        loop.run_once()
    front.drain()


WAITING = """
import os, time
def handler(request):
    if request.path == "/wait":
        while not os.path.exists("go"):
            time.sleep(0.01)
    print("ran", request.path)
    return "x"
"""


def test_callers_that_leave_the_queue_free_their_places(serve: Callable[..., FunctionProcess]) -> None:
    """A request whose caller hangs up while it waits is not run, and neither its place nor its bytes stay taken."""
    function = serve(WAITING, WISP_MAX_QUEUE="4", WISP_MAX_BODY_BYTES="50000", WISP_MAX_BUFFERED_BYTES="100000")
    with function.socket() as first, function.socket() as last:
        first.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(12):
            sock = function.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(b"POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000)
            function_is_busy(function)
            sock.close()
            function_is_busy(function)
        last.sendall(
            b"POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000
        )
        function_is_busy(function)
        (function.folder / "go").touch()
        assert statuses(read_all(first)) == [200]
        assert statuses(read_all(last)) == [200]
    assert not any("/left" in line for line in function.raw_lines)


class Waiting:
    """What the front serves; every request waits."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.queue: list[Call] = []

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Let it wait."""
        call = connection.call = Call(connection, request)
        call.prepare("http")
        self.queue.append(call)

    def withdraw(self, call: Call) -> None:
        """Forget it."""
        self.queue.remove(call)


def test_callers_that_leave_take_no_memory() -> None:
    """What a caller sent is let go when it hangs up, not when the collector comes by: it may be megabytes."""
    loop, function = Loop(), Waiting()
    front = Front(loop, function, Settings({"WISP_HOST": "127.0.0.1"}, "app.handler", "/"))
    address = ("127.0.0.1", front.listen(0))
    gc.collect()
    gc.disable()
    try:
        sock = socket.create_connection(address, 10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.sendall(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        while not function.queue:
            loop.run_once()
        sock.close()
        while front.connections:
            loop.run_once()
        assert not function.queue
        kept = [one for one in gc.get_objects() if isinstance(one, Connection | Call | HttpRequest)]
        assert not kept
    finally:
        gc.enable()
        front.drain()


@pytest.mark.parametrize("stalls", ["body", "reply"])
def test_stalled_callers_do_not_hold_up_the_end(serve: Callable[..., FunctionProcess], stalls: str) -> None:
    """A caller that doesn't send its body, or read its answer, is given up when the pod must stop."""
    function = serve("def handler(request):\n    return b'x' * 6_000_000\n", WISP_TIMEOUT_SECONDS="1")
    with function.socket() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (3 if stalls == "body" else 0))
        if stalls == "reply":
            function.log(lambda line: line.get("type") == "platform.report")
        function_is_busy(function)
        begun = time.monotonic()
        function.process.send_signal(signal.SIGTERM)
        assert function.exit_status() == 0
        assert time.monotonic() - begun < 30


EVENT = b'{"specversion":"1.0","id":"1","source":"/","type":"t","data":[%s1]}'
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/", "ce-type": "t"}


@pytest.mark.parametrize(
    ("template", "headers"),
    [
        (EVENT, {"content-type": "application/cloudevents+json"}),
        (b"[" + EVENT + b"]", {"content-type": "application/cloudevents-batch+json"}),
        (b"[%s1]", CE),
    ],
)
def test_an_event_of_very_many_values_is_refused(
    serve: Callable[..., FunctionProcess], template: bytes, headers: dict[str, str]
) -> None:
    """What the front would have to parse may not block it, or take many times its bytes; binary data passes through."""
    function = serve("def handler(event, context):\n    return len(event['data'])\n", WISP_MEMORY_MB="2048")
    answer = function.request("/", template % (b"[]," * 1_000_000), headers)
    assert (answer.status, answer.json["errorType"]) == (413, "RequestTooLarge")
    binary = function.request("/", b"[%s1]" % (b"[]," * 1_000_000), CE | {"content-type": "application/json"})
    assert binary.json == 1_000_001


@pytest.mark.parametrize("item", [b"[],", b"{},", b'"",', rb'"\\",', rb'"\"",', b'{"a":1},', b"1,"])
def test_values_are_counted_whatever_they_are(item: bytes) -> None:
    """Lists, objects, texts with escapes and numbers count, and commas in a text don't."""
    check_values(b"[" + item * (MAX_VALUES // 2 - 1) + b"1]")
    with pytest.raises(BadRequestError):
        check_values(b"[" + item * (MAX_VALUES + 1) + b"1]")
    check_values(b'["' + rb"a,\\,\",[" * MAX_VALUES + b'"]')
