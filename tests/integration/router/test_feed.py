"""Many Subscriptions of one bus read it once, and each gets what its pattern takes, whatever the others do."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from fixtures.function_server import Answer, Request, ok
from fixtures.router_world import NAMESPACE, World, event, eventually, world
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.route import Target

STREAM = names.stream(NAMESPACE, "bus", "orders")
SUBJECTS = [names.bus_subject(NAMESPACE, "orders", "*", "*"), names.redrive_subject(STREAM, "uid-sub-0")]


async def add_bus(w: World) -> None:
    """The stream."""
    subjects = [names.stream_subjects(NAMESPACE, "bus", "orders")]
    await w.client.jetstream(timeout=60).add_stream(name=STREAM, subjects=subjects, allow_direct=True)


async def subscribe(w: World, number: int, **fields: Any) -> None:
    """A Subscription `sub-<number>` to customer c<number>, with a path of its own at the function."""
    wanted: dict[str, Any] = {
        "stream": STREAM,
        "subjects": SUBJECTS[: 2 if number == 0 else 1],
        "order": "none",
        "filters": [{"data": {"customer": [f"c{number}", "all"]}}],
        "targets": [Target(url=f"{w.function.url}{number}")],
    }
    await w.subscribe(f"sub-{number}", **(wanted | fields))


async def post(w: World, *events: Event) -> None:
    """Store events in one frame."""
    subject = names.bus_subject(NAMESPACE, "orders", "order", 0)
    await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(one) for one in events]))


async def consumers(w: World) -> int:
    """How many readings of the bus the log serves."""
    return (await w.client.jetstream(timeout=60).stream_info(STREAM)).state.consumer_count


async def until_one_reading(w: World, left: int = 0) -> None:
    """Wait until the bus is read once for all; `left` readings of a killed router may still be there."""
    async with asyncio.timeout(60):
        while not 1 <= await consumers(w) <= 1 + left:  # noqa: ASYNC110 - other processes change it
            await asyncio.sleep(0.1)


def taken(w: World) -> dict[str, set[str]]:
    """Ids delivered with success, by the Subscription's number."""
    found: dict[str, set[str]] = {}
    for request in w.function.finished:
        found.setdefault(request.path.strip("/"), set()).add(request.id)
    return found


async def test_each_gets_its_own_by_one_reading(tmp_path: Path) -> None:
    """What was posted before, while and after a router is killed; a changed pattern counts from then on; one reading serves all."""
    async with world(tmp_path) as w:
        await add_bus(w)
        wanted: dict[str, set[str]] = {str(number): set() for number in range(12)}

        async def orders(first: int) -> None:
            for number in range(first, first + 120, 3):
                batch = []
                for one in range(number, number + 3):
                    customer = "all" if one % 40 == 0 else f"c{one % 15}"
                    batch.append(event(one, None, data={"customer": customer}))
                    for name, mine in wanted.items():
                        if customer in ("all", f"c{name}"):
                            mine.add(str(one))
                await post(w, *batch)

        router = w.router()
        for number in range(12):
            await subscribe(w, number)
        await orders(0)
        await eventually(lambda: taken(w) == wanted, "those of before")
        await until_one_reading(w)
        await orders(120)
        router.kill()
        await orders(240)
        w.router("router-1")
        await orders(360)
        await eventually(lambda: taken(w) == wanted, "those around a crash")
        await subscribe(w, 3, generation=2, filters=[{"data": {"customer": ["new"]}}])
        await w.active("sub-3", generation=2)
        await until_one_reading(w, left=1)
        await post(w, event(500, None, data={"customer": "new"}), event(501, None, data={"customer": "c3"}))
        await post(w, event(502, None, data={"customer": "c4"}))
        wanted["3"].add("500")
        wanted["4"].add("502")
        await eventually(lambda: taken(w) == wanted, "those after a change")


async def test_a_slow_one_holds_up_nobody(tmp_path: Path) -> None:
    """Whose window is full reads on by itself, in its own time; nothing of it is lost, and the others have long gone on."""
    async with world(tmp_path) as w:
        await add_bus(w)
        free = asyncio.Event()

        async def answer(request: Request) -> Answer:
            if request.path == "/0":
                await free.wait()
            return ok(request)

        w.function.answer = answer
        w.router()
        for number in range(5):
            await subscribe(w, number, timeout_seconds=300, parallelism=64)
            await w.active(f"sub-{number}")
        await until_one_reading(w)
        total, pad = 350, "x" * 100_000  # more than the 32 MiB that a Subscription's window holds
        for first in range(0, total, 5):
            await post(w, *(event(n, None, data={"customer": "c0", "pad": pad}) for n in range(first, first + 5)))
        await post(w, event(total, None, data={"customer": "all"}))
        await eventually(lambda: sorted(taken(w)) == ["1", "2", "3", "4"], "the others have what came last")
        free.set()
        await eventually(lambda: len(taken(w).get("0", ())) == total + 1, "all of the slow one's", 120)
        await until_one_reading(w)


async def test_what_cannot_be_read_is_each_ones_dead_letter(tmp_path: Path) -> None:
    """A record that is no frame, and one that holds no event, beside one that does; what comes again goes to one alone."""
    async with world(tmp_path) as w:
        await add_bus(w)
        w.router()
        for number in range(5):
            await subscribe(w, number)
            await w.active(f"sub-{number}")
        await until_one_reading(w)
        subject = names.bus_subject(NAMESPACE, "orders", "order", 0)
        await w.publish_raw(subject, b"no frame")
        good = cloudevent.encode(event(1, None, data={"customer": "c2"}))
        await w.publish_raw(subject, cloudevent.encode_frame([b'{"n":1}', good]))
        letters = await w.dead_letters(10)
        assert Counter(letter.subscription for letter in letters) == {f"sub-{number}": 2 for number in range(5)}
        assert {letter.reason for letter in letters} == {"Malformed"}
        again = cloudevent.encode(event(2, None, data={"customer": "nobody"}))
        await w.publish_raw(SUBJECTS[1], cloudevent.encode_frame([again]))
        await eventually(lambda: taken(w) == {"2": {"1"}, "0": {"2"}}, "what comes again")


async def test_a_bus_made_anew_is_read_anew_by_all(tmp_path: Path) -> None:
    """Where the stream was lost under the routers, all who read it together, and one who reads alone, get what is posted since."""
    async with world(tmp_path) as w:
        await add_bus(w)
        w.function.answer = lambda r: ok(r) if r.path != "/0" or int(r.id) > 3 else (503, {}, b"")
        w.router()
        for number in range(6):
            await subscribe(w, number)
        for number in range(4):
            await post(w, event(number, None, data={"customer": "all"}))
        await eventually(
            lambda: all(len(taken(w).get(str(number), ())) == 4 for number in range(1, 6)), "the first four"
        )
        await w.client.jetstream(timeout=60).delete_stream(STREAM)
        await add_bus(w)
        for number in range(11, 13):
            await post(w, event(number, None, data={"customer": "all"}))
        new = {"11", "12"}
        await eventually(
            lambda: all(new <= taken(w).get(str(number), set()) for number in range(6)), "the two after", 120
        )
