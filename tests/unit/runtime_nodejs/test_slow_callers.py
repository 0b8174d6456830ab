"""Streams whose caller reads slowly: the worker makes no more than its socket takes, and all of it arrives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.worker import CHUNK, END, START, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

PIECES, PIECE = 3000, 65536
MAKE = f"""
import {{ pipeline }} from "node:stream/promises";
import {{ Readable }} from "node:stream";
const pieces = function* () {{ for (let n = 0; n < {PIECES}; n++) yield Buffer.alloc({PIECE}); }};
"""
HANDLERS = {
    "lambda": "awslambda.streamifyResponse(async (event, stream) => pipeline(Readable.from(pieces()), stream))",
    "web": "(request) => new Response(ReadableStream.from(pieces()))",
    "node": "async (req, res) => pipeline(Readable.from(pieces()), res)",
}


def memory(worker: WorkerProcess) -> float:
    """Resident MiB of a worker once it stands still: it has used no processor time for a while."""
    process = Path(f"/proc/{worker.process.pid}")
    deadline, last, still = time.monotonic() + 60, b"", 0
    while still < 10:
        assert time.monotonic() < deadline, "the worker never stands still"
        time.sleep(0.02)
        spent = process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[11:13]
        still = still + 1 if b" ".join(spent) == last else 0
        last = b" ".join(spent)
    return int(process.joinpath("statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_stream_waits_for_its_reader(run: Callable[..., WorkerProcess], handler: str) -> None:
    """While nobody reads, a stream of 190 MiB stands still at the little that fits on the way; then it arrives whole."""
    worker = run(f"{MAKE}\nexport const handler = {handler};")
    if "awslambda" in handler:
        worker.invoke()
    else:
        worker.invoke(b"", form="http", method="GET", target="/", version="1.1", headers=[], peer="")
    assert memory(worker) < 120
    received, frame = 0, worker.receive()
    while frame.kind in (START, CHUNK):
        received += len(frame.body)
        frame = worker.receive()
    assert (frame.kind, frame.head, received) == (END, {}, PIECES * PIECE)
