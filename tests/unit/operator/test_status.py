"""When a Job that failed is made again, by what the status says of it, and which of its changes become Events."""

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest
from fixtures.objects import make_function
from wisp_api.conditions import MESSAGE_CHARACTERS, REASON_CHARACTERS
from wisp_operator.api import EVENTS, Api, ApiError, Resource
from wisp_operator.status import (
    Aspect,
    make_conditions,
    mark_false,
    mark_true,
    mark_unknown,
    news,
    next_try,
    timestamp,
    write_event,
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


def told(*aspects: Aspect, of: str = "CodeReady") -> list[tuple[str, str]]:
    """Type and reason of the Events while a condition goes through these states."""
    live = make_function()
    found: list[tuple[str, str]] = []
    live["metadata"]["generation"] = 1
    for aspect in aspects:
        before = live.get("status", {}).get("conditions", [])
        now = make_conditions(live, {of: aspect}, START)
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
    deploying = mark_unknown("Deploying", "Knative has not taken the change up yet")
    assert told(deploying, steps[0], deploying, steps[2], deploying, mark_true()) == [("Normal", "RollingOut")] * 2
    gone = mark_unknown("ReaderAway", "the reader has not reported")
    assert told(mark_true(), gone, gone, mark_true()) == [("Warning", "ReaderAway")]
    assert told(mark_unknown("LogUnavailable", ""), gone, mark_true()) == []
    blocked = mark_unknown("RolloutBlocked", "10 %; it goes no further")
    assert told(steps[0], blocked, steps[0], blocked, steps[0]) == [("Normal", "RollingOut")]
    threats = [mark_true("SlotAtRisk", f"{size} MiB") for size in ("10", "20")]
    assert told(*threats, mark_true()) == [("Warning", "SlotAtRisk")]


def test_a_destination_is_told_of_and_leaves_ready_alone() -> None:
    """Ready stays while the destination comes and goes; each time that it goes is an Event."""
    live = make_function()
    live["metadata"]["generation"] = 1
    gone = mark_false("SinkNotFound", "spec.deadLetter.ref: there is none")
    ready, source, posted = make_conditions(live, {"SourceReady": mark_true(), "DestinationReady": gone}, START)
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "AsWanted")
    assert (source["status"], posted["status"], posted["reason"]) == ("True", "False", "SinkNotFound")
    assert told(mark_true(), gone, gone, mark_true(), of="DestinationReady") == [("Warning", "SinkNotFound")]


def test_a_message_that_is_too_long_is_shortened() -> None:
    """A status that the API refuses would hold up the namespace's others; the beginning and the cure at the end stay."""
    live = {"metadata": {"generation": 1}}
    aspects = {"SourceReady": mark_false("R" * 5000, "boom: " + "x" * 1_000_000 + "; trying again")}
    for state in make_conditions(live, aspects, START):
        assert len(state["message"]) == MESSAGE_CHARACTERS
        assert state["message"].startswith("boom: xxx")
        assert state["message"].endswith("xxx; trying again")
        assert len(state["reason"]) == REASON_CHARACTERS
    assert make_conditions(live, {"SourceReady": mark_false("Gone", "gone")}, START)[0]["message"] == "gone"


async def test_an_event_that_is_refused_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """A quota of a namespace, or a webhook that answers no Events, costs the Event alone, and the log tells what it said."""

    class Refusing(Api):
        async def create(self, resource: Resource, namespace: str, body: Any) -> NoReturn:
            assert (resource, namespace, body["reason"]) == (EVENTS, "media", "SinkNotFound")
            raise ApiError(403, b'{"message": "exceeded quota: events", "reason": "Forbidden"}')

    await write_event(Refusing.__new__(Refusing), make_function(), "SinkNotFound", "there is none", START)
    [line] = caplog.messages
    assert "the Event SinkNotFound (there is none) was refused: exceeded quota: events" in line
