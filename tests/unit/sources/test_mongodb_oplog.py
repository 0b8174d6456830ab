"""How far an oplog reaches back, and when that is a warning."""

import prometheus_client
import pytest
from wisp_events.sources.mongodb_oplog import Oplog, time_of, warning

FULL = Oplog(1000, 2000, full=True)


def token(at: int) -> str:
    """One of that time."""
    return f"82{at:08X}000000012B0429296E1404"


def metric(name: str) -> float:
    """What a gauge tells."""
    found = prometheus_client.REGISTRY.get_sample_value(f"wisp_reader_oplog_{name}_seconds")
    assert found is not None
    return found


def test_less_than_a_quarter_left_is_a_warning() -> None:
    """By the collection that is furthest behind; what was dropped already is 0."""
    assert "replSetResizeOplog" in warning(FULL, [token(1900), token(1240)])
    assert (metric("kept"), metric("left")) == (1000, 240)
    assert not warning(FULL, [token(1900), token(1250)])
    assert warning(FULL, [token(500)])
    assert metric("left") == 0


@pytest.mark.parametrize(
    ("oplog", "tokens"),
    [(FULL._replace(full=False), [token(1001)]), (None, [token(1001)]), (FULL, []), (FULL, ["what"]), (FULL, ["82zz"])],
)
def test_what_nobody_can_know_or_is_not_dropped_is_none(oplog: Oplog | None, tokens: list[str]) -> None:
    """An oplog that has room, one that may not be read, and tokens of another form: no alert fires on the metrics either."""
    assert not warning(oplog, tokens)
    assert not metric("left") < 0.25 * metric("kept")


def test_a_token_tells_its_time() -> None:
    """Of the form that servers give now."""
    assert time_of("8262E2EA1F000000022B022C0100296E5A1004") == 0x62E2EA1F
    assert [time_of(other) for other in ("", "82", "82xxxxxxxx", "8362E2EA1F00000002")] == [0] * 4
