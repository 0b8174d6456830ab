"""The HTTP client against servers that behave in every way but well."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from wisp_events.router.client import BODY_BYTES, Client
from wisp_events.router.request import Address, address
from wisp_events.router.verdict import Answer, Failure, Outcome

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Serve = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Address]:
    """A server that calls `serve` with each connection's number."""
    tasks: list[asyncio.Task[None]] = []

    async def run(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await serve(number, reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(run(len(tasks) + 1, reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn


async def post(client: Client, to: Address, seconds: float = 20) -> Outcome:
    """One request."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    client.send(to, to.head + b"content-length: 0\r\n\r\n", seconds, outcome.set_result)
    async with asyncio.timeout(60):
        return await outcome


async def once(reader: asyncio.StreamReader) -> None:
    """Read one request."""
    await reader.readuntil(b"\r\n\r\n")


def sends(*parts: bytes, close: bool = False) -> Serve:
    """A server that answers each request of a connection with these bytes, part by part."""

    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await once(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.005)
            if close:
                return

    return serve


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client."""
    made = Client(connections_per_target=4)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("parts", "close", "wanted"),
    [
        ([OK], False, Answer(200, body=b"ok")),
        ([OK[:10], OK[10:30], OK[30:]], False, Answer(200, body=b"ok")),
        (
            [CHUNKED + b"2\r\nok\r\n", b"0\r\n\r\n"],
            False,
            Answer(200, body=b"ok"),
        ),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], False, Answer(200, body=b"ok")),
        ([b"HTTP/1.1 103 Early Hints\r\nwisp-request-id: x\r\n\r\n" + OK], False, Answer(200, body=b"ok")),
        ([b"HTTP/1.1 200 OK\r\n\r\nto the end"], True, Answer(200, body=b"to the end")),
        ([b"HTTP/1.0 500 X\r\nWisp-Request-Id: 1\r\n\r\nboom"], True, Answer(500, marked=True, body=b"boom")),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], False, Answer(204)),
        ([b"HTTP/1.1 429 X\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n"], False, Answer(429, retry_after=7)),
        ([b"HTTP/1.1 503 X\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n"], False, Answer(503)),
        (
            [b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000],
            False,
            Answer(200, body=b"x" * BODY_BYTES),
        ),
    ],
)
async def test_answers(client: Client, parts: list[bytes], wanted: Answer, *, close: bool) -> None:
    """Every legal form of an answer is understood, on a fresh and on a used connection."""
    async with serving(sends(*parts, close=close)) as to:
        for _ in range(3):
            assert await post(client, to) == wanted


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([b"SSH-2.0-OpenSSH\r\n"], "does not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"], "closed the connection"),
        ([CHUNKED + b"5\r\nab"], "closed the connection"),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000], "header is longer"),
        ([CHUNKED + b"2\r\nab\r\n0\r\n", b"x: " + b"y" * 100_000], "header is longer"),
        ([CHUNKED + b"2\r\nab\r\n0\r\n", b"ce-x: y\r\n" * 10_000], "header is longer"),
        ([b""], "closed the connection"),
    ],
)
async def test_broken_answers_are_failures(client: Client, parts: list[bytes], message: str) -> None:
    """What is no complete HTTP answer is a failure of the network, never a success."""
    async with serving(sends(*parts, close=True)) as to:
        outcome = await post(client, to)
        assert isinstance(outcome, Failure)
        assert message in outcome.message
        assert not outcome.timeout


async def test_connection_is_kept(client: Client) -> None:
    """Requests one after the other share a connection."""
    connections = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(number)
        await sends(OK)(number, reader, writer)

    async with serving(serve) as to:
        for _ in range(5):
            await post(client, to)
    assert connections == [1]


async def test_more_than_was_asked_for_spoils_the_connection(client: Client) -> None:
    """Bytes behind an answer never count as the next request's answer."""
    evil = b"HTTP/1.1 201 Evil\r\ncontent-length: 0\r\n\r\n"
    connections = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(number)
        await sends(OK + evil if number == 1 else OK)(number, reader, writer)

    async with serving(serve) as to:
        assert await post(client, to) == Answer(200, body=b"ok")
        assert await post(client, to) == Answer(200, body=b"ok")
    assert connections == [1, 2]


async def test_kept_connection_that_was_closed_is_retried_once(client: Client) -> None:
    """A request that meets a closing connection goes again on a fresh one; where that closes as well it has failed."""

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await once(reader)
        if number != 3:
            writer.write(OK)
            await once(reader)  # the second request of a connection meets the end

    async with serving(serve) as to:
        assert await post(client, to) == Answer(200, body=b"ok")
        assert await post(client, to) == Answer(200, body=b"ok")  # 1 closed, 2 answered
        outcome = await post(client, to)  # 2 closed, 3 closed
        assert isinstance(outcome, Failure)


async def test_deadline(client: Client) -> None:
    """Silence, even in the middle of an answer, is a timeout."""

    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await once(reader)
        writer.write(OK[:20])
        await reader.read()

    async with serving(serve) as to:
        outcome = await post(client, to, 0.3)
        assert isinstance(outcome, Failure)
        assert outcome.timeout


async def test_connections_are_bounded_and_all_are_served(client: Client) -> None:
    """Beyond the limit requests wait for a connection; none is lost."""
    open_now = peak = 0

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, peak
        open_now += 1
        peak = max(peak, open_now)
        try:
            await sends(OK, close=number % 2 == 0)(number, reader, writer)
        finally:
            open_now -= 1

    async with serving(serve) as to:
        outcomes = await asyncio.gather(*(post(client, to) for _ in range(60)))
    assert outcomes == [Answer(200, body=b"ok")] * 60
    assert peak <= 4


async def test_nobody_listens(client: Client) -> None:
    """A refused connection is a failure that names the address, for all that wait."""
    async with serving(sends(OK)) as to:
        pass
    outcomes = await asyncio.gather(*(post(client, to) for _ in range(10)))
    assert all(isinstance(one, Failure) and f"127.0.0.1:{to.port}" in one.message for one in outcomes)


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 6, 8, 10, 100])
async def test_close_ends_everything(turns: int) -> None:
    """On close every request under way has its outcome, one that still waits for its connection as well."""

    async def serve(_: int, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    client = Client(connections_per_target=2)
    async with serving(serve) as to:
        posts = [asyncio.create_task(post(client, to)) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.close()
        assert all(isinstance(one, Failure) for one in await asyncio.gather(*posts))
