"""Replies and records of invocations stand in a destination's stream before the event that they come of is done."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import NAMESPACE, STREAM, World, event, world
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.route import Outlet, Retry
from wisp_events.router import bucket
from wisp_events.router.cursor import Cursor

BUS = Outlet(kind="bus", name="done", stream=names.stream(NAMESPACE, "bus", "done"))


async def add_bus(w: World, **limits: Any) -> None:
    """The destination's stream."""
    subjects = [names.stream_subjects(NAMESPACE, "bus", "done")]
    await w.client.jetstream(timeout=60).add_stream(name=BUS.stream, subjects=subjects, allow_direct=True, **limits)


async def on_the_bus(w: World, count: int) -> list[Event]:
    """Wait for this many events on the bus."""
    js = w.client.jetstream(timeout=60)
    found: list[Event] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            await asyncio.sleep(0.05)
            last = (await js.stream_info(BUS.stream)).state.last_seq
            frames = [(await js.get_msg(BUS.stream, n)).data or b"" for n in range(1, last + 1)]
            found = [cloudevent.decode(raw) for frame in frames for raw in cloudevent.decode_frame(frame)]
    return found


async def done(w: World) -> int:
    """How far the stored cursor says that all is done."""
    entry = await bucket.read(w.client.jetstream(timeout=60), names.KV_CURSORS, f"{NAMESPACE}.uid-sub")
    return msgspec.json.decode(entry.value, type=Cursor).floor if entry and entry.value else 0


async def until_done(w: World, sequence: int) -> None:
    """Wait until the cursor says so."""
    async with asyncio.timeout(60):
        while await done(w) < sequence:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)


def reply(request: Request) -> Answer:
    """An event in binary mode, named after the one that came."""
    attributes = {"ce-specversion": "1.0", "ce-id": f"r{request.id}", "ce-source": "/f", "ce-type": "paid"}
    return 200, MARKED | attributes | {"content-type": "application/json"}, b'{"paid": true}'


async def test_replies_reach_the_bus(tmp_path: Path) -> None:
    """One for each event, a hop further; what is no CloudEvent is dropped, what claims to be one is a dead letter."""
    async with world(tmp_path) as w:
        await add_bus(w)
        w.router()
        w.function.answer = lambda r: {"3": ok(r), "4": (200, MARKED | {"ce-specversion": "1.0"}, b"")}.get(
            r.id, reply(r)
        )
        await w.subscribe(reply=BUS)
        await w.publish(*(event(n, key=str(n)) for n in range(1, 5)))
        found = await on_the_bus(w, 2)
        assert sorted((one.id, one.wisphops, bytes(one.data or b"")) for one in found) == [
            ("r1", 1, b'{"paid": true}'),
            ("r2", 1, b'{"paid": true}'),
        ]
        [letter] = await w.dead_letters(1)
        assert (letter.reason, letter.subscription, letter.message) == (
            "BadReply",
            "sub",
            "event 0 of the function's reply: ce-id is missing",
        )
        await until_done(w, 4)


async def test_records_of_invocations_reach_the_bus(tmp_path: Path) -> None:
    """Of a success and of a failure, which is a dead letter besides."""
    async with world(tmp_path) as w:
        await add_bus(w)
        w.router()
        w.function.answer = lambda r: (500, MARKED, b"no") if r.id == "1" else ok(r)
        await w.subscribe(
            function="pay", on_success=BUS, on_failure=BUS, retry=Retry(max_attempts=2, initial_seconds=0.05)
        )
        await w.publish(event(1, key="a"), event(2, key="b"))
        told = {one.subject: json.loads(bytes(one.data or b"")) for one in await on_the_bus(w, 2)}
        assert {key: record["requestContext"]["condition"] for key, record in told.items()} == {
            "1": "RetriesExhausted",
            "2": "Success",
        }
        [letter] = await w.dead_letters(1)
        assert (letter.reason, letter.source) == ("MaxAttempts", "function/pay")
        await until_done(w, 2)


async def test_an_event_is_not_done_before_its_reply_is_stored(tmp_path: Path) -> None:
    """While the bus is full the event stays undone, also where the router is killed; then the reply is there, and the event done."""
    async with world(tmp_path) as w:
        await add_bus(w, max_msgs=1, discard="new")
        subject = names.bus_subject(NAMESPACE, "done", "filler", 0)
        await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(event(99))]))
        router = w.router()
        w.function.answer = reply
        await w.subscribe(reply=BUS)
        await w.publish(event(1))
        await w.delivered(1)
        assert await done(w) == 0
        router.kill()
        w.router("router-1")
        await w.delivered(2)
        assert await done(w) == 0
        await w.client.jetstream(timeout=60).purge_stream(BUS.stream)
        await until_done(w, 1)
        state = (await w.client.jetstream(timeout=60).stream_info(BUS.stream)).state
        stored = (await w.client.jetstream(timeout=60).get_msg(BUS.stream, state.last_seq)).data or b""
        assert [cloudevent.decode(raw).id for raw in cloudevent.decode_frame(stored)] == ["r1"]


async def test_what_no_destination_takes_is_a_dead_letter_of_the_destination(tmp_path: Path) -> None:
    """With the reply itself, so that it can be sent on, and what to do about it."""
    async with world(tmp_path) as w:
        w.router()
        w.function.answer = reply
        await w.subscribe(reply=Outlet(kind="bus", name="done"))
        await w.publish(event(1))
        [letter] = await w.dead_letters(1)
        assert (letter.reason, letter.subscription, letter.source) == ("DestinationFailed", None, "bus/done")
        assert cloudevent.decode(letter.event or b"").id == "r1"
        assert (letter.stream, letter.sequence) == (STREAM, 1)
        assert letter.message.endswith("it is there as soon as a Subscription names it in source.bus")
        await until_done(w, 1)
