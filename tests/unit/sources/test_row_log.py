"""A reader's position in the log, of which a read may be old and a writer may be another."""

from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from nats.js.api import PubAck, RawStreamMsg
from nats.js.errors import APIError, NotFoundError
from wisp_events.log import WRONG_LAST_SEQUENCE, Fenced
from wisp_events.sources.row_log import Kept

if TYPE_CHECKING:
    from nats.js import JetStreamContext

KEY = "position.shop.mysql.db"


class Position(msgspec.Struct):
    """Any."""

    count: int


class Bucket:
    """A key of NATS: its leader takes writes, any replica answers reads."""

    def __init__(self) -> None:
        """Nothing was written."""
        self.writes: list[bytes] = []
        self.lag = 0
        """So many writes the replica that answers has not seen."""

    async def get_msg(self, *_: object, **__: object) -> RawStreamMsg:
        """The last write that the replica has."""
        if not (seen := len(self.writes) - self.lag):
            raise NotFoundError
        return RawStreamMsg(seq=seen, data=self.writes[seen - 1])

    async def publish(self, subject: str, data: bytes, _: float, headers: dict[str, str] | None = None) -> PubAck:
        """Store, if the last write is the one expected."""
        assert subject.endswith(KEY)
        if headers and headers["Nats-Expected-Last-Subject-Sequence"] != str(len(self.writes)):
            raise APIError(code=400, err_code=WRONG_LAST_SEQUENCE[0])
        self.writes.append(data)
        return PubAck(stream="KV", seq=len(self.writes))


def reader(bucket: Bucket) -> Kept[Position]:
    """A reader's hold of the key."""
    return Kept(cast("JetStreamContext", bucket), KEY, Position)


async def test_a_position_is_read_and_written_on() -> None:
    """From nothing, write after write, and by the next reader."""
    bucket = Bucket()
    first = reader(bucket)
    assert await first.read() is None
    await first.write(Position(1))
    await first.write(Position(2))
    second = reader(bucket)
    assert await second.read() == Position(2)
    await second.write(Position(3))
    assert await second.read() == Position(3)


@pytest.mark.parametrize("lag", [1, 2])
async def test_what_follows_from_an_old_position_is_not_stored(lag: int) -> None:
    """Nor from one that a replica has not yet: the reader would begin at the present without a gap event."""
    bucket = Bucket()
    first = reader(bucket)
    await first.write(Position(1))
    await first.write(Position(2))
    second, bucket.lag = reader(bucket), lag
    await second.read()
    with pytest.raises(Fenced):
        await second.write(Position(9))
    bucket.lag = 0
    assert await second.read() == Position(2)


async def test_a_reader_that_was_cut_off_overwrites_nothing() -> None:
    """Its successor's position stays, with its epoch."""
    bucket = Bucket()
    old, new = reader(bucket), reader(bucket)
    await old.write(Position(1))
    await new.read()
    await new.write(Position(2))
    with pytest.raises(Fenced):
        await old.write(Position(3))
    assert await new.read() == Position(2)
