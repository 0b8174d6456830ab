"""WebSockets of ASGI apps: Starlette and FastAPI behind the front, a real client and raw frames before it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.process import wait_until
from unit.runtime.conftest import DEADLINE, read_all
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

APP = """
import asyncio, os, time
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.responses import JSONResponse
handler = FastAPI()

@handler.get("/")
def read():
    return "plain"

@handler.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message.get("reason"))
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect as left:
        print("left", left.code, left.reason)

@handler.websocket("/about/{name}")
async def about(socket: WebSocket, name: str, q: str = ""):
    scope = socket.scope
    await socket.accept("b" if "b" in scope["subprotocols"] else None, [(b"x-a", b"1")])
    await socket.send_json({"name": name, "q": q, "offered": scope["subprotocols"], "scheme": scope["scheme"],
                            "cookie": socket.cookies.get("c"), "pid": os.getpid()})
    await socket.close(4001, "enough")
    print("after")

@handler.websocket("/refuse")
async def refuse(socket: WebSocket):
    await socket.close()

@handler.websocket("/deny")
async def deny(socket: WebSocket):
    await socket.send_denial_response(JSONResponse({"why": "paid only"}, 402, {"x-b": "2"}))

@handler.websocket("/fails")
async def fails(socket: WebSocket):
    if socket.query_params:
        await socket.accept()
        await socket.receive_text()
    raise ValueError("sore")

@handler.websocket("/returns")
async def returns(socket: WebSocket):
    if socket.query_params:
        await socket.accept()

@handler.websocket("/exits")
async def exits(socket: WebSocket):
    await socket.accept()
    await socket.receive_text()
    os._exit(3)

@handler.websocket("/deaf")
async def deaf(socket: WebSocket):
    await socket.accept()
    await asyncio.sleep(float(await socket.receive_text()))
    number = 0
    async for message in socket.iter_bytes():
        number += 1
        if not message:
            await socket.send_text(str(number))

@handler.websocket("/talks")
async def talks(socket: WebSocket):
    await socket.accept()
    await socket.receive_text()
    number = 0
    while True:
        await socket.send_bytes(b"y" * 100_000)
        number += 1
        if number % 10 == 0:
            print("sent", number)
