"""How the ingest slows down a sender that tries again without a pause."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from wisp_events.ingest import app as ingest

CEPH = b"Basic d2lzcDp3cm9uZw=="
"""wisp:wrong"""


async def ask(app: ingest.App, server: str, authorization: bytes) -> int:
    """Post an empty notification; the answer's status."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", authorization)]
    await app({"type": "http", "method": "POST", "path": f"/v1/s3/{server}", "headers": headers}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(("server", "status"), [("ceph", 401), ("gone", 404)])
async def test_ceph_hears_late_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, status: int
) -> None:
    """As many as may wait do; one more, and whoever sends a bearer token, is answered at once."""
    (tmp_path / "ceph").write_text("right")
    monkeypatch.setattr(ingest, "HOLD_SECONDS", 3600)
    monkeypatch.setattr(ingest, "HELD", 2)
    app = ingest.App(tmp_path)
    asked = [asyncio.create_task(ask(app, server, CEPH)) for _ in range(3)]
    done, held = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert [one.result() for one in done] == [status]
    async with asyncio.timeout(60):
        assert await ask(app, server, b"Bearer wrong") == status
    assert not any(one.done() for one in held)
    for one in held:
        one.cancel()
    await asyncio.wait(held)


async def test_what_is_held_is_answered_and_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late, not never; the event log that isn't reached yet is such a failure."""
    (tmp_path / "ceph").write_text("wrong")
    monkeypatch.setattr(ingest, "HOLD_SECONDS", 0.1)
    monkeypatch.setattr(ingest, "HELD", 1)
    app, loop = ingest.App(tmp_path), asyncio.get_running_loop()
    for _ in range(2):
        began = loop.time()
        assert await ask(app, "ceph", CEPH) == 503
        assert loop.time() - began > 0.09
