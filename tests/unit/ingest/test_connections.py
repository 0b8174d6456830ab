"""What a stranger's connection to the ingest or the code store may cost, over real ones."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from wisp_events import connections, web

DEADLINE = 60
LARGE = 32 << 20
"""More than the system keeps of an answer that nobody reads."""
GET = b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n"
Dial = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def _app(scope: dict[str, object], _: web.Receive, send: web.Send) -> None:
    """Answers at once: without reading the body, and much where `/large` is asked for."""
    body = bytes(LARGE) if scope["path"] == "/large" else b"here"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(keep_seconds: int = 1) -> AsyncIterator[Dial]:
    """A running server; yields how to connect to it, from any address of loopback."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = web.Server(_app, 0, keep_seconds=keep_seconds)
    running = asyncio.create_task(server.serve([listener]))
    opened: list[asyncio.StreamWriter] = []

    async def dial(address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*listener.getsockname(), local_addr=(address, 0))
        opened.append(writer)
        return reader, writer

    try:
        yield dial
    finally:
        for writer in opened:
            writer.transport.abort()
        server.should_exit = True
        await running
        listener.close()


async def status(reader: asyncio.StreamReader) -> bytes:
    """The status line of an answer; empty where there is none."""
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionError):
            return (await reader.readline()).partition(b" ")[2].strip()
        return b""


async def gone(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, what it sent before included."""
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
    return True


@asynccontextmanager
async def trickling(writer: asyncio.StreamWriter, part: bytes) -> AsyncIterator[None]:
    """As long as the block runs, send this again and again."""

    async def send() -> None:
        while True:
            writer.write(part)
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"", b""), (b"", b"\r\n"), (b"GET / HTTP/1.1\r\nx: ", b"a"), (GET % b"/", b"\r\n")],
    ids=["nothing", "empty lines", "an endless head", "empty lines after an answer"],
)
async def test_who_begins_no_request_is_not_waited_for(first: bytes, then: bytes) -> None:
    """A connection on which no whole head comes is closed, also when something comes again and again."""
    async with serving() as dial:
        reader, writer = await dial()
        writer.write(first)
        async with trickling(writer, then):
            assert await gone(reader)


@pytest.mark.parametrize(
    "endless",
    [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "],
    ids=["target", "header", "trailer"],
)
async def test_a_head_has_an_end(endless: bytes) -> None:
    """Neither a target nor a header nor a trailer is kept beyond HEAD_BYTES."""
    async with serving(keep_seconds=10 * DEADLINE) as dial:
        reader, writer = await dial()
        writer.write(endless)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * connections.HEAD_BYTES:
                writer.write(b"a" * 4096)
                await asyncio.wait_for(writer.drain(), DEADLINE)
                sent += 4096
                await asyncio.sleep(0)
        assert await gone(reader)


async def test_a_long_body_is_no_head() -> None:
    """Bodies of any length pass, in large chunks and in small ones."""
    async with serving(keep_seconds=10 * DEADLINE) as dial:
        reader, writer = await dial()
        for chunk, count in ((b"a", 50_000), (b"a" * 40_000, 10)):
            writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write((b"%x\r\n%s\r\n" % (len(chunk), chunk)) * count + b"0\r\n\r\n")
            assert await status(reader) == b"200 OK"
            await asyncio.wait_for(reader.readuntil(b"here"), DEADLINE)


async def test_one_address_keeps_nobody_out() -> None:
    """An address has SHARE connections; another one is served meanwhile, and so is the first when it has closed one."""
    async with serving(keep_seconds=10 * DEADLINE) as dial:
        held = [await dial("127.0.0.2") for _ in range(connections.SHARE)]
        reader, _ = await dial("127.0.0.2")
        assert await status(reader) == b"503 Service Unavailable"
        reader, writer = await dial("127.0.0.3")
        writer.write(GET % b"/")
        assert await status(reader) == b"200 OK"
        held[0][1].close()
        until = time.monotonic() + DEADLINE
        answer = b""
        while answer != b"200 OK" and time.monotonic() < until:
            reader, writer = await dial("127.0.0.2")
            writer.write(GET % b"/")
            answer = await status(reader)
        assert answer == b"200 OK"


async def test_who_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose client reads nothing of its answer is closed, and one that reads slowly is not."""
    monkeypatch.setattr(connections, "STALL_SECONDS", 4)
    async with serving(keep_seconds=10 * DEADLINE) as dial:
        idle, writer = await dial()
        slow, other = await dial()
        writer.write(GET % b"/large")
        other.write(GET % b"/large")
        left = LARGE
        await asyncio.wait_for(slow.readuntil(b"\r\n\r\n"), DEADLINE)
        while left:
            part = await asyncio.wait_for(slow.read(1 << 20), DEADLINE)
            assert part, f"closed with {left} bytes to come"
            left -= len(part)
            await asyncio.sleep(6 * len(part) / LARGE)  # longer than that in all
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(idle.readexactly(LARGE), DEADLINE)