"""
FEW = {"WISP_CONCURRENCY": "8"}


@pytest.fixture(scope="module")
def shared(serve_shared: Callable[..., FunctionProcess]) -> FunctionProcess:
    """One function for all tests that leave it as it is."""
    return serve_shared(APP, **FEW, WISP_MAX_BODY_BYTES="1000000")


def dial(function: FunctionProcess, path: str, **options: Any) -> ClientConnection:
    """Open a WebSocket."""
    url = f"ws://127.0.0.1:{function.port}{path}"
    client: ClientConnection = connect(url, open_timeout=DEADLINE, close_timeout=DEADLINE, **options)
    return client


def closed(client: ClientConnection) -> tuple[int, str]:
    """Read until the close, and return its code and reason."""
    try:
        while True:
            client.recv(DEADLINE)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")


def handshake(function: FunctionProcess, path: str = "/echo", *more: str) -> bytes:
    """Make the bytes of a handshake."""
    fields = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{function.port}", *more]
    given = {line.partition(":")[0].lower() for line in more}
    wanted = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: " + "A" * 22 + "==",
    )
    fields += [line for line in wanted if line.partition(":")[0].lower() not in given]
    return "\r\n".join([*fields, "", ""]).encode()


def frame(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """Make a client's frame."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + struct.pack(">H", size)
        if size < 1 << 16
        else b"\xff" + struct.pack(">Q", size)
    )
    return bytes([first]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def raw(function: FunctionProcess, *frames: bytes) -> bytes:
    """Send frames behind a handshake in one piece; return what comes back behind its answer."""
    with function.socket() as sock:
        sock.sendall(handshake(function) + b"".join(frames))
        head, _, rest = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    return rest


CLOSE = frame(0x88, b"\x03\xe8")


def test_messages_go_both_ways(shared: FunctionProcess) -> None:
    """Texts and bytes of any size come back as they were sent, fragmented ones whole, and the app learns how it ended."""
    with dial(shared, "/echo", max_size=None, compression=None) as client:
        assert client.response is not None
        assert client.response.headers["wisp-request-id"]
        for message in ("", "tøxt", b"", b"\x00\xff" * 60, "x" * 126, "y" * 65_535, b"z" * 65_536, b"a" * 1_000_000):
            client.send(message)
            assert client.recv(DEADLINE) == message
        client.send(["fr", "", "åg", "ment"])
        assert client.recv(DEADLINE) == "frågment"
        assert client.ping().wait(DEADLINE)
        client.close(4002, "bye")
    assert shared.log(lambda line: line["message"] == "left 4002 bye")["requestId"]


def test_the_handshake_says_what_was_agreed(shared: FunctionProcess) -> None:
    """The app sees path, query, cookies and subprotocols; its choice, headers, close code and reason reach the caller."""
    wanted = [Subprotocol("a"), Subprotocol("b")]
    with dial(shared, "/about/n%C3%B8?q=1", subprotocols=wanted, additional_headers={"Cookie": "c=3"}) as client:
        assert client.subprotocol == "b"
        assert client.response is not None
        assert client.response.headers["x-a"] == "1"
        assert "sec-websocket-extensions" not in client.response.headers
        said = json.loads(client.recv(DEADLINE))
        del said["pid"]
        assert said == {"name": "nø", "q": "1", "offered": ["a", "b"], "scheme": "ws", "cookie": "3"}
        assert closed(client) == (4001, "enough")
    shared.log(lambda line: line["message"] == "after")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/refuse", 403, b""),
        ("/deny", 402, b'{"why":"paid only"}'),
        ("/nowhere", 403, b""),
        ("/fails", 500, b"ValueError"),
        ("/returns", 500, b"Runtime.InvalidResponse"),
    ],
)
def test_a_handshake_is_refused(shared: FunctionProcess, path: str, status: int, body: bytes) -> None:
    """An app that accepts no WebSocket answers in HTTP: 403, its own response, or 500 with its error."""
    with pytest.raises(InvalidStatus) as caught:
        dial(shared, path)
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["wisp-request-id"]
    assert body in (response.body or b"")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Sec-WebSocket-Version: 8"], 426),
        (["Sec-WebSocket-Key: short"], 400),
        (["Sec-WebSocket-Key: "], 400),
        (["Sec-WebSocket-Key: " + "A" * 22 + "==", "Sec-WebSocket-Key: " + "B" * 22 + "=="], 400),
        (["Upgrade: h2c"], 404),
        (["Connection: close"], 404),
    ],
)
def test_a_handshake_is_no_handshake(shared: FunctionProcess, fields: list[str], status: int) -> None:
    """A wrong version or key is refused; what asks for no WebSocket is an ordinary request."""
    with shared.socket() as sock:
        sock.sendall(handshake(shared, "/echo", *fields))
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"\r\nsec-websocket-version: 13\r\n" in answer) == (status == 426)


