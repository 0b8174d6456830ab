"""Global transaction ids: which transactions have been read, in the words of MySQL (sets by server) and MariaDB (the last of each domain)."""

import re
import struct
import uuid
from typing import NamedTuple

_INTERVAL = re.compile(r"(\d+)(?:-(\d+))?")
_MARIADB = re.compile(r"(\d+)-(\d+)-(\d+)")


class Gtid(NamedTuple):
    """One transaction."""

    origin: str
    """MySQL: the server's UUID; MariaDB: the domain."""
    server: int
    """MariaDB: the server's number; MySQL: 0."""
    number: int


def mysql_gtid(body: bytes) -> Gtid:
    """From a GTID event's body."""
    return Gtid(str(uuid.UUID(bytes=body[1:17])), 0, struct.unpack_from("<q", body, 17)[0])


def mariadb_gtid(body: bytes, server: int) -> Gtid:
    """From a GTID event's body and its header's server."""
    number, domain = struct.unpack_from("<QI", body)
    return Gtid(str(domain), server, number)


class MysqlSet:
    """A set of transactions of MySQL: intervals of numbers for each server."""

    def __init__(self, text: str) -> None:
        """From the server's own words.

        Raises:
            ValueError: it is none.
        """
        self._intervals: dict[str, list[list[int]]] = {}
        for part in re.sub(r"\s", "", text).split(","):
            if not part:
                continue
            origin, *intervals = part.split(":")
            if not intervals:
                raise ValueError(f"{part!r} is no GTID set of MySQL")
            for interval in intervals:
                found = _INTERVAL.fullmatch(interval)
                if found is None:
                    raise ValueError(f"GTIDs with a tag can't be followed: {part!r}")
                self._intervals.setdefault(str(uuid.UUID(origin)), []).append(
                    [int(found[1]), int(found[2] or found[1])]
                )

    def add(self, gtid: Gtid) -> None:
        """Count a transaction in."""
        intervals = self._intervals.setdefault(gtid.origin, [])
        if intervals and intervals[-1][1] + 1 == gtid.number:
            intervals[-1][1] = gtid.number
            return
        intervals.append([gtid.number, gtid.number])
        intervals.sort()
        intervals[-8:] = _merged(intervals[-8:])

    def covers(self, other: "GtidSet") -> bool:
        """Whether it has all transactions of another."""
        mine = {origin: _merged(intervals) for origin, intervals in self._intervals.items()}
        return isinstance(other, MysqlSet) and all(
            any(first <= wanted[0] and wanted[1] <= last for first, last in mine.get(origin, []))
            for origin, intervals in other._intervals.items()  # noqa: SLF001 - of the same class
            for wanted in _merged(intervals)
        )

    def __str__(self) -> str:
        """In the server's words."""
        parts = []
        for origin, intervals in sorted(self._intervals.items()):
            spans = [f"{first}-{last}" if last > first else f"{first}" for first, last in intervals]
            parts.append(":".join([origin, *spans]))
        return ",".join(parts)

    def encoded(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID takes it."""
        found = struct.pack("<Q", len(self._intervals))
        for origin, intervals in sorted(self._intervals.items()):
            found += uuid.UUID(origin).bytes + struct.pack("<Q", len(intervals))
            found += b"".join(struct.pack("<QQ", first, last + 1) for first, last in intervals)
        return found


class MariadbSet:
    """A position of MariaDB: the last transaction of each domain."""

    def __init__(self, text: str) -> None:
        """From the server's own words.

        Raises:
            ValueError: it is none.
        """
        self._last: dict[str, Gtid] = {}
        for part in re.sub(r"\s", "", text).split(","):
            if not part:
                continue
            found = _MARIADB.fullmatch(part)
            if found is None:
                raise ValueError(f"{part!r} is no GTID of MariaDB")
            self.add(Gtid(found[1], int(found[2]), int(found[3])))

    def add(self, gtid: Gtid) -> None:
        """Count a transaction in."""
        self._last[gtid.origin] = gtid

    def covers(self, other: "GtidSet") -> bool:
        """Whether it is at another's place or behind it; numbers grow within a domain."""
        return isinstance(other, MariadbSet) and all(
            (mine := self._last.get(origin)) is not None and mine.number >= one.number
            for origin, one in other._last.items()  # noqa: SLF001 - of the same class
        )

    def __str__(self) -> str:
        """In the server's words."""
        return ",".join(f"{one.origin}-{one.server}-{one.number}" for _, one in sorted(self._last.items()))


def _merged(intervals: list[list[int]]) -> list[list[int]]:
    """Sorted intervals with neighbours made one."""
    merged: list[list[int]] = []
    for first, last in intervals:
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return merged


GtidSet = MysqlSet | MariadbSet


def parse(text: str, *, mariadb: bool) -> GtidSet:
    """A set in the words of one of the two.

    Raises:
        ValueError: it is none.
    """
    return MariadbSet(text) if mariadb else MysqlSet(text)
