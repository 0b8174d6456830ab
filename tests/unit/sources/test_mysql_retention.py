"""How long a server keeps what was not read, and when that is a warning."""

import time

from wisp_events.sources.mysql_retention import kept_seconds, warning


def test_the_time_is_what_the_settings_say() -> None:
    """Seconds where there are some, else days; for ever where neither is set, or nothing purges."""
    assert kept_seconds({"binlog_expire_logs_seconds": "2592000", "expire_logs_days": "0"}) == 2592000
    assert kept_seconds({"binlog_expire_logs_seconds": "0", "expire_logs_days": "2.5"}) == 216000
    assert kept_seconds({"binlog_expire_logs_seconds": "9", "binlog_expire_logs_auto_purge": "OFF"}) == 0
    assert kept_seconds({}) == 0


def test_less_than_a_quarter_left_is_a_warning() -> None:
    """Nothing that waits, and a server that purges nothing, are none."""
    now = time.time()
    assert "binlog_expire_logs_seconds" in warning(1000, now - 800)
    assert not warning(1000, now - 700)
    assert not warning(1000, 0)
    assert not warning(0, now - 10**9)