def test_other_functions_answer_in_http(serve: Callable[..., FunctionProcess]) -> None:
    """A function that is no ASGI app serves a handshake as the GET that it is, and what follows as the next request."""
    function = serve("def handler(request):\n    return request.path\n")
    answer = function.raw(handshake(function, "/a") + b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(b"\r\n\r\n/b")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (frame(0xC1, b"hi"), 1002),  # a reserved bit
        (frame(0x83, b"hi"), 1002),  # a reserved opcode
        (frame(0x8B, b""), 1002),
        (frame(0x80, b"part"), 1002),  # of nothing
        (frame(0x01, b"one") + frame(0x81, b"two"), 1002),  # one within the other
        (frame(0x09, b""), 1002),  # a ping in parts
        (frame(0x89, b"p" * 126), 1002),  # a long ping
        (b"\x81\xfe\x00\x05\x00\x00\x00\x00hello", 1002),  # a length that could be shorter
        (b"\x82\xff\xff" + bytes(11), 1002),  # a negative one
        (frame(0x81, b"\xff\xfe"), 1007),
        (frame(0x01, b"\xc3") + frame(0x80, b"("), 1007),
        (b"\x82\xff" + struct.pack(">Q", 1_000_001) + bytes(4), 1009),
        (frame(0x02, b"a" * 900_000) + frame(0x80, b"b" * 200_000), 1009),
        (frame(0x88, b"\x03"), 1002),  # half a code
        (frame(0x88, struct.pack(">H", 1005)), 1002),
        (frame(0x88, struct.pack(">H", 2999)), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
    ],
)
def test_who_breaks_the_protocol_is_told_how(shared: FunctionProcess, frames: bytes, code: int) -> None:
    """What RFC 6455 forbids ends the connection with the code that says why, after what came before it was heard."""
    answer = raw(shared, frame(0x89, b"first"), frames, frame(0x89, b"more"))
    assert answer.startswith(b"\x8a\x05first\x88")
    assert struct.unpack_from(">H", answer, 9)[0] == code
    assert len(answer) == 9 + answer[8]  # and nothing behind it


@pytest.mark.parametrize(("sent", "back"), [(b"", b""), (b"\x03\xe8", b"\x03\xe8"), (b"\x0f\xa0bye", b"\x0f\xa0")])
def test_a_close_is_answered(shared: FunctionProcess, sent: bytes, back: bytes) -> None:
    """The caller's close frame comes back with its code, behind what it asked before, a fragmented text among it."""
    answer = raw(
        shared, frame(0x01, b"a"), frame(0x89, b"?"), frame(0x80, b"b"), frame(0x88, sent), frame(0x81, b"late")
    )
    assert answer == b"\x8a\x01?" + bytes([0x88, len(back)]) + back


def test_an_error_closes_with_1011(shared: FunctionProcess) -> None:
    """An app that raises, and one whose process dies, ends its WebSockets with 1011; one that returns with 1000."""
    with dial(shared, "/fails?1") as client:
        client.send("go")
        assert closed(client)[0] == 1011
    shared.log(lambda line: line.get("errorType") == "ValueError" and line["message"] == "ValueError: sore")
    with dial(shared, "/returns?1") as client:
        assert closed(client)[0] == 1000


def test_a_dead_worker_closes_with_1011(serve: Callable[..., FunctionProcess]) -> None:
    """When the process dies all its WebSockets end with 1011, and the next is served by another process."""
    function = serve(APP, **FEW)
    with dial(function, "/exits") as client, dial(function, "/echo") as other:
        client.send("go")
        assert closed(client)[0] == closed(other)[0] == 1011
    function.log(lambda line: "exit status 3" in line["message"])
    with dial(function, "/echo") as client:
        client.send("again")
        assert client.recv(DEADLINE) == "again"


def test_the_functions_timeout_ends_a_websocket(serve: Callable[..., FunctionProcess]) -> None:
    """A WebSocket is one invocation: at its deadline both sides are told 1001; an app that then ends has not failed."""
    function = serve(APP, WISP_TIMEOUT_SECONDS="3")
    statuses: list[str] = []

    def ended_by_itself() -> bool:  # it has half a second to, for which a machine may be too busy
        with dial(function, "/echo") as client:
            assert closed(client) == (1001, "The function's time is over")
        wait_until(lambda: len(ends(function)) > len(statuses), "the report")
        statuses[:] = ends(function)
        return statuses[-1] == "success"

    wait_until(ended_by_itself, "the app ends by itself")
    function.log(lambda line: line["message"] == "left 1001 The function's time is over")
    before = about(function)["pid"]
    with dial(function, "/deaf") as client:
        client.send("60")
        assert closed(client)[0] == 1001
    wait_until(lambda: len(ends(function)) == len(statuses) + 2, "the reports")
    assert ends(function)[-1] != "success"
    if ends(function)[-1] == "error":  # it was cancelled; on a machine too busy for that, its process was killed
        assert about(function)["pid"] == before
    assert about(function)["name"] == "me"


