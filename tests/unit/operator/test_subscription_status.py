"""A Subscription's conditions say which part is not ready, why, and what to do."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function, make_subscription, postgres
from wisp_api.route import RouteStatus
from wisp_api.source import ItemStatus, ReaderStatus
from wisp_operator.proof import Proof
from wisp_operator.sources import decode
from wisp_operator.subscription_status import figures, function_aspect, source_aspect

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
FRESH = "2026-06-01T11:59:50Z"
BUCKET, ROWS = make_subscription(), make_subscription(source=postgres())
NEW_ROWS = make_subscription(source=postgres(operations=["insert"]))
WELL = ItemStatus(ready=True)
INSERTS = ItemStatus(ready=False, reason="NoReplicaIdentity", message="m", operations=["insert"])


def reader(version: str = "v1", **fields: Any) -> ReaderStatus:
    """A report of a reader that is well, a few seconds old."""
    return msgspec.structs.replace(ReaderStatus(version=version, ready=True, time=FRESH), **fields)


def ready_before(item: dict[str, Any], generation: int = 1) -> dict[str, Any]:
    """The Subscription after its source was ready."""
    return item | {
        "status": {"conditions": [{"type": "SourceReady", "status": "True", "observedGeneration": generation}]}
    }


@pytest.mark.parametrize(
    ("case", "item", "report", "proof", "wanted"),
    [
        ("no report yet", ROWS, None, Proof.UNKNOWN, ("Unknown", "ReaderStarting")),
        ("silent for long", ROWS, reader(time="2026-06-01T11:57:00Z"), Proof.UNKNOWN, ("Unknown", "ReaderAway")),
        ("no time at all", ROWS, reader(time=""), Proof.UNKNOWN, ("Unknown", "ReaderAway")),
        (
            "wrong password",
            ROWS,
            reader(ready=False, reason="AuthenticationFailed", message="m"),
            Proof.UNKNOWN,
            ("False", "AuthenticationFailed"),
        ),
        ("older task", ROWS, reader("v0", items={"public.orders": WELL}), Proof.UNKNOWN, ("Unknown", "ReaderUpdating")),
        (
            "older task, but this was ready",
            ready_before(ROWS),
            reader("v0", items={"public.orders": WELL}),
            Proof.UNKNOWN,
            ("True", "AsWanted"),
        ),
        (
            "older task, and this has changed",
            ready_before(ROWS, 0),
            reader("v0"),
            Proof.UNKNOWN,
            ("Unknown", "ReaderUpdating"),
        ),
        ("item not reported", ROWS, reader(), Proof.UNKNOWN, ("Unknown", "ReaderUpdating")),
        (
            "no such table",
            ROWS,
            reader(items={"public.orders": ItemStatus(ready=False, reason="TableNotFound", message="m")}),
            Proof.UNKNOWN,
            ("False", "TableNotFound"),
        ),
        (
            "another's table is missing",
            ROWS,
            reader(items={"public.orders": WELL, "public.x": ItemStatus(ready=False)}),
            Proof.UNKNOWN,
            ("True", "AsWanted"),
        ),
        (
            "more is wanted than the table gives",
            ROWS,
            reader(items={"public.orders": INSERTS}),
            Proof.UNKNOWN,
            ("False", "NoReplicaIdentity"),
        ),
        (
            "others want more than the table gives",
            NEW_ROWS,
            reader(items={"public.orders": INSERTS}),
            Proof.UNKNOWN,
            ("True", "AsWanted"),
        ),
        ("rows flow", ROWS, reader(items={"public.orders": WELL}), Proof.UNKNOWN, ("True", "AsWanted")),
        (
            "rows flow, and a warning",
            ROWS,
            reader(items={"public.orders": WELL}, reason="SlotAtRisk", message="m"),
            Proof.UNKNOWN,
            ("True", "SlotAtRisk"),
        ),
        ("bucket proven", BUCKET, reader(items={"photos": WELL}), Proof.GRANTED, ("True", "AsWanted")),
        ("bucket refused", BUCKET, reader(items={"photos": WELL}), Proof.REFUSED, ("False", "PermissionDenied")),
        ("bucket not proven yet", BUCKET, reader(items={"photos": WELL}), Proof.UNKNOWN, ("Unknown", "ProofPending")),
        (
            "bucket proven before",
            ready_before(BUCKET),
            reader(items={"photos": WELL}),
            Proof.UNKNOWN,
            ("True", "AsWanted"),
        ),
    ],
)
def test_source_ready(
    case: str, item: dict[str, Any], report: ReaderStatus | None, proof: Proof, wanted: tuple[str, str]
) -> None:
    """The reader's report and the bucket's proof make SourceReady."""
    aspect = source_aspect(decode(item), "v1", report, proof, NOW)
    assert (aspect.status, aspect.reason) == wanted, case


def test_a_listing_is_told_of_and_is_no_trouble() -> None:
    """What the reader says of a bucket that is followed stands in the condition, which is true."""
    telling = ItemStatus(ready=True, message="the objects are being listed")
    aspect = source_aspect(decode(BUCKET), "v1", reader(items={"photos": telling}), Proof.GRANTED, NOW)
    assert (aspect.status, aspect.message) == ("True", telling.message)


TAGGED = ROWS | {"spec": ROWS["spec"] | {"function": {"name": "hello", "tag": "stable"}}}


def test_what_was_missed_of_a_bucket_is_told_for_a_day() -> None:
    """True with a warning that says from when till when; not while it goes on, and not for ever."""
    report = reader(items={"photos": ItemStatus(ready=True, message="listing")})
    times = {"since": "2026-05-31T10:00:00Z", "until": "2026-05-31T12:00:00Z"}

    def told(unseen: dict[str, str]) -> tuple[str, str]:
        aspect = source_aspect(decode(BUCKET), "v1", report, Proof.GRANTED, NOW, unseen)
        assert aspect.status == "True"
        return aspect.reason, aspect.message

    reason, message = told(times)
    assert reason == "ChangesMissed"
    assert "bucket photos between 2026-05-31T10:00:00Z and 2026-05-31T12:00:00Z" in message
    assert message.endswith("; listing")
    assert told(times | {"until": "2026-05-31T11:59:59Z"}) == ("AsWanted", "listing")
    assert told({"since": times["since"]}) == ("AsWanted", "listing")


def function(status: str, reason: str = "AsWanted") -> dict[str, Any]:
    """A Function whose Ready says this."""
    return make_function() | {
        "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "why"}]}
    }


def route(state: str = "Active", **fields: Any) -> RouteStatus:
    """The router's report on the present Subscription."""
    said = RouteStatus(uid="uid-of-on-upload", generation=1, state=state, message="m")
    return msgspec.structs.replace(said, **fields)


