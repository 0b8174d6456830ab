"""What a tenant's reader writes into the log tells of that tenant alone, whatever it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from wisp_api import names
from wisp_operator.config import OperatorConfig
from wisp_operator.log import Change, EventLog
from wisp_operator.log_watch import _poll

if TYPE_CHECKING:
    from nats.aio.client import Client
    from wisp_operator.workqueue import WorkQueue

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
DEEP = b'{"version": "", "ready": true, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class _Reports:
    """A log that holds these reports."""

    def __init__(self, *values: bytes) -> None:
        self._changes = [Change(f"reader.tenant-{n}.s3.minio", n + 1, value) for n, value in enumerate(values)]

    async def last_revision(self, _: str) -> int:
        return 0

    async def changes(self, _: str, __: str, after: int) -> AsyncIterator[Change]:
        for change in self._changes[after:]:
            yield change


@pytest.mark.parametrize("value", [b'{"version": "\xff", "ready": true}', DEEP, b"", b"[]", b'{"version": 1e999}'])
async def test_a_report_that_can_not_be_read_ends_nobodys_watch(value: bytes) -> None:
    """Its namespace is looked at, as is the one whose report follows."""
    told: list[str] = []
    queue = SimpleNamespace(add=lambda namespace, _: told.append(namespace))
    reports = _Reports(value, b'{"version": "", "ready": true}')
    watch = asyncio.ensure_future(_poll(cast("EventLog", reports), cast("WorkQueue[str]", queue)))
    await asyncio.wait([watch], timeout=0.1)
    assert not watch.done()
    assert told == ["tenant-0", "tenant-1"]
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


class _Answers:
    """A client whose direct get answers with these messages, once."""

    def __init__(self, *messages: dict[str, str]) -> None:
        self._left = [SimpleNamespace(headers=headers, data=b"x") for headers in messages]

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, _: str) -> "_Answers":
        return self

    async def unsubscribe(self) -> None:
        """Nothing is held."""

    async def publish(self, *_: Any) -> None:
        """What is asked is known."""

    async def next_msg(self, _: float) -> Any:
        if not self._left:
            raise TimeoutError("asked once more")
        return self._left.pop(0)


@pytest.mark.parametrize(
    "forged", [{"Status": "204"}, {"Status": "204", "Nats-Num-Pending": "7"}, {"Status": "500", "Description": "no"}]
)
async def test_a_header_of_the_writer_is_no_word_of_the_server(forged: dict[str, str]) -> None:
    """A message whose writer gave it a status neither ends the answer nor seems a refusal: the others' behind it are read."""
    prefix = f"$KV.{names.KV_STATUS}."
    served = [
        {**forged, "Nats-Subject": f"{prefix}reader.a.s3.x", "Nats-Sequence": "1"},
        {"Nats-Subject": f"{prefix}reader.b.s3.x", "Nats-Sequence": "2"},
        {"Status": "204", "Nats-Num-Pending": "0"},
    ]
    log = EventLog(cast("Client", _Answers(*served)), CONFIG)
    assert [change.revision async for change in log.changes(names.KV_STATUS, ">", 0)] == [1, 2]
