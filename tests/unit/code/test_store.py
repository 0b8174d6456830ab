"""Who keeps a turn of the code store, and how who gets none learns of it."""

import asyncio
import gc
import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest
from fixtures import virtual_time
from unit.chart.conftest import CHART
from wisp_api.code import WRITE, capability, make_ticket
from wisp_events import web
from wisp_events.code import bucket, turns
from wisp_events.code import store as code

PIECE = bytes(96 * 1024)
PIECES = 20
DIGEST = "0" * 64


class Upload:
    """A request that stores an archive, whose body comes as the test says."""

    def __init__(self, store: code.Store, namespace: str, token: str) -> None:
        """It begins at once."""
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.taken = asyncio.Event()
        """Whether the store has asked for its body."""
        self._sent: list[dict[str, Any]] = []
        headers = [(b"authorization", f"Bearer {token}".encode())]
        path = f"/v1/code/{namespace}/{DIGEST}"
        scope = {"type": "http", "method": "PUT", "path": path, "headers": headers, "query_string": b""}
        self.task = asyncio.create_task(store(scope, self._receive, self._send))

    async def answer(self) -> tuple[int, bytes]:
        """Status and text."""
        await asyncio.wait_for(self.task, 60)
        return self._sent[0]["status"], self._sent[1]["body"]

    async def end(self) -> tuple[int, bytes]:
        """Its answer once the body has come to its end."""
        self.pieces.put_nowait(b"")
        return await self.answer()

    async def _receive(self) -> dict[str, Any]:
        self.taken.set()
        piece = await self.pieces.get()
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def _send(self, message: dict[str, Any]) -> None:
        self._sent.append(message)


@pytest.fixture
def store() -> code.Store:
    """Nothing is verified, since no digest is right, so no bucket is needed."""
    return code.Store(cast("Any", None), "key", "tickets")


def as_job(store: code.Store, namespace: str) -> Upload:
    """An upload of a Job."""
    return Upload(store, namespace, capability("key", WRITE, namespace))


def as_person(store: code.Store, namespace: str) -> Upload:
    """An upload with a ticket."""
    return Upload(store, namespace, make_ticket("tickets", namespace, DIGEST, int(time.time()) + 600))


def test_slow_uploads_of_more_namespaces_than_turns_all_end(store: code.Store) -> None:
    """At twice the slowest pace each; none is sent away for another that is no faster: all are whole, and then compared."""

    async def upload(namespace: str) -> tuple[int, bytes]:
        one = as_job(store, namespace)
        await one.taken.wait()
        for _ in range(PIECES):
            await asyncio.sleep(len(PIECE) / (2 * turns.SLOWEST))
            one.pieces.put_nowait(PIECE)
        return await one.end()

    async def upload_all() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(upload(f"slow-{number}") for number in range(turns.UPLOADS + 1)))

    assert PIECES * len(PIECE) / (2 * turns.SLOWEST) > 2 * turns.GRACE_SECONDS
    assert {(status, text[:12]) for status, text in virtual_time.run(upload_all())} == {(422, b"HashMismatch")}


async def test_a_job_waits_for_no_persons_line(store: code.Store) -> None:
    """However many people are at it."""
    people = [as_person(store, f"people-{number}") for number in range(turns.UPLOADS + 2)]
    for one in people[: turns.UPLOADS]:
        await asyncio.wait_for(one.taken.wait(), 60)
    assert (await as_job(store, "job").end())[0] == 422
    assert not people[-1].taken.is_set()
    assert [(await one.end())[0] for one in people] == [422] * len(people)


