"""Events that the function of `make chaos` never takes, and what the dead letters have to say of them.

An event's fate is written in the event itself, in an object's key and in a row's column, so that the function, which forgets
everything, and the one who balances the books agree on it. Each way to fail is one that a function can have:

- `fail`: it raises, and the whole batch comes again in halves;
- `report`: it names the event in `batchItemFailures`;
- `exit`: its process ends amid the event;
- `hang`: it never returns, until its time is over. Few, because each costs minutes of a pod.

The function stops at such an event as one that goes by the order would: what stands behind it has not been taken.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from wisp.dead import Letters

TAKE: Final = "take"
EVERY: Final = {"fail": (211, 50), "report": (223, 100), "exit": (997, 499)}
"""Each so manyth event, from this one on: numbers that share no factor with the number of rows, so that all rows have some."""
HANGS: Final = 3
ATTEMPTS: Final = 4
"""More than the faults take from a good event: of those, a pause of the function that is longer than its time counts as one."""
RETRY: Final = {"maxAttempts": ATTEMPTS, "initialSeconds": 0.1, "maxSeconds": 2, "bisect": True}

Place = tuple[str, int]
"""An event as the books have it: the row's partition key and its number, or the object's key and 0."""


def fate(number: int, total: int) -> str:
    """What becomes of event `number` of `total`."""
    if total > HANGS and number in {total * part // (HANGS + 1) for part in range(1, HANGS + 1)}:
        return "hang"
    return next((kind for kind, (every, first) in EVERY.items() if number % every == first), TAKE)


@dataclass(frozen=True)
class Buried:
    """A dead letter."""

    place: Place
    fate: str
    reason: str
    attempts: int
    status: int | None
    said: str
    """Its message and the function's last answer."""
    time: float
    """Unix time at which it was written."""


def buried(letters: Letters) -> Iterator[Buried]:
    """All dead letters of the namespace, each as its door shows it."""
    for summary in letters.all(None):
        letter = letters.one(summary["id"])
        event = letter.get("event") or {}
        row = (event.get("data") or {}).get("new") or {}
        place = (event["partitionkey"], row["n"]) if row else (event.get("subject", ""), 0)
        yield Buried(
            place,
            row.get("fate") or str(event.get("subject", "")).split(".")[-2],
            letter["reason"],
            letter.get("attempts", 0),
            letter.get("lastStatus"),
            f"{letter['message']} {letter.get('lastResponse', '')}",
            datetime.fromisoformat(letter["time"]).timestamp(),
        )


def written(letters: Letters) -> int:
    """How many events have a dead letter."""
    return len({(letter.get("subscription"), letter.get("eventId")) for letter in letters.all(None)})


def judge(found: list[Buried], poison: dict[Place, str]) -> list[str]:
    """What is wrong with the dead letters, where these events, and no others, should be there."""
    there = {letter.place for letter in found}
    good, missing = sorted(there - poison.keys()), sorted(poison.keys() - there)
    mute = [
        letter
        for letter in found
        if letter.reason != "MaxAttempts" or letter.attempts < ATTEMPTS or not letter.said.strip()
    ]
    kinds = Counter((letter.fate, letter.reason, letter.status) for letter in found)
    print(
        f"dead     {len(poison):>7} that fail for ever, {len(missing)} without a dead letter, {len(good)} letters of good"
    )
    print(f"         events, {len(found) - len(there)} repeated; by fate, reason and last status:", end=" ")
    print(", ".join(f"{' '.join(map(str, kind))}: {count}" for kind, count in sorted(kinds.items(), key=str)))
    wrong = [f"{len(good)} dead letters of events that the function takes, as {good[:3]}"] if good else []
    wrong += [f"{len(missing)} events neither taken nor in the dead letters, as {missing[:3]}"] if missing else []
    return wrong + ([f"{len(mute)} dead letters that don't tell of their attempts, as {mute[:2]}"] if mute else [])


def overtaken(found: Iterable[Buried], taken: dict[str, dict[int, float]]) -> list[str]:
    """Rows of which a change was seen first before the dead letter of an earlier one was written.

    Args:
        found: the dead letters.
        taken: for each row, when (Unix time) each of its numbers was seen first.
    """
    letters: dict[str, dict[int, float]] = defaultdict(dict)
    for letter in found:
        key, number = letter.place
        letters[key][number] = min(letter.time, letters[key].get(number, letter.time))
    return [
        json.dumps([key, number, dead])
        for key, seen in taken.items()
        for dead, time in letters[key].items()
        for number, at in seen.items()
        if number > dead and at < time
    ]


def row_event(row: Any, number: int, rows: int) -> int:
    """Which of all changes this is, in the order of writing."""
    return (number - 1) * rows + int(row)
