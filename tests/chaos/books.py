"""The books of `make chaos`: what was written against what the function took and what stands in the dead letters."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg2
from chaos.poison import TAKE, Place, buried, fate, judge, overtaken, row_event, written
from fixtures.collector import Collector
from fixtures.process import wait_until
from wisp.dead import Letters

SETTLE_SECONDS: Final = 900.0


@dataclass
class Sent:
    """What counts as sent: what MinIO answered, and what stands in the database at the end."""

    objects: set[str]
    rows: dict[int, int]
    """Each row's number: how often it was changed."""
    changes: int
    """How many changes there were to be."""

    def numbers(self, row: int) -> dict[int, str]:
        """The fate of each change of a row."""
        total, rows = self.changes, len(self.rows)
        return {number: fate(row_event(row, number, rows), total) for number in range(1, self.rows[row] + 1)}

    def taken(self) -> dict[str, set[int]]:
        """For each row's partition key, the changes that the function takes."""
        return {key(row): {number for number, end in self.numbers(row).items() if end == TAKE} for row in self.rows}

    def poison(self) -> dict[Place, str]:
        """What it never takes."""
        changes = {(key(row), number): end for row in self.rows for number, end in self.numbers(row).items()}
        objects = {(name, 0): name.split(".")[-2] for name in self.objects}
        return {place: end for place, end in (changes | objects).items() if end != TAKE}

    def good_objects(self) -> set[str]:
        """The keys of those that it takes."""
        return {name for name in self.objects if name.split(".")[-2] == TAKE}


def key(row: int) -> str:
    """A row's partition key."""
    return f"public.counters:[{row}]"


def committed(dsn: str) -> dict[int, int]:
    """Each row's number, as the database has it."""
    with contextlib.closing(psycopg2.connect(dsn)) as session, session.cursor() as cursor:
        cursor.execute("SELECT id, n FROM counters")
        return dict(cursor.fetchall())


def seen(reports: Collector, kind: str) -> list[list[Any]]:
    """What the function took of a kind: id, subject, partition key, number and Unix time, in the order of arrival."""
    ahead = time.time() - time.monotonic()
    return [
        [*row[1:], report["at"] + ahead]
        for report in reports.seen()
        for row in report["events"]
        if row[0].startswith(kind)
    ]


def first_seen(rows: list[list[Any]]) -> dict[str, dict[int, float]]:
    """For each row of the table, when each of its numbers was seen first, in the order in which they were."""
    order: dict[str, dict[int, float]] = defaultdict(dict)
    for _, _, key, number, at in rows:
        order[key].setdefault(number, at)
    return order


def verify(sent: Sent, reports: Collector, letters: Letters) -> list[str]:
    """Wait for what has not come yet, then return what is wrong."""
    good, objects, poison = sent.taken(), sent.good_objects(), sent.poison()
    changes = sum(map(len, good.values()))

    def arrived() -> bool:
        have = {row[0] for row in seen(reports, "dev.wisp.postgres")}
        return len(have) >= changes and objects <= {row[1] for row in seen(reports, "com.amazonaws.s3")}

    settle(arrived, "everything arrives")
    settle(lambda: written(letters) >= len(poison), "every event that fails for ever is a dead letter")
    rows, puts = seen(reports, "dev.wisp.postgres"), seen(reports, "com.amazonaws.s3")
    order = first_seen(rows)
    lost = objects - {row[1] for row in puts}
    short = [row for row, numbers in good.items() if order.get(row, {}).keys() != numbers]
    mixed = [row for row, numbers in order.items() if list(numbers) != sorted(numbers)]
    print(
        f"objects  {len(objects):>7} to be taken, {len(lost)} lost, {len(puts) - len({row[0] for row in puts})} repeated"
    )
    print(f"changes  {changes:>7} to be taken, {len(short)} rows with one lost or more than sent,", end=" ")
    print(f"{len(rows) - len({row[0] for row in rows})} repeated")
    found = list(buried(letters))
    wrong = [f"{len(lost)} objects lost, as {sorted(lost)[:3]}"] if lost else []
    wrong += [f"rows with a change lost or not sent: {short[:5]}"] if short else []
    wrong += [f"rows out of order: {mixed[:5]}"] if mixed else []
    early = overtaken(found, order)
    wrong += [f"taken before the dead letter of an earlier change was written: {early[:3]}"] if early else []
    return wrong + judge(found, poison)


def settle(complete: Callable[[], bool], what: str) -> None:
    """Wait for the end, if it comes: what is missing is told by the books."""

    def look() -> bool:
        if complete():
            return True
        time.sleep(2)  # a look at all reports, or at all letters, takes a moment
        return False

    with contextlib.suppress(TimeoutError):
        wait_until(look, what, SETTLE_SECONDS)
