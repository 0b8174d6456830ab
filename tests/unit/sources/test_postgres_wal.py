"""When a slot's retained log is worth a warning."""

import pytest
from wisp_events.sources.postgres_wal import UNLIMITED_BYTES, Retention

MIB = 1024**2


@pytest.mark.parametrize(
    ("case", "kept", "warns"),
    [
        ("nothing is kept", Retention("s", "reserved", 0, 100 * MIB), ""),
        ("half of the limit", Retention("s", "extended", 50 * MIB, 50 * MIB), ""),
        ("a quarter is left", Retention("s", "extended", 75 * MIB, 25 * MIB), "max_slot_wal_keep_size"),
        ("next checkpoint", Retention("s", "unreserved", 100 * MIB, 0), "max_slot_wal_keep_size"),
        ("no limit, little", Retention("s", "extended", UNLIMITED_BYTES, None), ""),
        ("no limit, much", Retention("s", "extended", UNLIMITED_BYTES + 1, None), "disk is full"),
        ("an old server", Retention("s", "unknown", UNLIMITED_BYTES + 1, None), "set max_slot_wal_keep_size"),
    ],
)
def test_warning(case: str, kept: Retention, warns: str) -> None:
    """It warns while nothing is lost yet, and says what to do."""
    assert (warns in kept.warning()) if warns else kept.warning() == "", case