async def test_a_turn_ends_for_who_waits_and_lasts_where_nobody_does(
    store: code.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast the bytes come; who has had the time is told to come again."""
    monkeypatch.setattr(turns, "UPLOAD_SECONDS", 0.2)
    monkeypatch.setattr(turns, "LOOK_SECONDS", 0.05)
    first = [as_person(store, f"first-{number}") for number in range(turns.UPLOADS)]
    looks, overdue = Counter[str](), asyncio.Event()
    look = turns.Turns._make_room  # noqa: SLF001 - when it has looked shows in nothing else

    def make_room(self: turns.Turns, namespace: str, took: float, size: int) -> None:
        look(self, namespace, took, size)
        looks[namespace] += took > turns.UPLOAD_SECONDS
        if len(looks) == turns.UPLOADS and min(looks.values()) > 2:
            overdue.set()

    monkeypatch.setattr(turns.Turns, "_make_room", make_room)
    for one in first:
        await asyncio.wait_for(one.taken.wait(), 60)
        one.pieces.put_nowait(bytes(1 << 20))
    await asyncio.wait_for(overdue.wait(), 60)
    assert not any(one.task.done() for one in first)
    waiting = as_person(store, "waiting")
    await asyncio.wait_for(waiting.taken.wait(), 60)
    assert 503 in [(await one.end())[0] for one in first]
    assert (await waiting.end())[0] == 422


async def test_a_turn_ends_for_ones_own(store: code.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second upload of a namespace waits for the first as others do, and no other namespace's upload makes room for it."""
    monkeypatch.setattr(turns, "UPLOAD_SECONDS", 0.2)
    monkeypatch.setattr(turns, "LOOK_SECONDS", 0.05)
    other, first = as_person(store, "other"), as_person(store, "mine")
    await asyncio.wait_for(other.taken.wait(), 60)
    await asyncio.wait_for(first.taken.wait(), 60)
    second = as_person(store, "mine")
    await asyncio.wait_for(second.taken.wait(), 60)
    assert await first.end() == (503, b"others wait, and the body comes too slowly; try again\n")
    assert not other.task.done()
    assert [(await one.end())[0] for one in (second, other)] == [422, 422]


async def test_a_namespace_has_so_many_uploads_under_way(store: code.Store) -> None:
    """More are told to wait at once, since each has a connection that a pod may need; another namespace is not."""
    mine = [as_person(store, "busy") for _ in range(turns.QUEUED)]
    await asyncio.wait_for(mine[0].taken.wait(), 60)
    assert await as_person(store, "busy").end() == (
        503,
        b"namespace busy has 8 uploads under way: let them end first\n",
    )
    assert (await as_person(store, "other").end())[0] == 422
    assert [(await one.end())[0] for one in mine] == [422] * turns.QUEUED
    assert (await as_person(store, "busy").end())[0] == 422


async def test_nothing_is_kept_of_a_namespace_that_has_no_upload() -> None:
    """Whoever makes namespaces doesn't make the store grow."""
    people = turns.Turns()
    for number in range(9):
        async with people.turn(f"once-{number}"):
            pass
    gc.collect()
    assert not [name for name, held in vars(people).items() if isinstance(held, Mapping) and len(held)]


async def test_who_still_sends_reads_the_refusal(store: code.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real connection, which is closed after it: the body is longer than what the system holds."""
    monkeypatch.setattr(turns, "QUEUED", 0)
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    server = web.Server(store, port, keep_seconds=5)
    serving = asyncio.create_task(server.serve([listener]))
    ticket = make_ticket("tickets", "busy", DIGEST, int(time.time()) + 600)

    def upload() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request("PUT", f"/v1/code/busy/{DIGEST}", bytes(12 << 20), {"authorization": f"Bearer {ticket}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    try:
        assert await asyncio.to_thread(upload) == (503, b"namespace busy has 0 uploads under way: let them end first\n")
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def test_a_refusal_waits_for_so_much(store: code.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends on and on, or nothing more, is answered all the same."""
    monkeypatch.setattr(web, "DROPPED_BYTES", 2 * len(PIECE))
    stranger = Upload(store, "other", "no ticket")
    for _ in range(9):
        stranger.pieces.put_nowait(PIECE)
    assert (await stranger.answer())[0] == 401
    assert stranger.pieces.qsize() == 7
    monkeypatch.setattr(web, "DROP_SECONDS", 0.05)
    assert (await Upload(store, "other", "no ticket").answer())[0] == 401


def test_an_answer_is_good_for_nine_tenths_of_the_retention() -> None:
    """What is said to be there keeps its date for a tenth of the shortest retention at most."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    shortest = schema["properties"]["store"]["properties"]["retentionSeconds"]["minimum"]
    assert shortest >= 10 * bucket.FRESH_SECONDS