def ends(function: FunctionProcess) -> list[str]:
    """How its invocations have ended so far."""
    return [line["status"] for line in function.lines if line.get("type") == "platform.report"]


def about(function: FunctionProcess) -> Any:
    """Ask the app who it is."""
    with dial(function, "/about/me") as client:
        return json.loads(client.recv(DEADLINE))


def test_sigterm_closes_with_1001(serve: Callable[..., FunctionProcess]) -> None:
    """A pod that is told to stop closes its WebSockets with 1001, lets the app finish, and ends."""
    function = serve(APP, **FEW)
    with dial(function, "/echo") as client:
        function.process.send_signal(signal.SIGTERM)
        assert closed(client)[0] == 1001
    assert function.exit_status() == 0
    assert any(line["message"] == "left 1001 This instance is stopping" for line in function.lines)


def test_a_caller_that_vanishes_is_told_to_the_app(shared: FunctionProcess) -> None:
    """A connection that ends without a close frame is 1006 to the app."""
    with shared.socket() as sock:
        sock.sendall(handshake(shared))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    shared.log(lambda line: line["message"].startswith("left 1006"))


def resident(function: FunctionProcess) -> int:
    """How many bytes of memory the front has."""
    with open(f"/proc/{function.process.pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_app_that_does_not_listen_holds_its_caller_up(serve: Callable[..., FunctionProcess]) -> None:
    """Messages that the app does not take stay with the caller: neither process's memory grows with them."""
    function = serve(APP, **FEW)
    with dial(function, "/deaf", compression=None) as client:
        client.send("1.5")
        before = resident(function)
        peak = [0]
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.02):
                peak[0] = max(peak[0], resident(function))

        watcher = threading.Thread(target=look)
        watcher.start()
        for _ in range(300):
            client.send(b"x" * 100_000)
        client.send(b"")
        assert client.recv(DEADLINE) == "301"
        ended.set()
        watcher.join()
    assert peak[0] - before < 4 << 20


@pytest.mark.parametrize("concurrency", ["1", "8"])
def test_a_caller_that_does_not_read_holds_the_app_up(serve: Callable[..., FunctionProcess], concurrency: str) -> None:
    """What the caller does not read stays in the app, which waits; the others are served meanwhile."""
    function = serve(APP, WISP_CONCURRENCY=concurrency)
    with function.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.sendall(handshake(function, "/talks") + frame(0x81, b"go"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 101")
        count, since = 0, time.monotonic()
        while time.monotonic() - since < 0.5:  # until it has stood still for so long
            sent = sum(line["message"].startswith("sent") for line in function.lines)
            if sent != count:
                count, since = sent, time.monotonic()
            time.sleep(0.02)
            assert count < 200  # 200 MB
        assert resident(function) < 40 << 20
        if concurrency != "1":
            assert about(function)["name"] == "me"
        got = 0
        while got < 30_000_000:
            got += len(sock.recv(1 << 20))


def test_pings_are_bounded(shared: FunctionProcess) -> None:
    """A caller that pings and reads nothing is read no further."""
    with shared.socket() as sock:
        sock.sendall(handshake(shared))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        before = resident(shared)
        sock.settimeout(1)
        pings = frame(0x89, b"p" * 125) * 300_000
        with pytest.raises(TimeoutError):
            sock.sendall(pings)
        assert resident(shared) - before < 4 << 20
    assert shared.request("/").json == "plain"
