"""Who keeps a turn of the code store."""

import asyncio
from typing import Any, cast

import pytest
from wisp_api.code import WRITE, capability
from wisp_events.code import store as code

PIECE = bytes(96 * 1024)
PIECES = 20


async def test_slow_uploads_of_more_namespaces_than_turns_all_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """At somewhat less than 1 MiB/s each; none is sent away for another that is no faster: all are whole, and then compared."""
    monkeypatch.setattr(code, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(code, "LOOK_SECONDS", 0.05)
    store = code.Store(cast("Any", None), "key")  # nothing is verified, so no bucket is needed

    async def upload(namespace: str) -> tuple[int, bytes]:
        left, sent = PIECES, []

        async def receive() -> dict[str, Any]:
            nonlocal left
            await asyncio.sleep(0.1)
            left -= 1
            return {"type": "http.request", "body": PIECE, "more_body": left > 0}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"authorization", f"Bearer {capability('key', WRITE, namespace)}".encode())]
        path = f"/v1/code/{namespace}/{'0' * 64}"
        await store({"type": "http", "method": "PUT", "path": path, "headers": headers}, receive, send)
        return sent[0]["status"], sent[1]["body"][:12]

    answers = await asyncio.gather(*(upload(f"slow-{number}") for number in range(code.UPLOADS + 1)))
    assert set(answers) == {(422, b"HashMismatch")}
