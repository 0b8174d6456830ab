"""Replies and records of invocations stand in a destination's stream before the event that they come of is done."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import NAMESPACE, STREAM, World, event, eventually, world
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.route import Batch, Outlet, Retry, Target
from wisp_events.router import bucket
from wisp_events.router.cursor import Cursor

BUS = Outlet(kind="bus", name="done", stream=names.stream(NAMESPACE, "bus", "done"))
SINK = Outlet(
    kind="destination", name="failure_subscription_sub", stream=names.stream(NAMESPACE, "destination", "sub_u_failure")
)
QUICK = Retry(max_attempts=3, initial_seconds=0.05, max_seconds=0.1)


async def add_sink(w: World, **fields: Any) -> None:
    """The stream and route of what is posted to."""
    subjects = [names.stream_subjects(NAMESPACE, "destination", "sub_u_failure")]
    await w.client.jetstream(timeout=60).add_stream(name=SINK.stream, subjects=subjects, allow_direct=True)
    given = {"stream": SINK.stream, "subjects": [names.record_subject(NAMESPACE, "sub_u_failure")], "order": "none"}
    await w.subscribe(SINK.name, records=True, **(given | fields))


def is_record(request: Request) -> bool:
    """Whether a request brings a record."""
    return request.headers["ce-type"] == "dev.wisp.invocation.failed"


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


async def done(w: World, name: str = "sub") -> int:
    """How far the stored cursor says that all is done."""
    entry = await bucket.read(w.client.jetstream(timeout=60), names.KV_CURSORS, f"{NAMESPACE}.uid-{name}")
    return msgspec.json.decode(entry.value, type=Cursor).floor if entry and entry.value else 0


async def until_done(w: World, sequence: int, name: str = "sub") -> None:
    """Wait until the cursor says so."""
    async with asyncio.timeout(60):
        while await done(w, name) < sequence:  # noqa: ASYNC110 - another process writes it
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


@pytest.mark.parametrize("batch", [None, Batch(size=2)])
async def test_what_a_subscription_gave_up_reaches_the_bus(tmp_path: Path, batch: Batch | None) -> None:
    """A record of each event, also of a batch, besides its dead letter; both say of which Function it was."""
    async with world(tmp_path) as w:
        await add_bus(w)
        w.router()
        w.function.answer = lambda _: (400, MARKED, b"no")
        await w.subscribe(receiver="pay", on_failure=BUS, batch=batch)
        await w.publish(event(1, key="a"), event(2, key="b"))
        told = {one.subject: json.loads(bytes(one.data or b"")) for one in await on_the_bus(w, 2)}
        for number in ("1", "2"):
            record = told[number]
            assert record["requestPayload"]["id"] == number
            assert record["requestContext"]["functionArn"] == f"arn:wisp:lambda:::function:{NAMESPACE}:pay"
            assert (record["requestContext"]["condition"], record["responsePayload"]) == ("Rejected", "no")
        letters = await w.dead_letters(2)
        assert {(letter.subscription, letter.function) for letter in letters} == {("sub", "pay")}
        assert {letter.revision for letter in letters} == {"127"}  # what stands for a revision's Service here
        await until_done(w, 2)


async def test_a_sink_that_is_away_gets_the_record_later(tmp_path: Path) -> None:
    """The event is done meanwhile, and its letter is the only one."""
    async with world(tmp_path) as w:
        w.router()
        w.function.answer = lambda r: (503, {}, b"") if is_record(r) else (400, MARKED, b"no")
        await add_sink(w, retry=QUICK)
        await w.subscribe(on_failure=SINK, receiver="pay")
        await w.publish(event(1))
        await until_done(w, 1)
        await eventually(lambda: sum(map(is_record, w.function.requests)) > QUICK.max_attempts, "the record, in vain")
        w.function.answer = lambda r: ok(r) if is_record(r) else (400, MARKED, b"no")
        await w.delivered(1)
        [record] = w.function.finished
        assert record.json()["requestPayload"]["id"] == "1"
        assert record.headers["ce-source"] == f"urn:wisp:subscription:{NAMESPACE}:sub"
        await until_done(w, 1, SINK.name)
        assert len(await w.dead_letters(1)) == 1


async def test_what_a_sink_refuses_is_one_letter_more(tmp_path: Path) -> None:
    """It is the destination's, with the record, and nothing comes after it."""
    async with world(tmp_path) as w:
        w.router()
        w.function.answer = lambda _: (400, MARKED, b"no")
        await add_sink(w)
        await w.subscribe(on_failure=SINK)
        await w.publish(event(1))
        await until_done(w, 1, SINK.name)
        event_letter, record_letter = await w.dead_letters(2)
        assert (event_letter.subscription, event_letter.source) == ("sub", None)
        assert (record_letter.subscription, record_letter.source) == (None, f"destination/{SINK.name}")
        assert record_letter.reason == "Rejected"
        assert cloudevent.decode(record_letter.event or b"").type == "dev.wisp.invocation.failed"


async def test_a_sink_that_leads_to_the_routers_machine_gets_nothing(tmp_path: Path) -> None:
    """The address that its name leads to is looked at, the record waits, and the route says why."""
    async with world(tmp_path) as w:
        w.router()
        w.function.answer = lambda _: (400, MARKED, b"no")
        await add_sink(w, targets=[Target(url=w.function.url, reach="public")], retry=QUICK)
        await w.subscribe(on_failure=SINK)
        await w.publish(event(1))
        said = "127.0.0.1, which is of the router's own machine or link"
        await w.status(lambda s: s.state == "Failing" and said in s.message, SINK.name)
        assert not any(map(is_record, w.function.requests))


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
