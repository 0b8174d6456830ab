"""Events of several MiB: delivered whole, kept in memory only while they are sent, and no obstacle to others."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import NAMESPACE, STREAM, Router, World, event, eventually, world
from nats.js import JetStreamContext
from wisp_api import cloudevent, names
from wisp_api.cloudevent import LARGE_BYTES, PAYLOAD_BYTES, Event
from wisp_api.route import Batch, Outlet, Retry, Target
from wisp_events import log
from wisp_events.router import contents, delivery, plan, results
from wisp_events.router.client import Client as Http
from wisp_events.router.contents import Contents
from wisp_events.router.replica import Replica
from wisp_events.router.schedule import Item

BUS = Outlet(kind="bus", name="done", stream=names.stream(NAMESPACE, "bus", "done"))
IMAGE = bytes(range(256)) * (PAYLOAD_BYTES // 256)


def large(number: int, key: str = "k", size: int = PAYLOAD_BYTES) -> Event:
    """A row event whose data has this many bytes."""
    return event(number, key, data={"n": number, "pad": "x" * (size - len(f'{{"n":{number},"pad":""}}'))})


def image(number: int, key: str = "k") -> Event:
    """An event with bytes for data, as many as are taken."""
    one = event(number, key, datacontenttype="image/png", data_base64=base64.b64encode(IMAGE).decode())
    return msgspec.structs.replace(one, data=None)


def made(
    js: JetStreamContext, shared: asyncio.Semaphore, faulted: Callable[[Item, Exception], None] | None = None
) -> Contents:
    """Turns of a route that nothing is expected to go wrong with."""

    def unexpected(item: Item, error: Exception) -> None:
        raise AssertionError(item.place) from error

    return Contents(js, STREAM, shared, faulted or unexpected, lambda: None)


async def test_large_events_arrive_whole_and_in_order(tmp_path: Path) -> None:
    """JSON and bytes at the limit, among small events of the same key, and one that is refused at first."""
    async with world(tmp_path) as w:
        refused = Counter[str]()

        def answer(request: Request) -> Answer:
            refused[request.id] += 1
            return (500, MARKED, b"") if request.id == "2" and refused["2"] < 3 else ok(request)

        w.function.answer = answer
        w.router()
        await w.subscribe()
        await w.publish(event(1), large(2), event(3), image(4), event(5), large(6, size=LARGE_BYTES + 500))
        assert await w.delivered(6) == ["1", "2", "3", "4", "5", "6"]
        bodies = {request.id: request.body for request in w.function.finished}
        assert bodies["2"] == bytes(large(2).data or b"")
        assert len(bodies["2"]) == PAYLOAD_BYTES
        assert bodies["4"] == IMAGE
        assert json.loads(bodies["6"])["n"] == 6


async def test_what_comes_of_large_events(tmp_path: Path) -> None:
    """A reply, a record with event and answer, and a dead letter are as whole as the event was."""
    async with world(tmp_path) as w:
        subjects = [names.stream_subjects(NAMESPACE, "bus", "done")]
        await w.client.jetstream(timeout=60).add_stream(name=BUS.stream, subjects=subjects, allow_direct=True)
        told = json.dumps("y" * 2_500_000).encode()
        attributes = {"ce-specversion": "1.0", "ce-id": "r", "ce-source": "/f", "ce-type": "t"}
        reply: Answer = (200, MARKED | attributes | {"content-type": "application/json"}, bytes(large(1).data or b""))
        answers: dict[str, Answer] = {"/reply": reply, "/record": (200, MARKED, told), "/refuse": (422, MARKED, b"no")}
        w.function.answer = lambda request: answers[request.path]
        w.router()
        url = w.function.url
        await w.publish(large(1, size=3_000_000))
        await w.subscribe("reply", targets=[Target(url=url + "reply")], reply=BUS)
        await w.subscribe("record", targets=[Target(url=url + "record")], on_success=BUS)
        await w.subscribe("refuse", targets=[Target(url=url + "refuse")])
        [letter] = await w.dead_letters(1)
        assert cloudevent.decode(letter.event or b"") == large(1, size=3_000_000)
        js = w.client.jetstream(timeout=60)
        async with asyncio.timeout(60):
            while (await js.stream_info(BUS.stream)).state.messages < 2:  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(0.05)
        frames = [(await js.get_msg(BUS.stream, n, direct=True)).data or b"" for n in (1, 2)]
        found = {one.id: one for one in (cloudevent.decode(cloudevent.decode_frame(frame)[0]) for frame in frames)}
        assert bytes(found.pop("r").data or b"") == reply[2]
        [record] = [json.loads(bytes(one.data or b"")) for one in found.values()]
        assert record["requestPayload"] == json.loads(log.encode(large(1, size=3_000_000)))
        assert (record["responsePayload"], record["omitted"]) == (json.loads(told), [])


async def test_filters_and_batches_see_large_events(tmp_path: Path) -> None:
    """A pattern looks into their data as into any other's; a batch has those that fit, as JSON."""
    async with world(tmp_path) as w:
        w.router()
        await w.publish(*(large(n, str(n), 2_500_000) for n in range(1, 6)))
        await w.subscribe(
            filters=[{"data": {"n": [{"numeric": [">", 1]}], "pad": [{"prefix": "xx"}]}}],
            order="none",
            batch=Batch(size=10),
        )
        await eventually(lambda: sum(len(request.json()) for request in w.function.finished) == 4, "four events")
        batches = [[one["data"]["n"] for one in request.json()] for request in w.function.finished]
        assert sorted(number for batch in batches for number in batch) == [2, 3, 4, 5]
        assert max(len(batch) for batch in batches) <= 2


