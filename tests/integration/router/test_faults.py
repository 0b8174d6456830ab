"""What survives when a part is killed, stopped in its tracks, cut off or full."""

import asyncio
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.process import listens
from fixtures.router_world import NAMESPACE, STREAM, Router, World, event, eventually, world
from wisp_api import cloudevent, names
from wisp_api.route import Retry, Target
from wisp_events import log
from wisp_events.router import bucket, janitor, ownership
from wisp_events.router.cursor import Cursor
from wisp_events.router.intake import LARGEST_PULL
from wisp_events.router.replica import FOLLOW_SECONDS

KEYS = 20
MAX_PAYLOAD = 8 * 1024 * 1024
"""Of the chart's nats-server, and what the documents ask of others."""


def check_order(requests: list[Request], total: int) -> int:
    """Assert that nothing is lost and each key's order is kept; returns the number of repeated deliveries.

    After a takeover a suffix repeats in order: a key's event may come again, but a new event never comes before an
    earlier one has been there.
    """
    seen: dict[str, int] = {}
    for request in requests:
        number, last = int(request.id), seen.get(request.key, -1)
        expected = last + KEYS if last >= 0 else number
        assert number <= expected, f"event {number} of key {request.key} came after {last}"
        seen[request.key] = max(last, number)
    counts = Counter(int(request.id) for request in requests)
    assert sorted(counts) == list(range(total))
    return sum(counts.values()) - total


async def produce(w: World, total: int) -> None:
    """Publish through the readers' own writer, so that NATS may be away meanwhile."""
    writer: log.FrameWriter[int] = log.FrameWriter(w.client.jetstream(timeout=60), STREAM, lambda _: None)
    for number in range(total):
        one = event(number, f"k{number % KEYS}")
        writer.add(
            names.row_subject(NAMESPACE, "db", "public", "orders", names.lane(one.partitionkey or "")), one, number
        )
        if number % 5 == 0:
            await asyncio.sleep(0.005)
    await writer.flush()


async def brief(request: Request) -> Answer:
    """A function that takes a moment."""
    await asyncio.sleep(0.003)
    return ok(request)


async def cursor(w: World, name: str = "sub") -> Cursor:
    """The stored cursor."""
    entry = await bucket.read(w.client.jetstream(timeout=60), names.KV_CURSORS, f"{NAMESPACE}.uid-{name}")
    assert entry
    return msgspec.json.decode(entry.value or b"", type=Cursor)


async def test_router_killed_in_traffic_loses_nothing(tmp_path: Path) -> None:
    """Killed three times in the middle of traffic and started again at once, a router loses nothing and keeps each key's order."""
    async with world(tmp_path) as w:
        w.function.answer = brief
        router = w.router()
        await w.subscribe(parallelism=KEYS)
        await w.active()
        producer = asyncio.create_task(produce(w, 2000))
        pauses = []
        for part in (300, 800, 1300):
            await w.delivered(part)
            router.kill()
            count = len(w.function.finished)
            router.start()
            await eventually(lambda: listens(router.health_port), "it is alive")
            began = time.monotonic()
            await eventually(lambda n=count: len(w.function.finished) > n, "going on")  # type: ignore[misc]
            pauses.append(time.monotonic() - began)
        assert min(pauses) < 6, "a container restarted in its pod goes on at once, it does not wait for its own silence"
        await producer
        await eventually(lambda: len({r.id for r in w.function.finished}) == 2000, "all delivered")
        assert check_order(w.function.finished, 2000) < 1200  # what was done in the last 0.1 s before each kill


