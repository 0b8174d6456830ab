"""A client of the API that sends rubbish harms nobody but itself."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.process import wait_until
from fixtures.worker import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge


STREAM = b"POST /2018-06-01/runtime/invocation/a/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
REQUESTS = (
    b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n",
    STREAM + b"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
    b"PUT /2022-07-01/telemetry HTTP/1.1\r\nLambda-Extension-Identifier: x\r\nContent-Length: 2\r\n\r\n{}",
    b'POST /2020-01-01/extension/register HTTP/1.1\r\nLambda-Extension-Name: q\r\nContent-Length: 13\r\n\r\n{"events":[]}',
    b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
)


def garbled(rng: random.Random) -> bytes:
    """Make one or two requests with bytes changed, lost and added."""
    data = bytearray(rng.choice(REQUESTS) * rng.choice([1, 1, 2]))
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(data))
        data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(data)


def test_rubbish_costs_nothing(bridge: Callable[..., Bridge]) -> None:
    """After two thousand broken conversations the runtime that polls is served, and no descriptor is left open."""
    worker = bridge()
    runtime = worker.polling()
    descriptors = Path(f"/proc/{worker.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    rng = random.Random(7)
    for _ in range(2000):
        data = garbled(rng)
        with socket.create_connection((runtime.connection.host, runtime.connection.port), DEADLINE) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data[: rng.randrange(len(data) + 1)])
                sock.sendall(data)
            if rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, don't end
    wait_until(lambda: len(list(descriptors.iterdir())) == before, "descriptors are left open", DEADLINE)
    number = worker.invoke("1", id="one")
    assert runtime.receive().body == b"1"
    assert runtime.respond("one", "2").status == 202
    assert worker.answer(number)[0].body == b"2"
