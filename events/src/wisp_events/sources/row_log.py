"""What a reader of rows asks of the log, and tells it, before it begins to stream; the same for every database."""

import asyncio
from collections.abc import Collection
from typing import Final

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from wisp_api import cloudevent, conditions, names
from wisp_api.source import ReaderConfig

from wisp_events import log
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Mapper, Place

LOG_SECONDS: Final = 15.0


async def last_places(js: JetStreamContext, stream: str, config: ReaderConfig, tables: Collection[str]) -> list[Place]:
    """The place of the last event that the log holds of each lane of each of these tables (`schema.table`).

    Raises:
        Trouble: the log does not answer.
    """
    places: list[Place] = []
    for table in tables:
        schema, _, name = table.partition(".")
        for lane in range(names.LANES):
            subject = names.row_subject(config.namespace, config.connection, schema, name, lane, kind=config.kind)
            try:
                last = await js.get_msg(stream, subject=subject, direct=True)
            except nats.js.errors.NotFoundError:
                continue
            except (nats.errors.Error, OSError) as error:
                raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
            event = cloudevent.decode(cloudevent.decode_frame(last.data or b"")[-1])
            if place := Place.parse(event.sequence or ""):
                places.append(place)
    return places


async def write_gaps(js: JetStreamContext, stream: str, mapper: Mapper, reason: str, tables: Collection[str]) -> None:
    """Write the gap events that an epoch begins with; they are in the log when this returns, once however often it is done.

    Raises:
        Trouble: the log did not take them in time.
        Fenced: another reader writes to our subjects.
    """
    writer: log.FrameWriter[int] = log.FrameWriter(js, stream, lambda _: None)
    try:
        for table in tables:
            writer.add(*mapper.gap(table, 0, reason), 0)
        async with asyncio.timeout(LOG_SECONDS):
            await writer.flush()
    except TimeoutError:
        raise Trouble(conditions.LOG_UNAVAILABLE, f"{writer.trouble or 'the log is slow'}; trying again") from None
    finally:
        await writer.close()
