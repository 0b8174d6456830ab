"""Global transaction ids: which transactions have been read, in the words of MySQL (sets by server) and MariaDB (the last of each domain)."""

import re
import struct
import uuid
from typing import NamedTuple

_INTERVAL = re.compile(r"(\d+)(?:-(\d+))?")
_TAG = re.compile(r"[a-z_]\w{0,31}", re.ASCII | re.IGNORECASE)
_MARIADB = re.compile(r"(\d+)-(\d+)-(\d+)")
_BEFORE_TAG = 26
"""Numbers in the event of a GTID with a tag, as far as the tag's length: three, then four fields with theirs, 16 bytes in one of them."""
_TAGGED = 1


class Gtid(NamedTuple):
    """One transaction."""

    origin: str
    """MySQL: the server's UUID, with `:` and the tag where it has one; MariaDB: the domain."""
    server: int
    """MariaDB: the server's number; MySQL: 0."""
    number: int


def mysql_gtid(body: bytes) -> Gtid:
    """From a GTID event's body."""
    return Gtid(str(uuid.UUID(bytes=body[1:17])), 0, struct.unpack_from("<q", body, 17)[0])


def tagged_gtid(body: bytes) -> Gtid:
    """From the body of the event for GTIDs with a tag (MySQL 8.3 on): numbered fields in their order, after version, size and a number.

    Raises:
        ValueError, IndexError: it can't be read.
    """
    numbers, at = [], 0
    for _ in range(_BEFORE_TAG):
        number, at = _number(body, at)
        numbers.append(number)
    _, _, _, flags, _, source, *identity, third, number, fourth, length = numbers
    if (flags, source, third, fourth) != (0, 1, 2, 3) or len(body) < at + length:
        raise ValueError("a GTID with a tag in an unknown form")
    tag = body[at : at + length].decode()
    return Gtid(
        f"{uuid.UUID(bytes=bytes(identity))}{f':{tag}' if tag else ''}", 0, number >> 1
    )  # the last bit is its sign


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and the offset after it: as many bytes follow the first as ones stand at its end."""
    more = (~body[at] & (body[at] + 1)).bit_length() - 1
    end = at + 1 + more
    return int.from_bytes(body[at:end], "little") >> min(more + 1, 8), end


def mariadb_gtid(body: bytes, server: int) -> Gtid:
    """From a GTID event's body and its header's server."""
    number, domain = struct.unpack_from("<QI", body)
    return Gtid(str(domain), server, number)


class MysqlSet:
    """A set of transactions of MySQL: intervals of numbers for each server and tag."""

    def __init__(self, text: str) -> None:
        """From the server's own words.

        Raises:
            ValueError: it is none.
        """
        self._intervals: dict[str, list[list[int]]] = {}
        for part in re.sub(r"\s", "", text).split(","):
            if not part:
                continue
            identity, *intervals = part.split(":")
            origin = server = str(uuid.UUID(identity))
            if not intervals:
                raise ValueError(f"{part!r} is no GTID set of MySQL")
            for interval in intervals:
                if found := _INTERVAL.fullmatch(interval):
                    both = [int(found[1]), int(found[2] or found[1])]
                    self._intervals.setdefault(origin, []).append(both)
                elif _TAG.fullmatch(interval):
                    origin = f"{server}:{interval.lower()}"
                else:
                    raise ValueError(f"{part!r} is no GTID set of MySQL")

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
        """As COM_BINLOG_DUMP_GTID takes it; with tags only where there is one, which older servers don't know."""
        tagged = any(":" in origin for origin in self._intervals)
        count = len(self._intervals)
        found = struct.pack("<Q", _TAGGED << 56 | count << 8 | _TAGGED if tagged else count)
        for origin, intervals in sorted(self._intervals.items()):
            server, _, tag = origin.partition(":")
            found += uuid.UUID(server).bytes
            if tagged:
                found += bytes([len(tag) << 1]) + tag.encode()
            found += struct.pack("<Q", len(intervals))
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
