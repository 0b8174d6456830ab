"""Log -> function throughput: a real nats-server, a real router process, a trivial HTTP server as the function.

Run: `uv run python tests/bench/bench_router.py [PART OF A ROW'S NAME]`. 1 KiB events, all distinct keys; the log is filled first, so this is a
catch-up. "per core" divides by the CPU time of the router's process, which neighbours on the machine don't distort; wall
clock depends on how much of the machine the target and nats-server leave. Medians of ROUNDS.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httptools
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.router_world import NAMESPACE, STREAM, SUBJECTS, Router, World, event, world
from wisp_api import cloudevent, names
from wisp_api.route import Batch, Replay, Target

ROUNDS = 3
READ = [*SUBJECTS, names.redrive_subject(STREAM, "uid-sub")]
"""As the operator writes it."""
EVENTS = 60_000
REPLY = b"HTTP/1.1 200 OK\r\nwisp-request-id: r\r\ncontent-length: 0\r\n\r\n"
PAD = "x" * 700


class Target200(asyncio.Protocol):
    """Answers 200 to everything and counts."""

    count = 0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        Target200.count += self.body.count(b'"specversion"') or 1  # of a batch; a single event has it in a header
        self.body = b""
        self.transport.write(REPLY)


def cpu_seconds(router: Router) -> float:
    """CPU time that the router has used."""
    assert router.process
    fields = Path(f"/proc/{router.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fill(w: World, frame_events: int, total: int) -> None:
    """Store events in frames of this size."""
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    js = w.client.jetstream(timeout=60)
    for first in range(0, total, frame_events):
        frame = [
            cloudevent.encode(event(n, f"public.orders:[{n}]", data={"n": n, "pad": PAD}))
            for n in range(first, min(total, first + frame_events))
        ]
        await js.publish(subject, cloudevent.encode_frame(frame))


async def until(count: int) -> None:
    """Wait for this many requests."""
    async with asyncio.timeout(120):
        while Target200.count < count:  # noqa: ASYNC110 - a callback on the hot path counts
            await asyncio.sleep(0.01)


async def measure(frame_events: int, total: int, *, replay: bool = False, **route: Any) -> tuple[float, float]:
    """Events per second of wall clock and of the router's CPU time; with `replay` of the second time that they are delivered."""
    server = await asyncio.get_running_loop().create_server(Target200, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with tempfile.TemporaryDirectory() as directory:
        async with world(Path(directory)) as w:
            await fill(w, frame_events, total)
            router = w.router()
            await w.subscribe(targets=[], parallelism=64, subjects=READ, **route)
            await w.status(lambda status: status.state == "WaitingForTarget")
            Target200.count = 0
            cpu, began = cpu_seconds(router), time.perf_counter()
            await w.subscribe(targets=[Target(url=url)], parallelism=64, subjects=READ, generation=2, **route)
            if replay:
                await until(total)
                order = Replay(since="2026-01-01T00:00:00Z", request="bench")
                await w.subscribe(targets=[], parallelism=64, subjects=READ, generation=2, replay=order, **route)
                await w.status(lambda status: status.replay is not None)
                Target200.count = 0
                cpu = cpu_seconds(router)
                await w.subscribe(
                    targets=[Target(url=url)], parallelism=64, subjects=READ, generation=3, replay=order, **route
                )
            await until(1)
            first = time.perf_counter()
            await until(total)
            wall = time.perf_counter() - first
            used = cpu_seconds(router) - cpu
            assert began < first
    server.close()
    return total / wall, total / used


def main() -> None:
    """Measure and print."""
    data_filter = {"filters": [{"data": {"n": [{"numeric": [">=", 0]}]}}]}
    cases: list[tuple[str, int, dict[str, Any]]] = [
        ("frames of 256, order key", 256, {}),
        ("frames of 256, order none", 256, {"order": "none"}),
        ("frames of 256, order key, filter on data", 256, data_filter),
        ("frames of 1, order key", 1, {}),
        ("replay, frames of 256, order key", 256, {"replay": True}),
        ("replay, frames of 256, order key, batches of 100", 256, {"replay": True, "batch": Batch(size=100)}),
        ("frames of 256, order key, batches of 100", 256, {"batch": Batch(size=100)}),
        ("frames of 256, order none, batches of 100", 256, {"batch": Batch(size=100), "order": "none"}),
    ]
    print("| log | events/s | events/s per core of the router |\n|---|---|---|")
    for name, size, route in cases:
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        total = EVENTS if size > 1 else EVENTS // 4
        results = [uvloop.run(measure(size, total, **route)) for _ in range(ROUNDS)]
        wall, core = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"| {name} | {wall:,.0f} | {core:,.0f} |", flush=True)


main()
