"""What a change of an order becomes in its history; that it arrives there is an integration test."""

import json

import pytest
from fixtures.examples import cloud_event, load, sample
from wisp_api import cloudevent
from wisp_events.sources.row_events import Mapper
from wisp_events.sources.rows import Begin, Relation

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


def test_samples_are_one_order_in_commit_order() -> None:
    """The three samples tell one order's story: one partition key, ascending sequences, an id each."""
    assert len({event["partitionkey"] for event in SAMPLES}) == 1
    assert len({event["id"] for event in SAMPLES}) == 3
    assert [event["sequence"] for event in SAMPLES] == sorted(event["sequence"] for event in SAMPLES)


@pytest.mark.parametrize("kind", ["truncate", "gap"])
def test_samples_without_a_key(kind: str) -> None:
    """What concerns the whole table has the shape that the reader gives it: no partition key, an empty key, no rows."""
    event = sample(f"orders/events/{kind}.json")
    relation = Relation(1, "public", "orders", "f", ())
    mapper = Mapper("default", "shop-db", 1)
    made = mapper.truncate(relation, Begin(2, 0), 1) if kind == "truncate" else mapper.gap("public.orders", 0, "why")
    real = json.loads(cloudevent.encode(made[1]))
    assert event.keys() == real.keys()
    assert (event["type"], event["data"].keys(), event["data"]["key"]) == (real["type"], real["data"].keys(), {})


def test_a_gap_is_logged_and_is_no_history(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no database, and its message is in the log."""
    event = sample("orders/events/gap.json")
    app.handler(cloud_event("orders/events/gap.json"))
    logged = json.loads(capsys.readouterr().out)
    assert (logged["level"], logged["message"]) == ("warning", event["data"]["message"])
