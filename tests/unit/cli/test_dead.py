"""`wisp dead redrive`: so many events a second, in the letters' order, whatever the door takes at once."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from wisp import dead

if TYPE_CHECKING:
    from wisp.cluster import Cluster


class Door(dead.Letters):
    """Stands for the ingest: has letters 1 to `count`, takes its time, and notes when it sent what."""

    def __init__(self, count: int, seconds: float) -> None:
        """Each request takes so long."""
        super().__init__(cast("Cluster", None), "wisp-system")
        self.left = list(range(1, count + 1))
        self.seconds = seconds
        self.now = 0.0
        self.sent: list[tuple[float, int]] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        assert (method, path) == ("POST", "/redrive")
        wanted = [one for one in self.left if one in body.get("ids", self.left)]
        acted = wanted[: body["limit"]]
        self.left = [one for one in self.left if one not in acted]
        self.sent += [(self.now, one) for one in acted]
        self.now += self.seconds
        after = acted[-1] if acted else body.get("after", 0)
        return {"done": len(acted), "kept": [], "after": after, "until": 999, "more": len(wanted) > len(acted)}


@pytest.mark.parametrize("ids", [None, list(range(1, 231))])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("rate", [1, 7, 100, 5000])
def test_no_more_are_sent_than_the_rate_allows(
    monkeypatch: pytest.MonkeyPatch, rate: int, seconds: float, ids: list[int] | None
) -> None:
    """Over any time there are `rate` a second at most, and one request's beside; all come, in their order, once."""
    door = Door(230, seconds)
    monkeypatch.setattr(dead, "time", SimpleNamespace(monotonic=lambda: door.now, sleep=door.sleep))
    assert door.redrive("sub", ids, rate) == {"done": 230, "kept": []}
    assert [one for _, one in door.sent] == list(range(1, 231))
    at_once = min(rate, 100)
    for place, (since, _) in enumerate(door.sent):
        for later, (now, _) in enumerate(door.sent[place:], 1):
            assert later <= rate * (now - since) + at_once + 0.001


def test_a_rate_that_the_door_can_keep_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the requests themselves is no pause more."""
    door = Door(1000, 0.3)
    monkeypatch.setattr(dead, "time", SimpleNamespace(monotonic=lambda: door.now, sleep=door.sleep))
    door.redrive("sub", None, 100)
    assert door.sent[-1][0] == pytest.approx(9)
