"""Events posted to a bus: a real ingest, a real nats-server that fsyncs each frame, callers over kept-alive connections.

Run: `uv run python tests/bench/bench_ingest.py`. 1 KiB events, each accepted (202) only when it is on disk. "per core" divides by the CPU
time of the ingest's process, which callers and nats-server on the same machine don't distort. Medians of ROUNDS.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httptools

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.dataplane import DataPlane, Part, data_plane
from fixtures.nats import nats_server
from fixtures.process import free_port
from fixtures.tokens import Issuer, token_keys
from wisp_api import names
from wisp_api.source import Inbox

ROUNDS = 3
SECONDS = 4
PAD = "x" * 880
STREAM = names.stream("bench", "bus", "b")


class Caller(asyncio.Protocol):
    """Posts one request after the other on one connection."""

    def __init__(self, number: int, batch: int, head: bytes, counts: list[int]) -> None:
        """`batch` 0: single events in binary mode."""
        self.number, self.batch, self.head, self.counts = number, batch, head, counts
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.post()

    def post(self) -> None:
        """Send the next request."""
        self.sent += 1
        place = f"{self.number}-{self.sent}"
        if not self.batch:
            body = json.dumps({"pad": PAD}).encode()
            lines = f"ce-specversion: 1.0\r\nce-id: {place}\r\nce-source: /bench\r\nce-type: t\r\ncontent-type: application/json\r\n"
        else:
            common = {"specversion": "1.0", "source": "/bench", "type": "t", "data": {"pad": PAD}}
            body = json.dumps([common | {"id": f"{place}-{n}"} for n in range(self.batch)]).encode()
            lines = "content-type: application/cloudevents-batch+json\r\n"
        self.transport.write(self.head + f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count what was accepted and go on."""
        assert self.parser.get_status_code() == 202
        self.parser = httptools.HttpResponseParser(self)
        self.counts[0] += self.batch or 1
        self.post()


def cpu_seconds(part: Part) -> float:
    """CPU time that the ingest has used."""
    assert part.process
    fields = Path(f"/proc/{part.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(part: Part, port: int, token: str, callers: int, batch: int) -> tuple[float, float]:
    """Events per second of wall clock, and of the ingest's CPU time."""
    path = "/v1/namespaces/bench/buses/b/events"
    head = f"POST {path} HTTP/1.1\r\nhost: ingest\r\nauthorization: Bearer {token}\r\n".encode()
    counts, loop = [0], asyncio.get_running_loop()
    number = time.time_ns()
    made = [
        await loop.create_connection(lambda n=n: Caller(number + n, batch, head, counts), "127.0.0.1", port)  # type: ignore[misc]
        for n in range(callers)
    ]
    await asyncio.sleep(0.5)
    before, cpu, began = counts[0], cpu_seconds(part), time.perf_counter()
    await asyncio.sleep(SECONDS)
    done, used, wall = counts[0] - before, cpu_seconds(part) - cpu, time.perf_counter() - began
    for transport, _ in made:
        transport.abort()
    return done / wall, done / used


def run(plane: DataPlane) -> None:
    """Measure and print."""
    issuer, port = Issuer(), free_port()
    plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(issuer))
    plane.add_stream(STREAM, [names.stream_subjects("bench", "bus", "b")], max_bytes=8 << 30)
    plane.put(names.KV_SOURCES, names.inbox_key("bus", "bench", "b"), Inbox(stream=STREAM))
    part = Part("ingest", plane, {"WISP_INGEST_PORT": str(port)})
    part.start()
    part.wait_ready()
    print("| posted | events/s | events/s per core of the ingest |\n|---|---|---|")
    for name, callers, batch in (
        ("one at a time, 1 caller", 1, 0),
        ("one at a time, 64 callers", 64, 0),
        ("batches of 100, 1 caller", 1, 100),
        ("batches of 100, 8 callers", 8, 100),
    ):
        results = []
        for _ in range(ROUNDS):
            results.append(asyncio.run(measure(part, port, issuer.token("bench"), callers, batch)))
            plane.purge(STREAM)
        wall, core = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"| {name} | {wall:,.0f} | {core:,.0f} |", flush=True)
    part.stop()


with (
    tempfile.TemporaryDirectory() as directory,
    nats_server(Path(directory)) as server,
    data_plane(server, Path(directory)) as made_plane,
):
    run(made_plane)
