"""What is remembered of the rows that Subscriptions were given of tables (docs/decisions/0049), as pure functions.

Invariant: no two givings of a table's rows to a Subscription have one number, unless the second goes on where the first broke off and no change
was missed in between.
"""

import itertools
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeVar

import msgspec
from wisp_api.source import TableConfig

from wisp_events.sources.row_events import Table

Kept = TypeVar("Kept", bound=Collection[str])


class Given(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """What is remembered."""

    snapshots: dict[str, list[str]] = {}
    """Table -> uids of the Subscriptions that have its rows."""
    begun: dict[str, dict[str, int]] = {}
    """Table -> uids of the Subscriptions that its rows are being written for -> the number of that, which is none of an earlier time: who passes
    over ids that are known would miss what changed meanwhile."""
    round: int = 0
    """The highest number that was given."""


class Wanted(NamedTuple):
    """A table's rows, and who is to get them."""

    table: Table
    uids: list[str]


def missing(tables: Collection[TableConfig], given: Given, followed: Mapping[str, Table]) -> dict[str, Wanted]:
    """Of the tables that are followed, those with rows that somebody is to get."""
    found = {
        table.name: Wanted(
            followed[table.name], [uid for uid in table.snapshots if uid not in given.snapshots.get(table.name, [])]
        )
        for table in tables
        if table.name in followed
    }
    return {name: wanted for name, wanted in found.items() if wanted.uids}


def begun(given: Given, wanted: Mapping[str, Wanted]) -> Given:
    """What is remembered before these rows are written: who began earlier goes on under the same number."""
    new = {
        name: [uid for uid in one.uids if uid not in given.begun.get(name, ())] for name, one in sorted(wanted.items())
    }
    numbers = itertools.count(given.round + 1)
    found = {name: given.begun.get(name, {}) | dict(zip(uids, numbers)) for name, uids in new.items() if uids}  # noqa: B905 - a count has no end
    return Given(given.snapshots, given.begun | found, given.round + sum(map(len, new.values())))


def remembered(given: Given, written: Mapping[str, Wanted]) -> Given:
    """Who has which rows when these tables' are written."""
    found = {name: sorted({*given.snapshots.get(name, ()), *wanted.uids}) for name, wanted in written.items()}
    return Given(
        given.snapshots | found, _still_begun(given, lambda name, uid: uid not in found.get(name, ())), given.round
    )


def forgotten(tables: Collection[TableConfig], given: Given) -> Given:
    """Who has which rows, without those who don't ask any more: they miss changes from now on."""
    asked = {table.name: table.snapshots for table in tables}
    kept = {name: [uid for uid in uids if uid in asked.get(name, ())] for name, uids in given.snapshots.items()}
    return Given(_filled(kept), _still_begun(given, lambda name, uid: uid in asked.get(name, ())), given.round)


def anew(given: Given) -> Given:
    """Nobody has any rows, nor a part of them, because changes may be missing after them."""
    return Given(round=given.round)


def _still_begun(given: Given, stays: Callable[[str, str], bool]) -> dict[str, dict[str, int]]:
    """What was begun, of the tables and uids that stay."""
    return _filled(
        {
            name: {uid: number for uid, number in numbers.items() if stays(name, uid)}
            for name, numbers in given.begun.items()
        }
    )


def _filled(tables: Mapping[str, Kept]) -> dict[str, Kept]:
    return {name: uids for name, uids in tables.items() if uids}