def most_memory(router: Router) -> int:
    """MiB that a router's process had at most."""
    assert router.process
    lines = Path(f"/proc/{router.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


async def test_waiting_events_hold_no_memory(tmp_path: Path) -> None:
    """Many large events that nobody takes, more than a window's bytes, leave small ones of others room, and come when they are taken."""
    async with world(tmp_path, max_bytes=1 << 30) as w:
        w.function.answer = lambda request: ok(request) if request.path == "/small" else (502, {}, b"")
        router = w.router()
        await w.subscribe(order="none", parallelism=50, retry=Retry(initial_seconds=2, max_seconds=2))
        for number in range(12):
            await w.publish(large(number, str(number)))
        small = [names.row_subject(NAMESPACE, "db", "public", "small", "*")]
        await w.subscribe("small", subjects=small, targets=[Target(url=w.function.url + "small")])
        await w.publish(*(event(n) for n in range(100, 200)), table="small")
        assert await w.delivered(100) == [str(n) for n in range(100, 200)]
        await eventually(lambda: len({r.id for r in w.function.requests if r.path == "/"}) == 12, "all are tried")
        w.function.requests.clear()
        w.function.answer = ok
        await w.delivered(112)
        assert sorted(map(int, w.function.ids()[100:])) == list(range(12))
        assert most_memory(router) < 200


async def test_more_run_at_once_than_there_are_turns(tmp_path: Path) -> None:
    """A turn ends when the request is written: functions that take their time with large events, and answer at length, run side by side."""
    async with world(tmp_path) as w:
        await w.client.jetstream(timeout=60).add_stream(
            name=BUS.stream, subjects=[names.stream_subjects(NAMESPACE, "bus", "done")], allow_direct=True
        )
        at_once = contents.AT_ONCE + 2
        every = asyncio.Barrier(at_once)
        told = json.dumps("y" * 2_000_000).encode()

        async def answer(_: Request) -> Answer:
            async with asyncio.timeout(60):
                await every.wait()
            return 200, MARKED, told

        w.function.answer = answer
        w.router()
        await w.publish(*(large(n, str(n), 2_000_000) for n in range(at_once)))
        await w.subscribe(order="none", parallelism=at_once, timeout_seconds=90, on_success=BUS)
        await w.delivered(at_once)
        js = w.client.jetstream(timeout=60)
        async with asyncio.timeout(60):
            while (await js.stream_info(BUS.stream)).state.messages < at_once:  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(0.05)
        assert len(w.function.requests) == at_once


async def test_a_record_that_is_gone_does_not_block_its_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody purged the stream: the event goes on as its attributes, and says why."""
    monkeypatch.setattr(contents, "GONE_SECONDS", 0.5)
    async with world(tmp_path) as w:
        js, one = w.client.jetstream(timeout=60), large(1)
        raw = msgspec.Raw(log.encode(one))
        turns = made(js, asyncio.Semaphore(1))
        item, ready = Item(1, 0, cloudevent.decode(raw), raw, 0.0, ""), asyncio.Event()
        item.forget()
        turns.fetch(item, ready.set)
        await asyncio.wait_for(ready.wait(), 60)
        assert item.burial
        assert item.burial[0] == "RecordGone"
        assert (item.event.id, item.event.data, item.absent) == ("1", None, False)
        turns.release(item)
        await turns.stop()


async def test_turns_are_bounded_and_given_back(tmp_path: Path) -> None:
    """So many of one route have their content at once; who gives a turn back has no content, and a stopped route has no turns."""
    async with world(tmp_path) as w:
        shared = asyncio.Semaphore(contents.AT_ONCE)
        turns = made(w.client.jetstream(timeout=60), shared)
        items, ready = [], Counter[int]()
        for number in range(contents.AT_ONCE_OF_ONE + 2):
            await w.publish(large(number, size=LARGE_BYTES + 1000))
            raw = msgspec.Raw(log.encode(large(number, size=LARGE_BYTES + 1000)))
            item = Item(number + 1, 0, cloudevent.decode(raw), raw, 0.0, "")
            item.forget()
            items.append(item)
            turns.fetch(item, lambda number=number: ready.update([number]))  # type: ignore[misc]
        await eventually(lambda: len(ready) == contents.AT_ONCE_OF_ONE, "the first have their content")
        assert [item.absent for item in items].count(False) == len(ready)
        assert (turns.fetching, turns.queued) == (2, True)
        assert items[0].raw == msgspec.Raw(log.encode(large(0, size=LARGE_BYTES + 1000)))
        turns.release(items[0])
        await eventually(lambda: len(ready) == contents.AT_ONCE_OF_ONE + 1, "the next has its turn")
        assert items[0].absent
        await turns.stop()
        assert shared._value == contents.AT_ONCE  # noqa: SLF001 - none is lost


async def test_a_fault_costs_no_turn(tmp_path: Path) -> None:
    """What goes wrong with one event is logged and leaves its turn to others; a turn may be given back after the end."""
    async with world(tmp_path) as w:
        shared = asyncio.Semaphore(1)
        told: list[Item] = []
        turns = made(w.client.jetstream(), shared, lambda item, _: told.append(item))
        items, ready = [], Counter[int]()
        for number in range(3):
            await w.publish(large(number, size=LARGE_BYTES + 1000))
            raw = msgspec.Raw(log.encode(large(number, size=LARGE_BYTES + 1000)))
            items.append(Item(number + 1, 0, cloudevent.decode(raw), raw, 0.0, ""))
            items[-1].forget()
        items[1].index = 9  # that its record has not

        def fault() -> None:
            ready.update([0])
            raise LookupError

        turns.fetch(items[0], fault)
        await eventually(lambda: told == [items[0]], "the fault")
        assert (ready[0], items[0].absent, turns.fetching) == (1, True, 0)
        turns.fetch(items[1], lambda: ready.update([1]))
        await eventually(lambda: bool(ready[1]), "the next has its turn")
        assert items[1].burial is not None
        turns.release(items[1])
        turns.fetch(items[2], lambda: ready.update([2]))
        await eventually(lambda: bool(ready[2]), "the last has its turn")
        await turns.stop()
        turns.release(items[2])
        assert not turns.fetching
        assert told == [items[0]]


@asynccontextmanager
async def replica(w: World) -> AsyncIterator[Replica]:
    """A router in this process."""
    http, stop = Http(), asyncio.Event()
    made = Replica(w.client, http, "here", 0.0)
    running = asyncio.create_task(made.run(stop))
    try:
        yield made
    finally:
        stop.set()
        await running
        await http.close()


async def test_large_events_that_wait_for_a_turn_hold_up_no_small_ones(tmp_path: Path) -> None:
    """Others have all turns: small events pass the large ones that wait, which come when turns are free."""
    async with world(tmp_path) as w, replica(w) as router:
        turns = router._shared.turns  # noqa: SLF001 - as if other routes had them
        for _ in range(contents.AT_ONCE):
            await turns.acquire()
        await w.publish(*(large(n, str(n), LARGE_BYTES + 1000) for n in range(5)))
        await w.publish(*(event(n, str(n)) for n in range(100, 200)))
        await w.subscribe(order="none", parallelism=2)
        assert sorted(await w.delivered(100)) == [str(n) for n in range(100, 200)]
        for _ in range(contents.AT_ONCE):
            turns.release()
        assert sorted((await w.delivered(105))[100:]) == [str(n) for n in range(5)]


async def test_a_fault_costs_an_event_no_more_than_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong that nobody foresaw, when content is fetched, a request made or an answer judged: the event is tried again."""
    faults = Counter[str]()

    def once(what: str, place: object, name: str, number: str) -> None:
        real = getattr(place, name)

        def faulty(*given: object) -> object:
            events = [value.event if isinstance(value, Item) else value for value in given]
            if not faults[what] and any(isinstance(one, Event) and one.id == number for one in events):
                faults[what] += 1
                raise LookupError(what)
            return real(*given)

        monkeypatch.setattr(place, name, faulty)

    once("content", Contents, "_remember", "2")
    once("request of a large one", plan, "render", "2")
    once("request of a small one", plan, "render", "3")
    once("answer", results, "of_success", "4")
    monkeypatch.setattr(delivery, "FAULT_SECONDS", 0.05)
    async with world(tmp_path) as w, replica(w):
        await w.publish(event(1), large(2), event(3), large(4), event(5))
        await w.subscribe(retry=Retry(initial_seconds=0.1))
        assert await w.delivered(6) == ["1", "2", "3", "4", "4", "5"]
    assert sum(faults.values()) == len(faults) == 4
    assert sum("a defect of the router" in record.message for record in caplog.records) == 4
