"""What a reader of rows asks of the log, and tells it, before it begins to stream; the same for every database."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final, TypeVar

import msgspec
import nats.errors
import nats.js.errors
import prometheus_client
from nats.js import JetStreamContext
from wisp_api import cloudevent, conditions, names
from wisp_api.cloudevent import Event
from wisp_api.source import ReaderConfig

from wisp_events import log
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Place

LOG_SECONDS: Final = 15.0
BEHIND = prometheus_client.Gauge(
    "wisp_reader_behind_seconds", "From the commit of the last transaction that the log has to its acknowledgement"
)
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


async def read_position(js: JetStreamContext, key: str, kind: type[T]) -> T | None:
    """How far a reader is, as it wrote it down; None where nothing readable is kept.

    Raises:
        Trouble: the log does not answer.
    """
    bucket = names.KV_STATUS
    try:
        message = await js.get_msg(f"KV_{bucket}", subject=f"$KV.{bucket}.{key}", direct=True)
    except nats.js.errors.NotFoundError:
        return None
    except (nats.errors.Error, OSError) as error:
        raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
    try:
        return msgspec.json.decode(message.data or b"", type=kind)
    except msgspec.DecodeError:
        return None  # deleted, or not ours


async def write_position(js: JetStreamContext, key: str, position: msgspec.Struct) -> None:
    """Keep how far a reader is; returns when it is stored.

    Raises:
        Trouble: it may be stored or not.
    """
    try:
        await js.publish(f"$KV.{names.KV_STATUS}.{key}", msgspec.json.encode(position), log.PUBLISH_SECONDS)
    except (nats.errors.Error, OSError) as error:
        raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None


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
