"""What a reader takes for its task."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from nats.aio.msg import Msg
from wisp_api.source import ItemStatus, ReaderConfig, ReaderStatus
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


class Slow:
    """NATS, which answers the first report after it refused the second."""

    def __init__(self) -> None:
        """Nothing was reported."""
        self.reports: list[str] = []
        self.moved = asyncio.Condition()
        self.answer = asyncio.Event()

    async def request(self, subject: str, data: bytes, _: float) -> Msg:
        """Take a report; there are no tasks."""
        if not subject.startswith("$KV."):
            raise OSError
        async with self.moved:
            self.reports.append(msgspec.json.decode(data, type=ReaderStatus).reason)
            number = len(self.reports)
            self.moved.notify_all()
        if number == 2:
            raise OSError
        await self.answer.wait()
        return Msg(cast("Client", self), data=b"{}")

    async def taken(self, count: int) -> None:
        """Wait for this many reports."""
        async with asyncio.timeout(60), self.moved:
            await self.moved.wait_for(lambda: len(self.reports) >= count)


async def test_a_report_that_was_not_taken_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, though NATS takes an older one after it: nobody should read half a minute long what is over."""
    monkeypatch.setattr(reader_module, "POLL_SECONDS", 0)
    monkeypatch.setattr(reader_module, "_now", lambda: 0.0)
    nats = Slow()
    reader = Reader(cast("Client", nats), "shop", "mysql", "db", Path("/nowhere"))
    older = asyncio.ensure_future(reader.report(ReaderStatus(version="1", ready=False, reason="Over")))
    await nats.taken(1)
    await reader.report(ReaderStatus(version="1", ready=False, reason="Now"))
    nats.answer.set()
    await older
    following = asyncio.ensure_future(reader.follow())
    try:
        await nats.taken(3)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert nats.reports == ["Over", "Now", "Now"]


class Refusing:
    """NATS, whose log refuses reports, each with the next of these answers, and takes them after the last."""

    def __init__(self, *answers: bytes) -> None:
        """Nothing was reported."""
        self._answers = list(answers)
        self.taken = asyncio.Event()

    async def request(self, subject: str, *_: object) -> Msg:
        """Answer a report; there are no tasks."""
        if not subject.startswith("$KV."):
            raise OSError
        if not self._answers:
            self.taken.set()
        return Msg(cast("Client", self), data=self._answers.pop(0) if self._answers else b"{}")


async def test_what_refuses_a_report_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Once, however often the report is sent again."""
    monkeypatch.setattr(reader_module, "POLL_SECONDS", 0)
    monkeypatch.setattr(reader_module, "_now", lambda: 0.0)
    full, away = b'{"error": {"description": "maximum bytes exceeded"}}', b'{"error": {"description": "no leader"}}'
    nats = Refusing(full, full, away, full)
    reader = Reader(cast("Client", nats), "shop", "mysql", "db", Path("/nowhere"))
    await reader.report(ReaderStatus(version="1", ready=True))
    following = asyncio.ensure_future(reader.follow())
    try:
        await asyncio.wait_for(nats.taken.wait(), 60)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"the report was refused: {answer.decode()}" for answer in (full, away, full)]


class Taking:
    """NATS, which keeps each report."""

    def __init__(self) -> None:
        """Nothing was reported."""
        self.reports: list[ReaderStatus] = []

    async def request(self, _: str, data: bytes, __: float) -> Msg:
        """Take a report."""
        self.reports.append(msgspec.json.decode(data, type=ReaderStatus))
        return Msg(cast("Client", self), data=b"{}")


async def test_what_a_server_says_is_shortened() -> None:
    """A server that answers with megabytes is told of in a report that the log takes, with the cure at its end."""
    nats = Taking()
    reader = Reader(cast("Client", nats), "shop", "mysql", "db", Path("/nowhere"))
    said = "x" * 20_000_000 + "; trying again"
    items = {"shop.orders": ItemStatus(ready=False, reason="TableNotFound", message=said)}
    await reader.report(ReaderStatus(version="1", ready=False, reason="ServerUnreachable", message=said, items=items))
    [told] = nats.reports
    for message in (told.message, told.items["shop.orders"].message):
        assert len(message) == reader_module.MESSAGE_CHARACTERS
        assert message.endswith("; trying again")
