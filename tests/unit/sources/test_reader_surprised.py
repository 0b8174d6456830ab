"""What becomes of a reader whose server answers what its driver never expected."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import msgspec
import pytest
from fixtures.postgres_peer import peer, table
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from wisp_api import conditions
from wisp_api.source import BucketRule, PostgresConfig, ReaderConfig, ReaderStatus, S3Config, S3Server, TableConfig
from wisp_events.sources import postgres, s3
from wisp_events.sources import reader as reader_module
from wisp_events.sources.reader import Reader, Wish
from wisp_events.sources.s3_client import S3Client

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

EMPTY = cast("JetStreamContext", SimpleNamespace(get_msg=AsyncMock(side_effect=NotFoundError)))


class Taking:
    """NATS, which keeps each report."""

    def __init__(self) -> None:
        """Nothing was reported."""
        self.reports: list[ReaderStatus] = []

    async def request(self, _: str, data: bytes, __: float) -> Msg:
        """Take a report."""
        self.reports.append(msgspec.json.decode(data, type=ReaderStatus))
        return Msg(cast("Client", self), data=b"{}")


def reader_of(nats: Taking, dsn: str) -> Reader:
    """A reader that is to follow a table."""
    made = Reader(cast("Client", nats), "shop", "postgres", "db", Path("/nowhere"))
    task = PostgresConfig(slot="s", stream="s", tables=[TableConfig(name="public.orders", operations=["insert"])])
    config = ReaderConfig(namespace="shop", kind="postgres", connection="db", version="1", postgres=task)
    made.wish = Wish(config, {"dsn": dsn})
    return made


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """The work, until the end of the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(nats: Taking, task: asyncio.Task[None], asked: list[object]) -> ReaderStatus:
    """What is reported once the server was asked three times."""
    async with asyncio.timeout(60):
        while len(asked) < 3:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
    [report] = nats.reports
    return report


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader_module, postgres):
        monkeypatch.setattr(module, "RETRY_SECONDS", (0.01,))


@pytest.mark.parametrize("answer", [table(), table(b"\xff"), table(b"x")])
async def test_answers_that_are_no_databases_are_told(answer: bytes) -> None:
    """No row, no text, no column: a reason, and tried again. A process that ended would tell nobody, and come again minutes later."""
    nats, asked = Taking(), list[object]()

    def say(client: Any) -> None:
        asked.append(client)
        client.sendall(answer)

    with peer(say) as dsn:
        async with running(postgres.run(reader_of(nats, dsn), EMPTY)) as task:
            report = await told(nats, task, asked)
    assert (report.ready, report.reason) == (False, conditions.SERVER_UNREACHABLE)
    assert "server for source postgres" in report.message


async def test_an_error_that_nobody_expected_is_told_without_its_words() -> None:
    """They may quote what is secret."""
    nats, follow = Taking(), AsyncMock(side_effect=TypeError("hunter2"))
    reader = reader_of(nats, "")
    async with running(reader.fulfil(lambda _: True, follow)) as task:
        report = await told(nats, task, cast("list[object]", follow.await_args_list))
    assert (report.ready, report.reason) == (False, conditions.SERVER_UNREACHABLE)
    assert "TypeError" in report.message
    assert "hunter2" not in report.message


async def test_a_page_for_people_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in front of an S3 server may answer everything with one, and 200."""
    asked = list[object]()

    def request(_: S3Client, *given: object) -> bytes:
        asked.append(given)
        return b"<html><p>Welcome"

    monkeypatch.setattr(S3Client, "_request", request)
    monkeypatch.setattr(s3, "RETRY_SECONDS", 0.01)
    nats = Taking()
    reader = Reader(cast("Client", nats), "shop", "s3", "media", Path("/nowhere"))
    server = S3Server(name="minio", endpoint="http://s3:9000", notification_arns=["arn:minio:sqs::wisp:webhook"])
    task = S3Config(servers=[server], rules=[BucketRule(subscription="s", bucket="b", events=["s3:ObjectCreated:*"])])
    config = ReaderConfig(namespace="shop", kind="s3", connection="media", version="1", s3=task)
    reader.wish = Wish(config, {"endpoint": "http://s3:9000", "accessKey": "user", "secretKey": "hunter2"})
    async with running(s3.run(reader, EMPTY)) as working:
        report = await told(nats, working, asked)
    assert (report.ready, report.reason) == (False, conditions.SERVER_UNREACHABLE)
