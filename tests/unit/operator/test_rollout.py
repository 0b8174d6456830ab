"""Traffic moves by steps, goes back by itself, and never names a revision that is not there or has not started."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec, RolloutStatus
from wisp_operator.history import make_history, superfluous
from wisp_operator.pod_metrics import parse
from wisp_operator.rollout import Counts, Plan, Seen, plan

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = "hello-old", "hello-new"
LATEST = [{"latestRevision": True, "percent": 100}]
BOTH = {OLD: True, NEW: True}
STEPS = {"steps": [10, 50, 100], "intervalSeconds": 60, "maxErrorRate": "0.05"}


def spec_of(**fields: Any) -> FunctionSpec:
    """A Function's spec with these fields."""
    return msgspec.convert(make_function(**fields)["spec"], FunctionSpec)


def only(revision: str) -> list[dict[str, Any]]:
    """All requests for one revision."""
    return [{"revisionName": revision, "percent": 100}]


def share(percent: int) -> list[dict[str, Any]]:
    """So much for the new revision."""
    return [{"revisionName": OLD, "percent": 100 - percent}, {"revisionName": NEW, "percent": percent}]


def state(
    name: Literal["Progressing", "Done", "RolledBack"] = "Progressing",
    percent: int = 10,
    age: float = 0,
    revision: str = NEW,
    stable: str = OLD,
) -> RolloutStatus:
    """A roll-out whose present step has gone on for so many seconds."""
    since = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return RolloutStatus(revision=revision, stable=stable, state=name, percent=percent, since=since)


def planned(
    spec: FunctionSpec,
    before: RolloutStatus | None = None,
    revisions: dict[str, bool] | None = None,
    serving: str | None = OLD,
    counts: Counts | None = None,
) -> Plan:
    """The plan while the spec makes the new revision."""
    return plan(spec, Seen(NEW, BOTH if revisions is None else revisions, before, serving, counts or Counts()), NOW)


@pytest.mark.parametrize(
    ("case", "before", "revisions", "counts", "traffic", "wanted"),
    [
        ("new, not there yet", None, {OLD: True}, None, only(OLD), ("Progressing", 0)),
        ("new, starting", None, {OLD: True, NEW: False}, None, only(OLD), ("Progressing", 0)),
        ("started", state(percent=0), BOTH, None, share(10), ("Progressing", 10)),
        ("within a step", state(age=59), BOTH, Counts(9, 0), share(10), ("Progressing", 10)),
        ("a step is over", state(age=60), BOTH, Counts(200, 10), share(50), ("Progressing", 50)),
        ("no requests came", state(age=60), BOTH, Counts(), share(50), ("Progressing", 50)),
        ("the last step", state(percent=50, age=60), BOTH, Counts(), only(NEW), ("Done", 100)),
        ("done", state("Done", 100), BOTH, None, only(NEW), ("Done", 100)),
        ("too many errors", state(age=5), BOTH, Counts(20, 2), only(OLD), ("RolledBack", 0)),
        ("one error among few", state(age=5), BOTH, Counts(2, 1), share(10), ("Progressing", 10)),
        ("few, but the step is over", state(age=60), BOTH, Counts(2, 1), only(OLD), ("RolledBack", 0)),
        ("went back", state("RolledBack", 0, age=900), BOTH, None, only(OLD), ("RolledBack", 0)),
        ("figures can't be read", state(age=900), BOTH, Counts(unread="no answer"), share(10), ("Progressing", 10)),
        ("first revision of all", None, {}, None, LATEST, ("Done", 100)),
        ("old one deleted", state(age=5), {NEW: True}, None, only(NEW), ("Progressing", 10)),
        ("old one never started", None, {OLD: False, NEW: False}, None, LATEST, ("Done", 100)),
        ("newer one meanwhile", state(percent=50, revision="hello-x"), BOTH, None, share(10), ("Progressing", 10)),
        (
            "after one that went back",
            state("RolledBack", 0, revision="hello-x"),
            BOTH,
            None,
            share(10),
            ("Progressing", 10),
        ),
        (
            "after one that is done",
            state("Done", 100, revision=OLD, stable="hello-x"),
            BOTH,
            None,
            share(10),
            ("Progressing", 10),
        ),
        ("back to the old spec", state(revision="hello-x", stable=NEW), BOTH, None, only(NEW), ("Done", 100)),
    ],
)
def test_steps(
    case: str,
    before: RolloutStatus | None,
    revisions: dict[str, bool],
    counts: Counts | None,
    traffic: list[dict[str, Any]],
    wanted: tuple[str, int],
) -> None:
    """Each look moves on by one step at most, and back at once."""
    serving = None if not revisions else OLD
    made = planned(spec_of(rollout=STEPS), before, revisions, serving, counts)
    assert made.traffic == traffic, case
    assert made.state, case
    assert (made.state.state, made.state.percent) == wanted, case


