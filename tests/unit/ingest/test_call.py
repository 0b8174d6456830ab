"""A call whose caller waits ends by its deadlines, and gives back what it held; the activator is a server on loopback, the caller two callables."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from wisp_api import calling, names
from wisp_events.ingest import call
from wisp_events.ingest.call import SHARE, Calls
from wisp_events.ingest.door import Room
from wisp_events.ingest.tokens import Caller, Tokens
from wisp_events.web import Refusal

HEADERS = [(calling.REVISION.encode(), b"hello-00001"), (calling.TIMEOUT.encode(), b"1"), (b"content-length", b"2")]
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Known:
    """Knows every caller."""

    async def caller(self, _headers: object, _audience: str = names.AUDIENCE) -> Caller:
        return Caller("media", "app")


class _Request:
    """A caller that stays; what it was sent is kept, unless it does not read."""

    def __init__(self, *, reads: bool = True) -> None:
        self._body = [{"type": "http.request", "body": b"{}"}]
        self._reads = reads
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self._body:
            await asyncio.Event().wait()
        return self._body.pop()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if not self._reads:
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def calls(answering: Answering) -> AsyncIterator[Calls]:
    """The door, with an activator that answers so."""
    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            await reader.readuntil(b"{}")
            await answering(reader, writer)
        except (EOFError, ConnectionError):
            return  # who called is gone
        finally:
            writer.close()
            serving.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Calls(cast("Tokens", _Known()), f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        while tasks := {task for task in serving if task}:
            await asyncio.wait(tasks)


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nbegun")
    await reader.read()


async def _answer(door: Calls, request: _Request) -> None:
    await door.answer("media", "hello", HEADERS, request.receive, request.send)


async def test_a_function_that_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """504 at its timeout and what a start may take, with both; its place is free then, however often it happens."""
    monkeypatch.setattr(calling, "START_SECONDS", -0.99)
    async with calls(_silent) as door:
        for _ in range(SHARE + 1):
            with pytest.raises(Refusal, match=r"no whole answer in .* for a start; it may have run") as told:
                await _answer(door, _Request())
            assert told.value.status == 504


async def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same deadline, which is moved to when the first part is there; what has begun gets no other answer and no end, which its reader sees."""
    made: list[asyncio.Timeout] = []
    real = asyncio.timeout

    def timeout(delay: float | None) -> asyncio.Timeout:
        made.append(real(delay))
        return made[-1]

    class Request(_Request):
        async def send(self, message: dict[str, Any]) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                made[0].reschedule(asyncio.get_running_loop().time())

    monkeypatch.setattr(asyncio, "timeout", timeout)
    request = Request()
    async with calls(_endless) as door:
        await _answer(door, request)
    start, body = request.sent
    assert (start["status"], body["body"], body["more_body"]) == (200, b"begun", True)


async def test_a_caller_that_does_not_read_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """After WRITE_SECONDS, long before the deadline, however often it does so."""
    monkeypatch.setattr(call, "WRITE_SECONDS", 0.01)
    monkeypatch.setattr(calling, "START_SECONDS", 600)
    async with calls(_endless) as door:
        for _ in range(SHARE + 1):
            await _answer(door, _Request(reads=False))


async def test_room_is_given_back_when_who_waits_for_it_is_ended() -> None:
    """Whether it waits for room or holds some: in the end all of it is free."""
    room = Room(100_000, 100_000)

    async def hold(caller: str) -> None:
        async with room.hold(caller, [(b"content-length", b"60000")], 100_000):
            await asyncio.Event().wait()

    for _ in range(3):
        holding = [asyncio.create_task(hold(caller)) for caller in "abc"]
        await asyncio.sleep(0)
        for task in holding:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(holding)
    async with room.hold("d", [(b"content-length", b"100000")], 100_000) as longest:
        assert longest == 100_000
