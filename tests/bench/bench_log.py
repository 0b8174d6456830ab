"""What durability costs: fsync policy against unit of the log, with 1 KiB events.

Run: `uv run python tests/bench/bench_log.py`. Prints a Markdown table of medians over ROUNDS interleaved rounds; on a
shared machine trust the ratios. The data directory is on the file system of TMPDIR.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import nats
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.nats import nats_server
from nats.js import JetStreamContext
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_events.log import FrameWriter

ROUNDS = 3
SECONDS = 1.5
STREAM = names.stream("bench", "postgres", "db")
DATA = msgspec.Raw(msgspec.json.encode({"pad": "x" * 700}))
Figures = dict[str, float]


def subject(lane: int) -> str:
    """Subject of a lane of the table."""
    return names.row_subject("bench", "db", "public", "orders", lane)


def event(number: int) -> Event:
    """An event of about 1 KiB."""
    return Event(
        id=f"{number:024x}",
        source="urn:wisp:postgres:bench:db",
        type="dev.wisp.postgres.insert",
        subject="public.orders",
        partitionkey=f"public.orders:[{number}]",
        sequence=f"{number:024}",
        data=DATA,
    )


async def single(js: JetStreamContext) -> Figures:
    """One record of one event at a time: the latency of a durable publish."""
    frame = cloudevent.encode_frame([cloudevent.encode(event(1))])
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        await js.publish(subject(0), frame)
        taken.append(time.perf_counter() - start)
    taken.sort()
    return {
        "p50": 1e3 * taken[len(taken) // 2],
        "p99": 1e3 * taken[len(taken) * 99 // 100],
        "1 in flight": len(taken) / SECONDS,
    }


async def windowed(js: JetStreamContext) -> Figures:
    """Records of one event, 256 in flight."""
    frame = cloudevent.encode_frame([cloudevent.encode(event(1))])
    done = 0
    end = time.perf_counter() + SECONDS

    async def publish() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await js.publish(subject(0), frame, timeout=60)
            done += 1

    await asyncio.gather(*(publish() for _ in range(256)))
    return {"256 in flight": done / SECONDS}


def framed(lanes: int) -> Callable[[JetStreamContext], Awaitable[Figures]]:
    """Frames by group commit, one in flight per lane, events made and encoded on the way."""

    async def run(js: JetStreamContext) -> Figures:
        acknowledged = 0

        def note(position: int) -> None:
            nonlocal acknowledged
            acknowledged = position

        writer = FrameWriter(js, STREAM, note)
        end = time.perf_counter() + SECONDS
        number = time.time_ns()
        first = number
        while time.perf_counter() < end:
            for _ in range(64):
                number += 1
                writer.add(subject(number % lanes), event(number), number)
            await writer.room()
            await asyncio.sleep(0)
        done = acknowledged - first
        await writer.flush()
        return {f"frames, {lanes} lane{'s' * (lanes > 1)}": done / SECONDS}

    return run


async def measure(sync_interval: str) -> Figures:
    """All figures for one fsync policy."""
    figures: Figures = {}
    for run in (single, windowed, framed(1), framed(8)):
        with (
            tempfile.TemporaryDirectory() as directory,
            nats_server(Path(directory), sync_interval=sync_interval) as server,
        ):
            client = await nats.connect(server.url)
            js = client.jetstream(timeout=60)
            subjects = [names.stream_subjects("bench", "postgres", "db")]
            await js.add_stream(name=STREAM, subjects=subjects, allow_direct=True)
            figures |= await run(js)
            await client.close()
    return figures


def main() -> None:
    """Measure and print."""
    rounds: dict[str, list[Figures]] = {"always": [], "100ms": [], "2m": []}
    for _ in range(ROUNDS):
        for sync_interval, results in rounds.items():
            results.append(uvloop.run(measure(sync_interval)))
    columns = list(rounds["always"][0])
    print(f"| sync_interval | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for sync_interval, results in rounds.items():
        medians = [statistics.median(result[column] for result in results) for column in columns]
        cells = [f"{value:.2f} ms" if value < 100 else f"{value:,.0f}/s" for value in medians]
        print(f"| {sync_interval} | {' | '.join(cells)} |")


main()
