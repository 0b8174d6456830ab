"""A bus with many Subscriptions that don't match: what an event costs the router and nats-server, by their number.

Run: `uv run python tests/bench/bench_bus.py`. Each Subscription has a pattern of its own on the events' data, and one takes the last event, so that
the end is seen. CPU time of both processes, less what they use while nothing comes; events are stored one by one, as callers post them.
"""

import asyncio
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.function_server import function_server
from fixtures.router_world import NAMESPACE, World, eventually, world
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.route import Route, Target
from wisp_events.router import bucket

COUNTS = (1, 100, 1000)
EVENTS = 1_000
QUIET_SECONDS = 5.0
STREAM = names.stream(NAMESPACE, "bus", "orders")
SUBJECT = names.bus_subject(NAMESPACE, "orders", "*", "*")


def make_route(number: int, url: str) -> Route:
    """A Subscription to the orders of one customer; number 0 takes the last event."""
    return Route(
        namespace=NAMESPACE,
        name=f"sub-{number}",
        uid=f"uid-{number}",
        generation=1,
        stream=STREAM,
        subjects=[SUBJECT],
        filters=[{"data": {"customer": [f"c{number}"], "state": ["new", "paid"]}}],
        targets=[Target(url=url)],
        order="none",
    )


def make_frame(number: int) -> bytes:
    """An order of a customer whom nobody asks for, but the last."""
    data = {"customer": "c0" if number == EVENTS - 1 else f"x{number}", "state": "new", "pad": "x" * 700}
    raw = msgspec.Raw(msgspec.json.encode(data))
    made = Event(id=str(number), source="/shop", type="order", data=raw)
    return cloudevent.encode_frame([cloudevent.encode(made)])


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def used(pids: list[int], seconds: float) -> list[float]:
    """CPU seconds per second of each process while nothing comes."""
    before = [cpu(pid) for pid in pids]
    await asyncio.sleep(seconds)
    return [(cpu(pid) - at) / seconds for pid, at in zip(pids, before, strict=True)]


def wait_until_judged(port: int, total: int) -> None:
    """Wait until the Subscriptions have left out this many events."""
    deadline, judged = time.monotonic() + 300, 0.0
    while judged < total and time.monotonic() < deadline:
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        judged = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("wisp_router_filtered_total{"))


async def store(w: World) -> None:
    """Post the events, 64 at a time."""
    js = w.client.jetstream(timeout=60)
    for first in range(0, EVENTS, 64):
        numbers = range(first, min(EVENTS, first + 64))
        subject = names.bus_subject(NAMESPACE, "orders", "order", 0)
        await asyncio.gather(*(js.publish(subject, make_frame(number)) for number in numbers))


async def measure(count: int) -> list[float]:
    """Microseconds of CPU time for each event, of router and nats-server."""
    with tempfile.TemporaryDirectory() as directory:
        async with world(Path(directory)) as w, function_server() as function:
            js = w.client.jetstream(timeout=60)
            await js.add_stream(name=STREAM, subjects=[f"wisp.events.{NAMESPACE}.bus.orders.>"], allow_direct=True)
            for number in range(count):
                encoded = msgspec.json.encode(make_route(number, function.url))
                await bucket.write(js, names.KV_ROUTES, f"{NAMESPACE}.sub-{number}", encoded)
            router = w.router()
            for number in range(count):
                await w.active(f"sub-{number}")
            assert router.process and w.nats.process  # noqa: PT018
            pids = [router.process.pid, w.nats.process.pid]
            idle = await used(pids, QUIET_SECONDS)
            before, began = [cpu(pid) for pid in pids], time.monotonic()
            await store(w)
            await eventually(lambda: len(function.finished) == 1, "the last event", 600)
            await asyncio.to_thread(wait_until_judged, router.health_port, count * EVENTS - 1)
            await asyncio.sleep(1)  # cursors
            seconds = time.monotonic() - began
            spent = [cpu(pid) - at for pid, at in zip(pids, before, strict=True)]
    return [1e6 * (total - rate * seconds) / EVENTS for total, rate in zip(spent, idle, strict=True)]


def main() -> None:
    """Measure and print."""
    print("| Subscriptions | router, us per event | nats-server | both, against 1 |\n|---|---|---|---|")
    first = 0.0
    for count in COUNTS:
        router, server = uvloop.run(measure(count))
        first = first or router + server
        print(f"| {count} | {router:,.0f} | {server:,.0f} | {(router + server) / first:.1f} x |", flush=True)


if __name__ == "__main__":
    main()
