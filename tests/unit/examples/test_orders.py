"""What a change of an order becomes in its history; that it arrives there is an integration test."""

import json

from fixtures.examples import load, sample

app = load("orders")
SAMPLES = [sample(f"orders/events/{op}.json") for op in ("insert", "update", "delete")]


def test_history_has_old_and_new_row() -> None:
    """An insert has no old row, a delete no new one, an update both, each under the order's key."""
    insert, update, delete = (app.history_row(event["id"], event["data"]) for event in SAMPLES)
    assert insert[1:4] == (1001, "insert", None)
    assert update[1:3] == (1001, "update")
    assert (json.loads(update[3])["status"], json.loads(update[4])["status"]) == ("new", "paid")
    assert delete[1:3] == (1001, "delete")
    assert delete[4] is None


def test_history_takes_a_truncate() -> None:
    """An event without key and rows becomes a row too."""
    row = app.history_row("e-1", {"op": "truncate", "key": None, "old": None, "new": None})
    assert row == ("e-1", None, "truncate", None, None)


def test_samples_are_one_order_in_commit_order() -> None:
    """The three samples tell one order's story: one partition key, ascending sequences, an id each."""
    assert len({event["partitionkey"] for event in SAMPLES}) == 1
    assert len({event["id"] for event in SAMPLES}) == 3
    assert [event["sequence"] for event in SAMPLES] == sorted(event["sequence"] for event in SAMPLES)
