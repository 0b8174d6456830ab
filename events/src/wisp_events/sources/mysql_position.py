"""How far a MySQL reader is. The server remembers nothing for it, so it stands in a key of the event log, fsynced as the events are.

Invariants:
- A position is written only when the log has all events before it, so what is not there is read again after any crash.
- `count` numbers the transactions since the epoch began, in the order of the binary log, and a position holds it beside the GTIDs that it
  counts: whoever reads again from any position gives every transaction the same number, which the events' places are made of.
- What can't be continued (the server purged what comes next, another server, a lost key) begins a new epoch. Where changes may be missing
  the first thing that the log says of it is a gap event for each table; until these are written, `gap` and `pending` stand in the position.
"""

import time
from collections.abc import Collection, Mapping

import msgspec

from wisp_events.sources import mysql_gtid
from wisp_events.sources.mysql_catalog import Server
from wisp_events.sources.row_events import Place
from wisp_events.sources.row_given import Given, anew


class Position(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, frozen=True):
    """All before it is in the log."""

    epoch: int
    """Unix seconds at which the count began."""
    count: int = 0
    gtids: str
    """In the server's own words."""
    server: str
    mariadb: bool = False
    gap: str = ""
    """Why changes from before the epoch may be missing; empty where none are."""
    pending: bool = False
    """The gap events are not written yet, or not known to be."""
    given: Given = Given()
    """Who has which tables' rows."""
    tables: dict[str, bool] = {}
    """Wanted tables that were ever followed -> whether they still are; where not, a gap event is due when they are again."""


def begin(known: Position | None, server: Server, held: Collection[Place]) -> Position:
    """From where to go on: the position that is kept, or the beginning of a new epoch, not yet written down.

    `held` are the places of the last events that the log holds.
    """
    if known is None:
        why = "the reader's position was lost" if held else ""
        return after_gap(None, server, held, why)
    if known.mariadb != server.mariadb:
        return after_gap(known, server, held, "the connection now names a server of another make")
    try:
        mysql_gtid.parse(known.gtids, mariadb=known.mariadb)
    except ValueError as error:
        return after_gap(known, server, held, str(error))
    if known.server != server.identity or any(place.epoch > known.epoch for place in held):
        # Nothing is missing, but another server may have the transactions in another order.
        return msgspec.structs.replace(known, epoch=_epoch(known, held), count=0, server=server.identity)
    return known


def after_gap(known: Position | None, server: Server, held: Collection[Place], why: str) -> Position:
    """A new epoch at the server's position now; changes before it may be missing where there is a reason."""
    epoch = _epoch(known, held)
    given = known.given if known else Given(round=epoch if why else 0)  # above those of a lost position
    return Position(
        epoch=epoch,
        gtids=server.position,
        server=server.identity,
        mariadb=server.mariadb,
        gap=why,
        pending=bool(why),
        given=anew(given) if why else given,
    )


def seen(tables: Mapping[str, bool], wanted: Collection[str], followed: Collection[str]) -> dict[str, bool]:
    """What `Position.tables` is after a look at the server, when the gap events that are due are written."""
    return {name: name in followed for name in wanted if name in tables or name in followed}


def returned(tables: Mapping[str, bool], now: Mapping[str, bool]) -> list[str]:
    """Tables that are followed again: dropped and made anew behind the reader's back, or a right that was taken away and given back."""
    return [name for name, here in now.items() if here and tables.get(name) is False]


def _epoch(known: Position | None, held: Collection[Place]) -> int:
    return max([int(time.time()), *(place.epoch + 1 for place in held), known.epoch + 1 if known else 0])
