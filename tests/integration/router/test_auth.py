"""A delivery that the router signs, taken by a real runtime whose Function asks for a token."""

import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.process import free_port, listens, server
from fixtures.router_world import World, event, eventually, world
from wisp_api.route import Batch, Retry, Target
from wisp_operator.callers import public_jwk

AUDIENCE = "wisp.dev/tests/hello"
QUICK = Retry(max_attempts=1, initial_seconds=0.05, max_seconds=0.2)
CODE = """
def handler(event, context):
    for one in event if isinstance(event, list) else [event]:
        print("took", one["id"])
"""


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    """A world with one router that has a key to sign with."""
    async with world(tmp_path) as made:
        key = tmp_path / "current"
        key.write_text(secrets.token_hex(32))
        made.env["WISP_CALLER_KEY"] = str(key)
        made.router()
        yield made


def trust(folder: Path, seed: str) -> str:
    """Have the function trust a key, as the kubelet brings the operator's ConfigMap; the file's path."""
    entry: dict[str, Any] = {"issuer": "wisp.dev", "audiences": [AUDIENCE], "keys": {"keys": [public_jwk(seed)]}}
    fresh = folder / "fresh.json"
    fresh.write_text(json.dumps({"issuers": [entry]}))
    return str(fresh.rename(folder / "auth.json"))


@contextlib.contextmanager
def runtime(folder: Path, auth: str) -> Iterator[tuple[int, Path]]:
    """A function behind its gate: its port and its log."""
    port = free_port()
    (folder / "task").mkdir()
    (folder / "task" / "app.py").write_text(CODE)
    source = Path(__file__).parents[3] / "function-runtime" / "python" / "src"
    env = {
        "PORT": str(port),
        "WISP_HOST": "127.0.0.1",
        "WISP_METRICS_PORT": "0",
        "WISP_CODE_DIR": str(folder / "task"),
        "WISP_HANDLER": "app.handler",
        "WISP_AUTH_FILE": auth,
        "PYTHONPATH": str(source),
    }
    log = folder / "function.log"
    with server([sys.executable, "-m", "wisp_runtime"], lambda: listens(port), log, os.environ | env):
        yield port, log


@pytest.mark.parametrize("batch", [None, Batch(size=2, window_seconds=0)])
async def test_a_signed_delivery_is_taken(w: World, tmp_path: Path, batch: Batch | None) -> None:
    """One by one and in batches; neither log holds the token."""
    with runtime(tmp_path, trust(tmp_path, (tmp_path / "current").read_text())) as (port, log):
        target = Target(url=f"http://127.0.0.1:{port}/", audience=AUDIENCE)
        await w.subscribe(targets=[target], retry=QUICK, batch=batch)
        await w.publish(event(1), event(2))
        await w.status(lambda s: s.delivered == 2)
        await eventually(lambda: "took 2" in log.read_text(), "the function's log")
        assert "eyJ" not in log.read_text() + w.routers[0].log.read_text()


async def test_a_delivery_waits_for_a_key_that_is_on_its_way(w: World, tmp_path: Path) -> None:
    """No attempt is counted and nothing is buried while the function doesn't know the key yet; then the event arrives."""
    auth = trust(tmp_path, secrets.token_hex(32))
    with runtime(tmp_path, auth) as (port, log):
        target = Target(url=f"http://127.0.0.1:{port}/", audience=AUDIENCE)
        await w.subscribe(targets=[target], retry=QUICK)
        await w.publish(event(1))
        status = await w.status(lambda s: s.state == "Failing" and s.failed > 3)
        assert "HTTP 401" in status.message
        trust(tmp_path, (tmp_path / "current").read_text())
        status = await w.status(lambda s: s.delivered == 1)
        assert status.dead_lettered == 0
        await eventually(lambda: "took 1" in log.read_text(), "the function's log")


async def test_an_unsigned_delivery_ends_as_a_dead_letter(w: World, tmp_path: Path) -> None:
    """Of a route that doesn't know that a token is asked for: retried until the event is too old, and kept with the reason."""
    with runtime(tmp_path, trust(tmp_path, (tmp_path / "current").read_text())) as (port, log):
        retry = Retry(max_attempts=1, initial_seconds=0.05, max_seconds=0.2, max_age_seconds=3)
        await w.subscribe(targets=[Target(url=f"http://127.0.0.1:{port}/")], retry=retry)
        await w.publish(event(1))
        (letter,) = await w.dead_letters(1)
        assert (letter.reason, letter.last_status) == ("MaxAge", 401)
        assert "This function asks for a token" in (letter.last_response or "")
        assert "took" not in log.read_text()
