"""The event log's writers against a real nats-server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import nats
import pytest
from fixtures.nats import NatsServer, nats_server
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from wisp_api import cloudevent, names
from wisp_api.cloudevent import FRAME_BYTES, Event
from wisp_api.route import DeadLetter
from wisp_events import log
from wisp_events.gather import Entry, Gatherer

STREAM = names.stream("shop", "postgres", "db")
LETTERS = names.dead_letter_stream("shop")
SUBJECT = names.row_subject("shop", "db", "public", "orders", 0)


@contextlib.asynccontextmanager
async def log_at(server: NatsServer, max_bytes: int = 64 << 20) -> AsyncIterator[JetStreamContext]:
    """A connection, with the stream made as the operator makes it."""
    client = await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    js = client.jetstream(timeout=60)
    await js.add_stream(
        StreamConfig(
            name=STREAM,
            subjects=[names.stream_subjects("shop", "postgres", "db")],
            discard=DiscardPolicy.NEW,
            max_bytes=max_bytes,
            allow_direct=True,
        )
    )
    try:
        yield js
    finally:
        await client.close()


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0.02)


def event(number: int, size: int = 10) -> Event:
    """The event with this place in its source."""
    return Event(
        id=str(number),
        source="s",
        type="t",
        sequence=f"{number:08}",
        data=msgspec.Raw(b'"' + b"x" * size + b'"'),
    )


async def stored(js: JetStreamContext, subject: str, stream: str = STREAM) -> list[int]:
    """Ids of a subject's events, in the log's order."""
    info = await js.stream_info(stream)
    ids: list[int] = []
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await js.get_msg(stream, sequence)
        if message.subject == subject:
            ids += [int(cloudevent.decode(raw).id) for raw in cloudevent.decode_frame(message.data or b"")]
    return ids


async def test_frames_gather_and_report_positions_in_order(tmp_path: Path) -> None:
    """A burst becomes few frames, keeps its order per subject, and positions are reported only when all before is stored."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            reported: list[int] = []
            writer = log.FrameWriter(js, STREAM, reported.append)
            other = names.row_subject("shop", "db", "public", "orders", 1)
            for number in range(1000):
                writer.add(SUBJECT if number % 2 else other, event(number), number)
                await writer.room()
            writer.mark(1000)
            await writer.flush()
            assert await stored(js, SUBJECT) == list(range(1, 1000, 2))
            assert await stored(js, other) == list(range(0, 1000, 2))
            assert reported == sorted(reported)
            assert reported[-1] == 1000
            assert (await js.stream_info(STREAM)).state.messages < 20


async def test_new_writer_skips_what_the_log_holds(tmp_path: Path) -> None:
    """A source read again from an earlier position adds nothing twice, and its positions are reported all the same."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            for first, last in ((0, 300), (100, 500)):
                reported: list[int] = []
                writer = log.FrameWriter(js, STREAM, reported.append)
                for number in range(first, last):
                    writer.add(SUBJECT, event(number), number)
                await writer.flush()
                assert reported[-1] == last - 1
            assert await stored(js, SUBJECT) == list(range(500))


async def test_second_writer_fences_the_first(tmp_path: Path) -> None:
    """Of two writers the one that the log has moved past is refused instead of mixing in."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            first: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)
            first.add(SUBJECT, event(1), 1)
            await first.flush()
            second: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)
            second.add(SUBJECT, event(2), 2)
            await second.flush()
            first.add(SUBJECT, event(2), 2)
            with pytest.raises(log.Fenced):
                await first.flush()
            assert await stored(js, SUBJECT) == [1, 2]


async def test_purged_subject_does_not_fence(tmp_path: Path) -> None:
    """When the janitor has purged a subject's delivered end, its writer goes on."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            writer: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)
            writer.add(SUBJECT, event(1), 1)
            await writer.flush()
            await js.purge_stream(STREAM)
            writer.add(SUBJECT, event(2), 2)
            await writer.flush()
            assert await stored(js, SUBJECT) == [2]


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_outage_loses_and_repeats_nothing(tmp_path: Path, how: str) -> None:
    """Killed or stopped in the middle of traffic, the server holds every event once and in order in the end."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            writer: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)

            async def produce() -> None:
                for number in range(4000):
                    writer.add(SUBJECT, event(number, 500), number)
                    if number % 20 == 0:
                        await asyncio.sleep(0.001)
                await writer.flush()

            producer = asyncio.create_task(produce())
            while (await js.stream_info(STREAM)).state.last_seq < 5:
                pass
            if how == "kill":
                server.kill()
                server.start()
            else:
                server.pause()
                await eventually(lambda: bool(writer.trouble))  # an attempt has run into its deadline
                server.resume()
            async with asyncio.timeout(60):
                await producer
            assert await stored(js, SUBJECT) == list(range(4000))


