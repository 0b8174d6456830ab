"""When a Job that failed is made again, by what the status says of it, and which of its changes become Events."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fixtures.objects import make_function
from wisp_operator.status import (
    Aspect,
    make_conditions,
    mark_false,
    mark_true,
    mark_unknown,
    news,
    next_try,
    timestamp,
    wrong_before,
)

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


def failing(since: datetime, *, of: int = 1, status: str = "False") -> dict[str, Any]:
    """A Function of generation 1 whose code can't be had since then, as its generation `of` said."""
    state = {"type": "CodeReady", "status": status, "reason": "CodeNotFound", "message": "spec.code: gone"}
    made = make_function()
    made["metadata"]["generation"] = 1
    states = [state | {"lastTransitionTime": timestamp(since), "observedGeneration": of}]
    return made | {"status": {"conditions": states}}


def test_pauses_double() -> None:
    """Jobs that fail within a second each come after 15 s, 30, 60 and so on, and every 10 minutes in the end."""
    ended, pauses = START, []
    for _ in range(10):
        due = next_try(failing(START), ended)
        pauses.append(round((due - ended).total_seconds()))
        ended = due + timedelta(seconds=1)
    assert pauses[:5] == [15, 16, 33, 67, 135]
    assert pauses[-3:] == [600, 600, 600]


def test_another_spec_begins_anew() -> None:
    """What failed for an earlier spec, or fails no more, makes nobody wait."""
    ended = START + timedelta(hours=1)
    for item in (failing(START, of=0), failing(START, status="Unknown"), make_function()):
        item["metadata"]["generation"] = 1
        assert next_try(item, ended) - ended == timedelta(seconds=15)
        assert wrong_before(item, "spec.code: ") is None


def test_what_was_wrong_stands() -> None:
    """While the next Job runs, the last one's finding stands: for its own field."""
    assert wrong_before(failing(START), "spec.code: ") == mark_false("CodeNotFound", "spec.code: gone")
    assert wrong_before(failing(START), "spec.requirements: ") is None


def told(*aspects: Aspect) -> list[tuple[str, str]]:
    """Type and reason of the Events while a condition goes through these states."""
    live = make_function()
    found: list[tuple[str, str]] = []
    live["metadata"]["generation"] = 1
    for aspect in aspects:
        before = live.get("status", {}).get("conditions", [])
        now = make_conditions(live, {"CodeReady": aspect}, START)
        found += [(kind, reason) for reason, _, kind in news(before, now)]
        live["status"] = {"conditions": now}
    return found


def test_events_tell_what_turned() -> None:
    """A failure and its end are told once each, and a start that goes well not at all."""
    wrong = mark_false("CodeNotFound", "gone")
    assert told(mark_unknown("Deploying", ""), mark_true(), mark_true()) == []
    assert told(mark_true(), wrong, wrong, mark_true(), mark_true()) == [
        ("Warning", "CodeNotFound"),
        ("Normal", "Recovered"),
    ]


def test_events_tell_each_step() -> None:
    """Each step of a roll-out is an Event, a threat and a reader's absence only where they begin."""
    steps = [mark_true("RollingOut", f"{share} %") for share in ("10", "10", "50")]
    assert told(*steps, mark_true()) == [("Normal", "RollingOut")] * 2
    gone = mark_unknown("ReaderAway", "the reader has not reported")
    assert told(mark_true(), gone, gone, mark_true()) == [("Warning", "ReaderAway")]
    assert told(mark_unknown("LogUnavailable", ""), gone, mark_true()) == []
    blocked = mark_unknown("RolloutBlocked", "10 %; it goes no further")
    assert told(steps[0], blocked, steps[0], blocked, steps[0]) == [("Normal", "RollingOut")]
    threats = [mark_true("SlotAtRisk", f"{size} MiB") for size in ("10", "20")]
    assert told(*threats, mark_true()) == [("Warning", "SlotAtRisk")]
