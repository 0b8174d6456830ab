"""How long a server still keeps the binary log that the event log has not, and the warning before it purges that.

A file is purged some time after it was last written to, so nothing goes before its own transactions are as old.

Invariant: what may be purged unread is warned of while it still is there, whatever keeps the reader from storing it: the warning stands
beside the trouble, not instead of it.
"""

import time
from collections.abc import Mapping
from typing import Final

import prometheus_client

SAFE_SHARE: Final = 0.25
"""Of the time that the server keeps its log: less than this left is a warning."""
SETTINGS: Final = ("binlog_expire_logs_seconds", "expire_logs_days", "binlog_expire_logs_auto_purge")
_DAY: Final = 86_400
KEPT: Final = prometheus_client.Gauge(
    "wisp_reader_binlog_kept_seconds", "How long the server keeps its binary log, in seconds; 0: for ever"
)
LEFT: Final = prometheus_client.Gauge(
    "wisp_reader_binlog_left_seconds",
    "Until the server may purge binary log that the event log has not, in seconds, where it does not keep it for ever",
)


def kept_seconds(settings: Mapping[str, str]) -> float:
    """How long the server keeps its binary log, by its settings; 0: for ever."""
    if settings.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        return 0
    return float(settings.get("binlog_expire_logs_seconds", 0)) or float(settings.get("expire_logs_days", 0)) * _DAY


def warning(kept: float, oldest: float) -> str:
    """What threatens and what to do, in a sentence; empty while nothing does. `oldest` is the commit of the first transaction that waits, or 0."""
    left = kept - (time.time() - oldest if oldest else 0)
    KEPT.set(kept)
    LEFT.set(left)
    if not kept or left > SAFE_SHARE * kept:
        return ""
    return (
        f"the server keeps its binary log for {kept:.0f} s and will soon purge what the event log has not, and then changes are lost: mend "
        "what holds the events up, or raise binlog_expire_logs_seconds"
    )