async def test_replicas_share_and_take_over_within_ten_seconds(tmp_path: Path) -> None:
    """Two replicas share the routes; when one is killed the other serves all of them within 10 s, without loss."""
    async with world(tmp_path) as w:
        first = w.router("router-0")
        for n in range(8):
            await w.subscribe(f"s{n}", targets=[Target(url=f"{w.function.url}s{n}")])
        owners = {(await w.active(f"s{n}")).owner for n in range(8)}
        assert owners == {"router-0"}
        w.router("router-1")
        shares = {f"s{n}": ownership.owner(f"{NAMESPACE}.s{n}", ("router-0", "router-1")) for n in range(8)}
        assert set(shares.values()) == {"router-0", "router-1"}
        for name, owner in shares.items():
            await w.status(lambda s, owner=owner: s.owner == owner and s.state == "Active", name)  # type: ignore[misc]
        await w.publish(event(1))
        await w.delivered(8)
        await eventually_each(w, lambda stored: stored.delivered == 1)
        first.kill()
        began = time.monotonic()
        await w.publish(event(2))
        await w.delivered(16)
        assert time.monotonic() - began < 30  # 6 to 8 on a quiet machine
        assert Counter((r.path, r.id) for r in w.function.finished) == {
            (f"/s{n}", i): 1 for n in range(8) for i in "12"
        }


async def both_alive(w: World, routers: dict[str, Router]) -> None:
    """Wait until each router has written its key, and a turn more, so that all know of each other."""
    async with asyncio.timeout(60):
        members: set[str] = set()
        while members < set(routers):
            await asyncio.sleep(0.05)
            members = {entry.key for entry in await bucket.changes(w.client.jetstream(timeout=60), names.KV_MEMBERS)}
    await asyncio.sleep(3 * FOLLOW_SECONDS)


async def eventually_each(w: World, condition: Callable[[Cursor], bool]) -> None:
    """Wait until the stored cursor of each of eight routes is as wanted."""
    async with asyncio.timeout(60):
        for n in range(8):
            stored = await cursor(w, f"s{n}")
            while not condition(stored):
                await asyncio.sleep(0.02)
                stored = await cursor(w, f"s{n}")


async def test_orderly_end_hands_over_at_once(tmp_path: Path) -> None:
    """On SIGTERM a replica finishes what is under way, writes its cursor and releases its routes: nothing repeats, nobody waits."""
    async with world(tmp_path) as w:
        w.function.answer = brief
        first = w.router("router-0")
        await w.subscribe(parallelism=KEYS)
        await w.active()
        second = w.router("router-1")
        await w.joined("router-1")
        producer = asyncio.create_task(produce(w, 1500))
        for router, part in ((first, 300), (second, 800)):
            await w.delivered(part)
            await router.stop()
            router.start()
        await producer
        await eventually(lambda: len({r.id for r in w.function.finished}) == 1500, "all delivered")
        assert check_order(w.function.finished, 1500) == 0


async def test_stopped_owner_gives_way(tmp_path: Path) -> None:
    """An owner that hangs beyond its lease is replaced; awake again it starts nothing and writes nothing any more."""
    async with world(tmp_path) as w:
        w.function.answer = brief
        routers = {name: w.router(name) for name in ("router-0", "router-1")}
        await w.subscribe(parallelism=KEYS)
        owner = ownership.owner(f"{NAMESPACE}.sub", routers)
        await w.status(lambda s: s.owner == owner and s.state == "Active")
        await both_alive(w, routers)
        producer = asyncio.create_task(produce(w, 2000))
        await w.delivered(200)
        routers[owner].signal(signal.SIGSTOP)
        await w.status(lambda s: s.owner not in ("", owner))
        routers[owner].signal(signal.SIGCONT)
        await producer
        await eventually(lambda: len({r.id for r in w.function.finished}) == 2000, "all delivered")
        check_order(w.function.finished, 2000)


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_nats_outage(tmp_path: Path, how: str) -> None:
    """With NATS killed or hanging in the middle of traffic everything arrives in the end, in order."""
    async with world(tmp_path) as w:
        w.function.answer = brief
        w.router()
        await w.subscribe(parallelism=KEYS)
        await w.active()
        producer = asyncio.create_task(produce(w, 2000))
        await w.delivered(300)
        if how == "kill":
            w.nats.kill()
            w.nats.start()
        else:
            w.nats.pause()
            await asyncio.sleep(8)  # beyond the lease, so that the router must stop and come back
            w.nats.resume()
        async with asyncio.timeout(60):
            await producer
        await eventually(lambda: len({r.id for r in w.function.finished}) == 2000, "all delivered")
        check_order(w.function.finished, 2000)


