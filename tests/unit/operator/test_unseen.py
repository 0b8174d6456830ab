"""From when till when a bucket's changes were not seen: never shorter than it was, and each time once."""

from typing import Any

import msgspec
import pytest
from fixtures.objects import make_subscription, postgres
from wisp_api.source import ItemStatus, ReaderConfig, ReaderStatus, S3Server
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import View, plan
from wisp_operator.handlers.unseen import unseen_times
from wisp_operator.proof import Proof
from wisp_operator.sources import ReaderKey, decode, rebind

SERVER = S3Server(name="minio", endpoint="http://minio:9000", notification_arns=["arn:1"])
CONFIG = OperatorConfig(
    namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n", s3_servers=[SERVER]
)
MINIO = ReaderKey("s3", "minio")
SEEN_AGAIN = {"since": "2026-06-01T10:00:00Z", "until": "2026-06-01T11:00:00Z"}


def settled(item: dict[str, Any], **items: ItemStatus) -> tuple[View, ReaderConfig | None]:
    """A namespace whose bucket is bound, and its reader's task."""
    view = View("media", [decode(item)], proofs={("minio", "photos"): Proof.GRANTED})
    view.reports[MINIO] = ReaderStatus(version="", ready=True, server="minio", items=items)
    made = plan(view, CONFIG, "cluster")
    view.routes, view.bindings = made.routes, rebind("media", made.bindings, {})
    return view, made.readers.get(MINIO)


def times(view: View, now: str, status: dict[str, Any] | None = None) -> Any:
    """What the status says after a plan is carried out, of what it said before."""
    [wish] = view.wishes
    view.wishes = [decode(wish.live | {"status": {"unseen": status} if status else {}})]
    made = plan(view, CONFIG, "cluster")
    found = unseen_times(view, made, view.wishes[0], now)
    view.bindings |= rebind("media", made.bindings, view.bindings)
    return found


def test_a_right_that_is_taken_away_and_given_back() -> None:
    """It begins with the binding's end and ends when there is one again; afterwards it stays, until the next time."""
    view, _ = settled(make_subscription())
    assert times(view, "1") is None
    view.proofs = {("minio", "photos"): Proof.REFUSED}
    assert times(view, "2") == {"since": "2"}
    assert times(view, "3", {"since": "2"}) == {"since": "2"}
    view.proofs = {("minio", "photos"): Proof.UNKNOWN}
    assert times(view, "4", {"since": "2"}) == {"since": "2"}, "not proven yet"
    view.proofs = {("minio", "photos"): Proof.GRANTED}
    assert times(view, "5", {"since": "2"}) == {"since": "2", "until": "5"}
    assert times(view, "6", {"since": "2", "until": "5"}) == {"since": "2", "until": "5"}
    view.proofs = {("minio", "photos"): Proof.REFUSED}
    assert times(view, "7", {"since": "2", "until": "5"}) == {"since": "7"}


def test_a_right_that_was_never_there_is_nothing_unseen() -> None:
    """Neither before the first proof, nor for a database."""
    view, _ = settled(make_subscription())
    view.bindings, view.proofs = {}, {("minio", "photos"): Proof.REFUSED}
    assert times(view, "1") is None
    assert times(settled(make_subscription(source=postgres()))[0], "1") is None


@pytest.mark.parametrize(
    ("case", "item", "before", "wanted"),
    [
        ("nobody took any", ItemStatus(ready=True), None, None),
        ("told", ItemStatus(ready=True, unseen_since="3"), None, {"since": "3", "until": "9"}),
        ("told already", ItemStatus(ready=True, unseen_since="3"), {"since": "3", "until": "4"}, {"since": "3", "until": "4"}),
        ("told before a later time", ItemStatus(ready=True, unseen_since="3"), {"since": "5", "until": "6"}, {"since": "5", "until": "6"}),
        ("not put back yet", ItemStatus(ready=False, reason="NotificationRefused", unseen_since="3"), None, None),
    ],
)  # fmt: skip
def test_rules_that_somebody_took_away(
    case: str, item: ItemStatus, before: dict[str, str] | None, wanted: dict[str, str] | None
) -> None:
    """What the reader tells of them counts once, when they stand again."""
    view, _ = settled(make_subscription(), photos=item)
    assert times(view, "9", before) == wanted, case


def test_who_has_a_listing_is_given_what_changed_since() -> None:
    """The reader is told when changes are seen again, not before; other Subscriptions' rules stay as they are."""
    item = make_subscription(start="earliest")
    view, task = settled(item)
    for unseen, wanted in (({"since": "2"}, ""), (SEEN_AGAIN, SEEN_AGAIN["since"])):
        view.wishes = [decode(item | {"status": {"unseen": unseen}})]
        for listed in (True, False):
            assert task
            assert task.s3
            told = msgspec.structs.replace(task.s3.rules[0], listing=item["metadata"]["uid"] if listed else "")
            view.tasks = {MINIO: msgspec.structs.replace(task, s3=msgspec.structs.replace(task.s3, rules=[told]))}
            found = plan(view, CONFIG, "cluster").readers[MINIO].s3
            assert found
            assert found.rules[0].since == (wanted if listed else "")