@pytest.mark.parametrize(
    ("case", "item", "target", "report", "wanted"),
    [
        ("no such Function", ROWS, None, route(), ("False", "FunctionNotFound")),
        ("no such tag", TAGGED, function("True"), route(), ("False", "TagNotFound")),
        ("Function broken", ROWS, function("False", "ImagePullFailed"), route(), ("False", "FunctionNotReady")),
        ("Function starting", ROWS, function("Unknown"), route(), ("Unknown", "FunctionNotReady")),
        ("suspended", make_subscription(suspend=True), function("True"), route("Suspended"), ("False", "Suspended")),
        ("route not taken up", ROWS, function("True"), None, ("Unknown", "RoutePending")),
        ("report of an older spec", ROWS, function("True"), route(generation=0), ("Unknown", "RoutePending")),
        ("report of a namesake", ROWS, function("True"), route(uid="older"), ("Unknown", "RoutePending")),
        ("waits for a revision", ROWS, function("True"), route("WaitingForTarget"), ("Unknown", "RoutePending")),
        ("backlogged", ROWS, function("True"), route("Backlogged"), ("False", "Backlogged")),
        ("failing", ROWS, function("True"), route("Failing"), ("False", "Failing")),
        ("delivers", ROWS, function("True"), route(), ("True", "AsWanted")),
    ],
)
def test_function_ready(
    case: str, item: dict[str, Any], target: dict[str, Any] | None, report: RouteStatus | None, wanted: tuple[str, str]
) -> None:
    """The Function and the router's report make FunctionReady."""
    aspect = function_aspect(decode(item), target, report, ["router-0"])
    assert (aspect.status, aspect.reason) == wanted, case


def test_function_is_not_ready_without_a_router() -> None:
    """A report that a router left behind is not believed when none is alive."""
    aspect = function_aspect(decode(ROWS), function("True"), route(), [])
    assert (aspect.status, aspect.reason) == ("Unknown", "RouterAway")


def test_figures_are_the_routers() -> None:
    """Numbers are those of this very Subscription; a namesake's are left out."""
    assert figures(decode(ROWS), route(delivered=5, dead_lettered=1))["deadLettered"] == 1
    assert figures(decode(ROWS), route(uid="older")) == {}
    since = "2026-06-01T12:00:00Z"
    assert figures(decode(ROWS), route(oldest_pending=since))["oldestPending"] == since
