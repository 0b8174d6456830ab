"""The HTTP front under hostile bytes: what it reads is what can be read in one way only, and nothing ends it.

``WISP_FUZZ_EXAMPLES=100000 pytest tests/unit/runtime/test_front_fuzz.py`` looks longer, ``WISP_FUZZ_SEED`` elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from random import Random
from typing import TYPE_CHECKING

from unit.runtime.conftest import read_all
from unit.runtime.http_fuzz import Read, hostile, read_strictly
from wisp_runtime.budget import Budget
from wisp_runtime.request_reader import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

EXAMPLES = int(os.environ.get("WISP_FUZZ_EXAMPLES", "10000"))
SEED = int(os.environ.get("WISP_FUZZ_SEED", "20"))
MOST = 100  # bytes that a body may have


def read_by_front(data: bytes, cuts: list[int]) -> tuple[list[Read], int]:
    """Have the front's reader read bytes that arrive in pieces: the requests, and the status of its refusal or 0."""
    reader = RequestReader("peer", MOST, budget := Budget(1 << 20))
    found: list[Read] = []

    def take() -> bool:
        while (request := reader.take()) is not None:
            found.append(Read(request.method.encode("latin-1"), request.target.encode("latin-1"), request.body))
            reader.release(request.held)
            if not request.keep_alive:
                return False  # the connection reads no further
        return True

    open_still = True
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        reader.feed(data[begin:end])
        open_still = open_still and take()
    refusal = reader.refusal.status if reader.refusal and open_still else 0
    reader.drop()
    assert budget.left == 1 << 20
    return found, refusal


def test_what_is_read_can_be_read_in_one_way_only() -> None:
    """Of any bytes the front reads the requests that a strict reader reads, or fewer; however they are cut, the same ones."""
    for number in range(EXAMPLES):
        random = Random(f"{SEED}-{number}")
        data = hostile(random)
        found, refusal = read_by_front(data, [])
        strict = read_strictly(data)
        assert found == strict[: len(found)], (number, data)
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randint(1, 5)))
        assert read_by_front(data, cuts) == (found, refusal), (number, data, cuts)


ECHO = """
import hashlib
def handler(request):
    text = f"{request.method} {request.url.path} {hashlib.sha1(request.body()).hexdigest()}"
    return text, 200, {"x-method": request.method}
"""


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Split what a server sent into its responses, each of which must be whole."""
    found = []
    while data:
        head, gap, rest = data.partition(b"\r\n\r\n")
        assert gap, data
        assert (
            re.fullmatch(rb"HTTP/1\.1 [1-5]\d\d [A-Za-z ]*(\r\n[a-z0-9-]+: [\x20-\x7e\x80-\xff]*)+", head)
            or head == b"HTTP/1.1 100 Continue"
        ), head
        status = int(head[9:12])
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        assert length or status in (100, 204), head
        if b"\r\nx-method: HEAD\r\n" in head:
            size = 0
        assert len(rest) >= size, data
        found.append((status, rest[:size]))
        data = rest[size:]
    return found


def resident(function: FunctionProcess) -> int:
    """How many bytes of memory the front has."""
    with open(f"/proc/{function.process.pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def said(read: Read) -> bytes:
    """What the handler answers to a request."""
    return b"%b %b %b" % (read.method, read.target, hashlib.sha1(read.body, usedforsecurity=False).hexdigest().encode())


def test_nothing_ends_the_front(serve: Callable[..., FunctionProcess]) -> None:
    """Over real connections: each answer is whole, 200 stands for what was strictly read, the next caller is served."""
    function = serve(ECHO, WISP_MAX_BODY_BYTES=str(MOST))
    before = resident(function)
    heard = 0
    for number in range(EXAMPLES // 8):
        random = Random(f"{SEED}-{number}-live")
        data = hostile(random)
        with function.socket() as sock:
            sock.sendall(data)
            try:
                sock.shutdown(socket.SHUT_WR)
                got = read_all(sock)
            except OSError:
                continue  # it was reset: there was more than the front would read
        good = [body for status, body in answers(got) if status == 200]
        heard += len(good)
        strict = [said(read) for read in read_strictly(data)]
        wanted = iter(strict)
        assert all(any(body in (b"", one) for one in wanted) for body in good), (number, data, got)
        if number % 50 == 0:
            assert function.request("/good").status == 200
    assert heard > EXAMPLES // 40
    assert function.request("/good").status == 200
    assert resident(function) - before < 8 << 20
    assert not [line for line in function.lines if line["level"] == "CRITICAL"]


ASGI = """
async def handler(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
"""
SHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frames(random: Random) -> bytes:
    """Make what a hostile client sends through a WebSocket."""
    data = b""
    for _ in range(random.randint(1, 6)):
        payload = bytes(random.choices(b"abc\xc3\xb8\xff\x03\xe8", k=random.choice((0, 1, 2, 5, 125, 126, 200))))
        first = random.choice((0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x83, 0x09))
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        data += bytes([first]) + length + bytes(4) + payload
    if random.random() < 0.3:
        at = random.randrange(len(data))
        data = data[:at] + random.randbytes(random.randint(0, 3)) + data[at + random.randint(0, 3) :]
    return data


def test_no_frame_ends_the_front(serve: Callable[..., FunctionProcess]) -> None:
    """Whatever comes through a WebSocket, what comes back are whole frames, at most one close frame, at the end."""
    function = serve(ASGI, WISP_MAX_BODY_BYTES="250", WISP_CONCURRENCY="4")
    before = resident(function)
    for number in range(EXAMPLES // 16):
        data = frames(Random(f"{SEED}-{number}-frames"))
        with function.socket() as sock:
            sock.sendall(SHAKE + data)
            try:
                sock.shutdown(socket.SHUT_WR)
                got = read_all(sock)
            except OSError:
                continue
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), (number, got)
        kinds = []
        while rest:
            size, at = (rest[1], 2) if rest[1] < 126 else (int.from_bytes(rest[2:4], "big"), 4)
            kinds.append(rest[0])
            assert len(rest) >= at + size, (number, data, got)
            rest = rest[at + size :]
        assert set(kinds) <= {0x81, 0x82, 0x88, 0x8A}, (number, kinds)
        assert 0x88 not in kinds[:-1], (number, kinds)
    with function.socket() as sock:
        sock.sendall(SHAKE + b"\x81\x82\x00\x00\x00\x00ok")
        got = b""
        while b"\x81\x02ok" not in got:
            part = sock.recv(4096)
            assert part
            got += part
    assert resident(function) - before < 8 << 20
    assert not [line for line in function.lines if line["level"] == "CRITICAL"]
