"""What is said of a PostgreSQL server that can't be used."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest
from fixtures.postgres_peer import Answer, message, peer, table
from wisp_api import conditions
from wisp_api.source import PostgresConfig
from wisp_events.sources import (
    postgres_catalog,
    postgres_connection,
    postgres_cursor,
    postgres_slot,
    postgres_snapshot,
)
from wisp_events.sources.postgres_session import connect, open_session
from wisp_events.sources.reader import Trouble


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:s3cr@tword@127.0.0.1:1/shop",  # libpq: host tword@127.0.0.1
        "postgresql://shop:s3cr@tword@127.0.0.1:1,127.0.0.1:1/shop",
        "postgresql://shop:tword/s3cr@127.0.0.1:1/shop",  # host shop, port tword
        "postgresql://shop:tword/s3cr@127.0.0.1@127.0.0.1:1/shop",
        "postgresql://localhost:1/tword@127.0.0.1:1/shop",  # host localhost, the password's digits its port
        "host=127.0.0.1 port=tword",
        "host=127.0.0.1 port=1 password=s3cr tword",
        "postgresql://shop:tword%zz@127.0.0.1:1/shop",
    ],
)
def test_a_password_that_is_not_escaped_is_told_nowhere(dsn: str) -> None:
    """Of which libpq would take a part for the host or the port, and say that there is no such host."""
    with pytest.raises(Trouble) as told:
        open_session(dsn)
    assert told.value.reason == conditions.INVALID_CONNECTION
    assert "tword" not in str(told.value)
    assert "%40" in told.value.message


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:s3cr%40tword@127.0.0.1:1/shop",
        "postgresql://shop:s3cr:tword@127.0.0.1:1,127.0.0.1:2/shop?connect_timeout=1",
        "host=127.0.0.1 port=1 password='s3cr@tword'",
        "postgresql://shop:s3cr%2Ftword@127.0.0.1:1/sh%40op",
        "host=127.0.0.1,127.0.0.1 port=1,1 password=s3cr/tword",
    ],
)
def test_others_are_tried(dsn: str) -> None:
    """An escaped password, several hosts, and the form with keywords."""
    with pytest.raises(Trouble, match="onnection refused") as told:
        open_session(dsn)
    assert told.value.reason == conditions.SERVER_UNREACHABLE
    assert "tword" not in str(told.value)


def silent(_: socket.socket) -> None:
    """Answer nothing."""


def trickling(client: socket.socket) -> None:
    """Answer without end, a byte at a time."""
    while True:
        for byte in message(b"N", b"SNOTICE\0C00000\0Mwait\0\0"):
            client.sendall(bytes([byte]))
            time.sleep(0.01)


def cut_off(client: socket.socket) -> None:
    """Leave in the middle of an answer."""
    client.sendall(table(b"x")[:-8])
    client.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [silent, trickling, cut_off])
@pytest.mark.parametrize(
    "ask",
    [
        lambda dsn: postgres_catalog.prepare(dsn, PostgresConfig(slot="s", stream="s"), []),
        lambda dsn: postgres_catalog.types(dsn, 1),
        lambda dsn: postgres_catalog.drop(dsn, "s"),
        lambda dsn: postgres_slot.make_slot(dsn, "s", postgres_slot.Progress(1, "")),
        lambda dsn: postgres_snapshot.take(dsn, "s", []),
        lambda dsn: asyncio.run(postgres_connection.open_cursor(dsn, "s")),
    ],
    ids=["prepare", "types", "drop", "make_slot", "take", "open_cursor"],
)
def test_a_server_that_never_ends_its_answer_is_left(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, ask: Callable[[str], object]
) -> None:
    """Whoever asks is told in time: a reader that waits for ever neither reports nor takes up another Secret."""
    monkeypatch.setattr(postgres_cursor, "ANSWER_SECONDS", 0.3)
    with peer(answer) as dsn, pytest.raises(Trouble, match="server") as told:
        ask(dsn)
    assert told.value.reason == conditions.SERVER_UNREACHABLE
    assert answer is cut_off or "did not answer within 0.3 s" in told.value.message
    assert "hunter2" not in str(told.value)


def test_an_answer_in_time_ends_the_watch() -> None:
    """No thread is left behind, and the session goes on."""
    with peer(lambda client: client.sendall(table(b"x"))) as dsn, connect(dsn) as session, session.cursor() as cursor:
        session.autocommit = True
        talking = threading.active_count()
        for _ in range(3):
            cursor.execute("SELECT 'x'")
            assert cursor.fetchall() == [("x",)]
        assert threading.active_count() == talking
