"""How far a stream was read, as a reader may say it."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import nats.js.errors
from wisp_events.router.intake import Intake

if TYPE_CHECKING:
    from nats.aio.client import Client

AT_HOME, ELSEWHERE = "nats-0", "nats-1"


class Cluster:
    """A stream whose leader has records up to 7; the consumer's server, which may be another, knows of them up to 5."""

    def __init__(self, where: str) -> None:
        """`where` the consumer is."""
        self.where = where
        self.newest = 7
        self.asked: list[str] = []

    def jetstream(self) -> "Cluster":
        """Itself."""
        return self

    async def stream_info(self, _: str) -> Any:
        """What the leader says."""
        return SimpleNamespace(state=SimpleNamespace(last_seq=7), cluster=SimpleNamespace(leader=AT_HOME))

    async def consumer_info(self, _: str, __: str) -> Any:
        """What the consumer's server says: all that it knows of was delivered."""
        cluster = SimpleNamespace(leader=self.where)
        return SimpleNamespace(num_pending=0, delivered=SimpleNamespace(consumer_seq=5), cluster=cluster)

    async def get_msg(self, _: str, seq: int, subject: str, **how: bool) -> Any:
        """What the leader has from a sequence on."""
        assert how == {"next": True}  # by the leader, not by any replica
        self.asked.append(subject)
        if subject == "a" or seq > self.newest:
            raise nats.js.errors.NotFoundError
        return SimpleNamespace(seq=self.newest)


def reader(cluster: Cluster) -> Intake:
    """One that was handed all that its consumer's server knows of."""
    intake = Intake(cast("Client", cluster), "S", ["a", "b"], 5, lambda *_: None, lambda: 1)
    intake._consumer, intake._delivered = "c", 5  # noqa: SLF001 - as after five deliveries
    return intake


async def test_a_server_that_lags_does_not_tell_the_end() -> None:
    """Where the consumer's server has not what the leader has acknowledged, nothing is taken for passed: it is still to come."""
    cluster = Cluster(ELSEWHERE)
    intake = reader(cluster)
    assert await intake.caught_up() is None
    assert cluster.asked == ["a", "b"]
    cluster.newest = 5  # the rest is for others
    assert await intake.caught_up() == 7


async def test_the_leaders_own_consumer_is_believed() -> None:
    """It counts in the same store, so nobody else is asked."""
    cluster = Cluster(AT_HOME)
    assert await reader(cluster).caught_up() == 7
    assert not cluster.asked
