"""What a reader takes for its task."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from nats.aio.msg import Msg
from wisp_api.source import ReaderConfig
from wisp_events.sources import reader as reader_module
from wisp_events.sources.reader import Reader

if TYPE_CHECKING:
    from nats.aio.client import Client


class Answers:
    """NATS, whose replicas answer in turn."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        """Each is a sequence, a time and the version of a task."""
        self._answers = list(answers)
        self.taken = asyncio.Event()

    async def request(self, *_: object) -> Msg:
        """The next answer; after the last one nobody answers."""
        if not self._answers:
            self.taken.set()
            raise OSError
        sequence, time, version = self._answers.pop(0)
        config = ReaderConfig(namespace="shop", kind="mysql", connection="db", version=version)
        headers = {"Nats-Sequence": str(sequence), "Nats-Time-Stamp": time}
        return Msg(cast("Client", self), data=msgspec.json.encode(config), headers=headers)


async def tasks(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str]) -> str:
    """The version that a reader acts on after these answers."""
    monkeypatch.setattr(reader_module, "POLL_SECONDS", 0)
    monkeypatch.setattr(reader_module, "_now", lambda: 0.0)
    nats = Answers(*answers)
    reader = Reader(cast("Client", nats), "shop", "mysql", "db", Path("/nowhere"))
    following = asyncio.ensure_future(reader.follow())
    await asyncio.wait_for(nats.taken.wait(), 60)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    return reader.wish.config.version if reader.wish else ""


async def test_an_older_task_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that lags behind may answer; what the reader would drop by it would begin anew without a gap event."""
    old, new = (7, "2026-11-21T20:00:00Z", "old"), (9, "2026-11-21T20:00:00.5Z", "new")
    assert await tasks(monkeypatch, new, old) == "new"
    assert await tasks(monkeypatch, old, new, new) == "new"


async def test_a_task_of_a_bucket_that_was_made_anew_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequences are small again, its time is later."""
    lost, again = (900, "2026-11-21T20:00:00.25Z", "lost"), (1, "2026-11-21T20:00:01Z", "again")
    assert await tasks(monkeypatch, lost, again) == "again"
