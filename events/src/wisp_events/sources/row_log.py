"""What a reader of rows asks of the log, and tells it, before it begins to stream; the same for every database."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final, Generic, TypeVar

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import Header
from wisp_api import cloudevent, conditions, names
from wisp_api.cloudevent import Event
from wisp_api.source import ReaderConfig

from wisp_events import log
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Place

LOG_SECONDS: Final = 15.0
_EXPECTED: Final = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
T = TypeVar("T")


async def last_sequences(js: JetStreamContext, stream: str, config: ReaderConfig, table: str) -> list[str]:
    """The sequence of the last event that the log holds of each lane of a table (`schema.table`).

    Raises:
        Trouble: the log does not answer.
    """
    schema, _, name = table.partition(".")
    found: list[str] = []
    for lane in range(names.LANES):
        subject = names.row_subject(config.namespace, config.connection, schema, name, lane, kind=config.kind)
        try:
            last = await js.get_msg(stream, subject=subject, direct=True)
        except nats.js.errors.NotFoundError:
            continue
        except (nats.errors.Error, OSError) as error:
            raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
        found.append(cloudevent.decode(cloudevent.decode_frame(last.data or b"")[-1]).sequence or "")
    return found


async def last_places(js: JetStreamContext, stream: str, config: ReaderConfig, tables: Collection[str]) -> list[Place]:
    """The place of the last event that the log holds of each lane of each of these tables (`schema.table`).

    Raises:
        Trouble: the log does not answer.
    """
    held = [sequence for table in tables for sequence in await last_sequences(js, stream, config, table)]
    return [place for sequence in held if (place := Place.parse(sequence))]


class Kept(Generic[T]):
    """How far a reader is, in a key of the event log.

    Invariant: a position that was not seen is never overwritten. Any replica of NATS answers a read, and one may lag; and a reader that was
    cut off may come back. So each write names the revision before it, and a reader whose is another starts over.
    """

    def __init__(self, js: JetStreamContext, key: str, kind: type[T]) -> None:
        """Read first, then write."""
        self._js = js
        self._key = key
        self._kind = kind
        self._revision = 0

    async def read(self) -> T | None:
        """How far a reader is, as it wrote it down; None where nothing readable is kept.

        Raises:
            Trouble: the log does not answer.
        """
        bucket = names.KV_STATUS
        try:
            message = await self._js.get_msg(f"KV_{bucket}", subject=f"$KV.{bucket}.{self._key}", direct=True)
        except nats.js.errors.NotFoundError:
            self._revision = 0
            return None
        except (nats.errors.Error, OSError) as error:
            raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
        self._revision = message.seq or 0
        try:
            return msgspec.json.decode(message.data or b"", type=self._kind)
        except msgspec.DecodeError:
            return None  # deleted, or not ours

    async def write(self, position: T) -> None:
        """Keep how far the reader is; returns when it is stored.

        Raises:
            Trouble: it may be stored or not.
            Fenced: what is kept is not what was read or written last; nothing was stored.
        """
        subject, headers = f"$KV.{names.KV_STATUS}.{self._key}", {_EXPECTED: str(self._revision)}
        try:
            answer = await self._js.publish(
                subject, msgspec.json.encode(position), log.PUBLISH_SECONDS, headers=headers
            )
        except (nats.errors.Error, OSError) as error:
            if isinstance(error, nats.js.errors.APIError) and error.err_code in log.WRONG_LAST_SEQUENCE:
                raise log.Fenced(f"{self._key} was written meanwhile, or read from a replica that lags") from None
            raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
        self._revision = answer.seq


async def write_gaps(js: JetStreamContext, stream: str, gaps: Iterable[tuple[str, Event]]) -> None:
    """Write the gap events (with their subjects) that an epoch begins with; they are in the log when this returns, once however often it is done.

    Raises:
        Trouble: the log did not take them in time.
        Fenced: another reader writes to our subjects.
    """
    writer: log.FrameWriter[int] = log.FrameWriter(js, stream, lambda _: None)
    try:
        for subject, event in gaps:
            writer.add(subject, event, 0)
        async with asyncio.timeout(LOG_SECONDS):
            await writer.flush()
    except TimeoutError:
        raise Trouble(conditions.LOG_UNAVAILABLE, f"{writer.trouble or 'the log is slow'}; trying again") from None
    finally:
        await writer.close()