async def test_router_starts_before_nats_and_its_buckets(tmp_path: Path) -> None:
    """Started first, a router waits, says in readyz what is missing, and works once it is there."""
    async with world(tmp_path) as w:
        js = w.client.jetstream(timeout=60)
        await js.delete_key_value(names.KV_MEMBERS)
        w.nats.kill()
        router = w.router()
        await eventually(lambda: "NATS was not reached yet" in readyz(router), "readyz without NATS")
        w.nats.start()
        await eventually(lambda: "buckets do not exist yet" in readyz(router), "readyz without buckets")
        await w.client.flush()
        await js.create_key_value(bucket=names.KV_MEMBERS, direct=True, ttl=8)
        await eventually(lambda: readyz(router) == "ok", "readyz")
        await w.subscribe()
        await w.active()


def readyz(router: Router) -> str:
    """What a router's readiness endpoint says."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{router.health_port}/readyz", timeout=5) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.read().decode().strip())
    except OSError:
        return ""


async def test_attempts_survive_a_restart(tmp_path: Path) -> None:
    """The attempts before a crash count: in all the function sees maxAttempts, not that many after each restart."""
    async with world(tmp_path) as w:
        w.function.answer = lambda _: (500, MARKED, b"")
        router = w.router()
        await w.subscribe(retry=Retry(max_attempts=6, initial_seconds=0.4, max_seconds=0.4))
        await w.publish(event(1))
        for attempts in (2, 4):
            await eventually(lambda n=attempts: len(w.function.requests) >= n, "attempts")  # type: ignore[misc]
            await until_counted(w, attempts)
            router.kill()
            router.start()
        (letter,) = await w.dead_letters(1)
        assert letter.attempts == 6
        assert 6 <= len(w.function.requests) <= 8  # one under way at each crash may repeat


async def until_counted(w: World, attempts: int) -> None:
    """Wait until the stored cursor knows of these attempts."""
    async with asyncio.timeout(60):
        stored = await cursor(w)
        while sum(kept.attempts for kept in stored.troubles.values()) < attempts:
            await asyncio.sleep(0.02)
            stored = await cursor(w)


async def test_done_events_beyond_a_failing_one_do_not_repeat(tmp_path: Path) -> None:
    """Events that were done while an earlier one of another key failed stay done over a restart."""
    async with world(tmp_path) as w:
        healed = False
        w.function.answer = lambda r: (500, MARKED, b"") if r.key == "k0" and not healed else ok(r)
        router = w.router()
        await w.subscribe(retry=Retry(max_attempts=1000, initial_seconds=0.05, max_seconds=0.1))
        await produce(w, 400)
        await w.delivered(380)
        async with asyncio.timeout(60):
            stored = await cursor(w)
            while stored.delivered < 380:
                await asyncio.sleep(0.02)
                stored = await cursor(w)
        router.kill()
        router.start()
        await w.publish(event(400, "k5"))
        await w.delivered(381)
        healed = True
        await w.delivered(401)
        assert check_order(w.function.finished, 401) == 0


async def test_stream_made_anew_is_delivered_from_its_beginning(tmp_path: Path) -> None:
    """A cursor that stands beyond the end of its stream, which was lost and made anew, hides no event."""
    async with world(tmp_path) as w:
        stale = Cursor(floor=1000, head=1010, started=0, parked=[(1001, 1002)], delivered=7)
        key = f"{NAMESPACE}.uid-sub"
        await bucket.write(w.client.jetstream(timeout=60), names.KV_CURSORS, key, msgspec.json.encode(stale))
        await w.publish(event(1), event(2))
        w.router()
        await w.subscribe()
        assert await w.delivered(2) == ["1", "2"]


async def test_stream_made_anew_while_it_is_read_is_delivered(tmp_path: Path) -> None:
    """A router at work finds that its stream was lost and made anew, and hides none of what is stored below its place in the old one."""
    async with world(tmp_path) as w:
        w.router()
        await w.subscribe()
        await w.publish(*(event(n) for n in range(5)))
        await w.delivered(5)
        js = w.client.jetstream(timeout=60)
        config = (await js.stream_info(STREAM)).config
        await js.delete_stream(STREAM)
        await js.add_stream(config)
        await w.publish(event(11), event(12))
        assert (await w.delivered(7, 120))[5:] == ["11", "12"]


async def test_target_closes_kept_connections(tmp_path: Path) -> None:
    """A target that closes idle connections costs no failed attempt: the request goes again on a fresh connection."""
    async with world(tmp_path) as w:
        closing = MARKED | {"connection": "close"}
        w.function.answer = lambda r: (200, closing if int(r.id) % 2 else MARKED, b"")
        w.router()
        await w.subscribe()
        await w.publish(*(event(n) for n in range(50)))
        assert await w.delivered(50) == [str(n) for n in range(50)]
        status = await w.active()
        assert status.failed == 0


async def test_janitor_purges_only_what_every_route_has_passed(tmp_path: Path) -> None:
    """Delivered records leave after the retention; with one route suspended, or new and without a cursor, none do."""
    async with world(tmp_path) as w:
        js = w.client.jetstream(timeout=60)
        router = w.router()
        await w.subscribe()
        await w.subscribe("held", suspend=True)
        await w.status(lambda s: s.state == "Suspended", "held")
        await w.publish(*(event(n) for n in range(20)))
        await w.delivered(20)
        await router.stop()

        async def first_left() -> int:
            await janitor.clean(w.client, "me", ["me"], 0)
            return (await js.stream_info(STREAM)).state.first_seq

        assert await first_left() == 1
        router.start()
        await w.subscribe("held", generation=2, targets=[Target(url=w.function.url + "held")])
        await w.delivered(40)
        await router.stop()
        await janitor.clean(w.client, "me", ["me"], 3600)
        assert (await js.stream_info(STREAM)).state.first_seq == 1
        await w.subscribe("new")
        assert await first_left() == 1
        await js.publish(f"$KV.{names.KV_ROUTES}.{NAMESPACE}.new", headers={"KV-Operation": "DEL"})
        assert await first_left() == 21
        await w.put_route(f"{NAMESPACE}.broken", b"{")
        with pytest.raises(ValueError, match="truncated"):
            await first_left()


async def test_full_stream_empties_itself(tmp_path: Path) -> None:
    """A source faster than its quota is held back, and the stream makes room as events are delivered, before the retention."""
    async with world(tmp_path, max_bytes=2_000_000) as w:
        w.function.answer = ok
        await w.subscribe(parallelism=KEYS)
        writer: log.FrameWriter[int] = log.FrameWriter(
            w.client.jetstream(timeout=60), STREAM, lambda _: None, waiting_bytes=500_000
        )
        number = 0
        while "full" not in writer.trouble:
            one = event(number, f"k{number % KEYS}", data={"pad": "x" * 4000})
            writer.add(names.row_subject(NAMESPACE, "db", "public", "orders", 0), one, number)
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        w.router()
        async with asyncio.timeout(60):
            await writer.flush()
        await eventually(lambda: len(w.function.finished) == number, "all delivered")
        check_order(w.function.finished, number)


def test_frame_limit_is_the_contract() -> None:
    """The largest event, with bytes at the limit of a payload, fits a dead letter, which fits NATS' max_payload, which fits a pull."""
    assert cloudevent.PAYLOAD_BYTES // 3 * 4 + 100_000 < cloudevent.EVENT_BYTES < MAX_PAYLOAD - 200_000
    assert MAX_PAYLOAD + 10_000 < LARGEST_PULL