def test_without_error_rate_errors_do_not_count() -> None:
    """Steps go by time alone."""
    made = planned(spec_of(rollout={"steps": [10, 100], "intervalSeconds": 60}), state(), counts=Counts(100, 100))
    assert made.traffic == share(10)


@pytest.mark.parametrize(
    ("case", "fields", "before", "counts", "wanted", "words"),
    [
        ("on the way", {"rollout": STEPS}, state(age=5), Counts(), ("True", "RollingOut"), ["10 %", NEW, OLD]),
        ("back", {"rollout": STEPS}, state(age=5), Counts(20, 2), ("False", "RolledBack"), ["2 of 20", "0.05", OLD]),
        ("blind", {"rollout": STEPS}, state(age=5), Counts(unread="x"), ("Unknown", "RolloutBlocked"), ["port 9464"]),
        ("pinned", {"pin": OLD}, None, Counts(), ("True", "Pinned"), [OLD, "spec.pin", NEW]),
        ("wrong pin", {"pin": "hello-none"}, None, Counts(), ("False", "RevisionNotFound"), ["hello-none", OLD, NEW]),
        (
            "wrong tag",
            {"tags": {"stable": {"revision": "hello-none"}}},
            None,
            Counts(),
            ("False", "RevisionNotFound"),
            ["spec.tags.stable.revision"],
        ),
    ],
)
def test_said(
    case: str,
    fields: dict[str, Any],
    before: RolloutStatus | None,
    counts: Counts,
    wanted: tuple[str, str],
    words: list[str],
) -> None:
    """What a roll-out, a pin and a tag mean is told in a condition."""
    aspect = planned(spec_of(**fields), before, counts=counts).aspect
    assert aspect, case
    assert (aspect.status, aspect.reason) == wanted, case
    for word in words:
        assert word in aspect.message, case


def test_pin_wins_and_tags_come_along() -> None:
    """A pinned revision has all requests, also during a roll-out; a tag has none, only its URL."""
    made = planned(spec_of(rollout=STEPS, pin=OLD, tags={"canary": {"revision": NEW}}), state())
    assert made.traffic == [*only(OLD), {"tag": "canary", "revisionName": NEW, "percent": 0}]
    assert planned(spec_of()).traffic == LATEST


def test_missing_revisions_are_never_named() -> None:
    """Knative refuses a Service that names one."""
    made = planned(spec_of(pin="hello-none", tags={"stable": {"revision": "hello-none"}}), None, {}, OLD)
    assert made.traffic == LATEST


def revision(name: str, day: int) -> dict[str, Any]:
    """A revision of that day."""
    return {"metadata": {"name": name, "creationTimestamp": f"2026-01-{day:02}T00:00:00Z"}}


def test_history_keeps_what_it_knew_and_what_is_named() -> None:
    """The newest first, each with the code that it was made of; beyond the limit only what something names stays."""
    revisions = [revision(f"r{day}", day) for day in range(1, 8)]
    past = make_history(revisions, {"history": [{"revision": "r6", "codeSha256": "six"}]}, "r7", "seven")
    assert [item["revision"] for item in past] == ["r7", "r6", "r5", "r4", "r3", "r2", "r1"]
    assert [item.get("codeSha256") for item in past[:3]] == ["seven", "six", None]
    spec = spec_of(revisionHistoryLimit=2, pin="r2", tags={"stable": {"revision": "r1"}})
    assert superfluous(spec, revisions, [{"revisionName": "r4"}], "r7") == ["r5", "r3"]


def test_failed_invocations_are_errors_and_timeouts() -> None:
    """As the runtime writes them."""
    lines = [
        f'wisp_function_invocations_total{{status="{name}"}} {number}'
        for name, number in (("success", 7), ("error", 2), ("timeout", 1))
    ]
    assert parse("\n".join(["# TYPE x counter", *lines, "wisp_function_workers 4"])) == Counts(10, 3)
