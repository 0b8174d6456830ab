"""What the answer to a batch means for each of its events. Pure: no clock, no I/O.

Lambda's rules: a success may name single failures; what can't be read of that is a failure of the whole batch; splitting a
batch costs no attempt. Attempts count by event; of a key only its first failed event's, since those behind were not judged.

Invariant: each event of a batch is in exactly one of an answer's `done`, `dead` and `again`, and of each key what is in
`done` stands before what is not.
How it could fail: an id that stands twice in a batch (ids are unique by source only): then both are taken as failed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from wisp_api.cloudevent import NOT_READABLE

from wisp_events.router.schedule import Item
from wisp_events.router.verdict import Answer, Outcome, Verdict, describe, judge

ANSWER_BYTES: Final = 6 * 1024 * 1024
TOO_LARGE: Final = 413


class _Item(msgspec.Struct, rename="camel"):
    item_identifier: str


class _Report(msgspec.Struct, rename="camel"):
    """What a function may say of a batch: Lambda's partial batch response."""

    batch_item_failures: list[_Item] | None = None


_report_decoder = msgspec.json.Decoder(_Report)


@dataclass(slots=True)
class Settled:
    """What an answer means for the events of a batch."""

    verdict: Verdict
    message: str
    """The outcome in a few words."""
    done: list[Item] = field(default_factory=list)
    dead: list[Item] = field(default_factory=list)
    """Refused for good."""
    counted: list[Item] = field(default_factory=list)
    """Of those in `again`, the ones whose attempt counts."""
    again: list[Item] = field(default_factory=list)
    """To be sent once more."""
    split: bool = False
    """In halves."""


def settle(
    items: list[Item], outcome: Outcome, *, ordered: bool, bisect: bool, check: Callable[[bytes], object] = len
) -> Settled:
    """Judge the answer to a batch; `check` raises ValueError where the body of a success is none."""
    verdict, message = judge(outcome), describe(outcome)
    if verdict is Verdict.DELIVERED and isinstance(outcome, Answer):
        try:
            failed = failures(outcome.body, {item.event.id for item in items})
            check(outcome.body)
        except ValueError as error:
            verdict, message = Verdict.FUNCTION_FAILED, f"the whole batch counts as failed: {error}"
        else:
            return _partial(items, message, failed, ordered=ordered)
    too_large = isinstance(outcome, Answer) and outcome.status == TOO_LARGE
    if len(items) > 1 and (too_large or (bisect and verdict is not Verdict.UNREACHED)):
        return Settled(verdict, message, again=items, split=True)
    if verdict is Verdict.REJECTED:
        return Settled(verdict, message, dead=items)
    return Settled(verdict, message, counted=items if verdict is Verdict.FUNCTION_FAILED else [], again=items)


def failures(body: bytes, ids: set[str]) -> set[str]:
    """The ids that a function's answer to a batch calls failed; without `batchItemFailures` none.

    Raises:
        ValueError: it is no list of known, non-empty ids; by Lambda's rule everything has failed then.
    """
    if len(body) >= ANSWER_BYTES:
        raise ValueError(f"the answer has {ANSWER_BYTES} bytes or more")
    if b"batchItemFailures" not in body:
        return set()
    try:
        report = _report_decoder.decode(body)
    except NOT_READABLE as error:  # what stands beside it may nest as deeply as a function likes
        raise ValueError(f"batchItemFailures can't be read: {error}") from error
    failed = {one.item_identifier for one in report.batch_item_failures or []}
    if unknown := failed - ids:
        raise ValueError(f"batchItemFailures names {min(unknown)!r}, which is the id of no event of the batch")
    return failed


def _partial(items: list[Item], message: str, failed: set[str], *, ordered: bool) -> Settled:
    """Done is what did not fail and, in order, does not stand behind a failed event of its key; of a key the first failure counts."""
    if not failed:
        return Settled(Verdict.DELIVERED, message, done=items)
    settled = Settled(Verdict.FUNCTION_FAILED, message)
    keys: set[str] = set()
    for item in items:
        key = item.key if ordered else None
        behind = key in keys
        if item.event.id in failed and not behind:
            settled.counted.append(item)
            if key is not None:
                keys.add(key)
            settled.again.append(item)
        elif behind:
            settled.again.append(item)
        else:
            settled.done.append(item)
    return settled


def groups(items: list[Item], *, ordered: bool) -> list[list[Item]]:
    """The events of a batch by what holds them in order: by key, or each for itself."""
    if not ordered:
        return [[item] for item in items]
    found: dict[str | None, list[Item]] = {}
    for item in items:
        found.setdefault(item.key, []).append(item)
    alone = found.pop(None, [])  # each is the only one of its lane
    return [*found.values(), *([item] for item in alone)]


def halves(items: list[Item], *, ordered: bool) -> tuple[list[Item], list[Item], list[list[Item]]]:
    """Two batches, and by key the rest of the second half, which would run beside the first half's events of its key.

    Each of these groups begins with that key's last event of the first half.
    """
    middle = len(items) // 2
    first, second = items[:middle], items[middle:]
    last = {item.key: item for item in first if ordered and item.key is not None}
    free = [item for item in second if item.key not in last]
    bound = groups([item for item in second if item.key in last], ordered=True)
    return first, free, [[last[group[0].key or ""], *group] for group in bound]


def spent(group: list[Item], attempts: int) -> int:
    """How many of a key's events, from the first on, have had all their attempts."""
    return next((place for place, item in enumerate(group) if item.attempts < attempts), len(group))