async def test_an_event_whose_answer_was_lost_ends_the_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored by an attempt that nobody waits for any more is found there by the next one, and then nothing is wrong."""
    monkeypatch.setattr(log, "PUBLISH_SECONDS", 0.5)
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            writer: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)
            writer.add(SUBJECT, event(1), 1)
            await writer.flush()
            server.pause()
            writer.add(SUBJECT, event(2), 2)
            await eventually(lambda: bool(writer.trouble))
            server.resume()
            async with asyncio.timeout(60):
                await writer.flush()
            assert writer.trouble == ""
            assert await stored(js, SUBJECT) == [1, 2]


async def test_an_event_that_the_log_held_all_along_ends_the_trouble(tmp_path: Path) -> None:
    """A new writer that can't read where the log ends says so, and no longer than that, though it has nothing to write."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            await log.append_once(js, STREAM, SUBJECT, [event(1)])
            config = (await js.stream_info(STREAM)).config
            await js.update_stream(config, allow_direct=False)
            writer: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None)
            writer.add(SUBJECT, event(1), 1)
            await eventually(lambda: bool(writer.trouble))
            await js.update_stream(config, allow_direct=True)
            async with asyncio.timeout(60):
                await writer.flush()
            assert writer.trouble == ""
            assert await stored(js, SUBJECT) == [1]


async def test_full_stream_holds_back_and_heals(tmp_path: Path) -> None:
    """At the quota the writer says why, bounds what it holds, keeps the order, and goes on when there is room."""
    with nats_server(tmp_path) as server:
        async with log_at(server, max_bytes=1_000_000) as js:
            writer: log.FrameWriter[int] = log.FrameWriter(js, STREAM, lambda _: None, waiting_bytes=600_000)
            number = 0
            with contextlib.suppress(TimeoutError):
                while "full" not in writer.trouble:
                    writer.add(SUBJECT, event(number, 5000), number)
                    number += 1
                    async with asyncio.timeout(0.2):
                        await writer.room()
            with pytest.raises(log.LogFull):
                await log.append_once(js, STREAM, SUBJECT, [event(1, 1_000_000)])
            await js.purge_stream(STREAM)
            async with asyncio.timeout(60):
                await writer.flush()
            assert writer.trouble == ""
            assert (await stored(js, SUBJECT))[-1] == number - 1


async def test_append_once_and_dead_letters_are_idempotent(tmp_path: Path) -> None:
    """The same events or dead letter sent twice are stored once; what is too large is refused at the edge."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            for _ in range(2):
                await log.append_once(js, STREAM, SUBJECT, [event(number) for number in range(600)])
            assert await stored(js, SUBJECT) == list(range(600))
            with pytest.raises(log.EventTooLarge, match="the log takes"):
                await log.append_once(js, STREAM, SUBJECT, [event(1, cloudevent.EVENT_BYTES)])
            await js.add_stream(name=LETTERS, subjects=[names.dead_letter_subjects("shop")])
            letter = DeadLetter(
                reason="Malformed",
                message="m",
                time="2026-01-01T00:00:00Z",
                namespace="shop",
                source="s3/minio",
                input="x",
            )
            for _ in range(2):
                await log.dead_letter(js, letter)
            state = (await js.stream_info(LETTERS, subjects_filter=">")).state
            assert state.subjects == {"wisp.dead.shop.s3.minio": 1}


async def test_log_that_is_away_is_reported(tmp_path: Path) -> None:
    """Without the stream an append fails with a sentence that says so."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            await js.delete_stream(STREAM)
            with pytest.raises(log.LogUnavailable, match="does not exist or has no leader"):
                await log.append_once(js, STREAM, SUBJECT, [event(1)])


async def test_no_event_overtakes_one_of_its_key_that_was_refused(tmp_path: Path) -> None:
    """What waits behind it in another frame is refused, too, and comes after it when all of it comes again; other keys go on."""
    with nats_server(tmp_path) as server:
        async with log_at(server) as js:
            await js.add_stream(name="bus", subjects=["bus"], max_msg_size=10_000)
            gatherer = Gatherer(js, patience=0)
            given = [(event(1, FRAME_BYTES), "k"), (event(2), "k"), (event(3), "other")]
            entries = [Entry("bus", 0, key, one.id, log.encode(one)) for one, key in given]
            with pytest.raises(log.LogUnavailable):
                await gatherer.append("bus", entries)
            assert await stored(js, "bus", "bus") == [3]
            await js.update_stream(name="bus", subjects=["bus"])
            await gatherer.append("bus", entries)
            assert await stored(js, "bus", "bus") == [3, 1, 2]
