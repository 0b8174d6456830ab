"""The examples' handlers, served by the real runtime, against the real servers that they use."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cloudevents.core.v1.event import CloudEvent
from fixtures import minio as minio_fixture
from fixtures.examples import EXAMPLES, answers, cloud_event, load, post_event, sample, served
from fixtures.process import free_port, wait_until
from integration.examples.conftest import query
from PIL import Image


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[minio_fixture.MinioServer]:
    """A MinIO with both buckets, and the environment that thumbnail's manifest gives."""
    with minio_fixture.minio_server(tmp_path, f"http://127.0.0.1:{free_port()}/", "unused") as running:
        health = f"{running.endpoint}/minio/health/cluster"
        wait_until(
            lambda: answers(health), "MinIO has not loaded its users"
        )  # until then it sends clients away for a minute
        for bucket in ("photos", "photos-small"):
            running.client().make_bucket(bucket)
        monkeypatch.setenv("S3_ENDPOINT", running.endpoint)
        monkeypatch.setenv("S3_ACCESS_KEY", minio_fixture.USER)
        monkeypatch.setenv("S3_SECRET_KEY", minio_fixture.PASSWORD)
        monkeypatch.setenv("THUMBNAIL_BUCKET", "photos-small")
        yield running


def test_thumbnail_of_an_uploaded_photo(store: minio_fixture.MinioServer) -> None:
    """The sample's photo gets a thumbnail under its own name in the second bucket, the same one when the event comes again."""
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((1200, 800)).save(photo, "JPEG")
    client = store.client()
    client.put_object("photos", "in/summer day.jpg", io.BytesIO(photo.getvalue()), len(photo.getvalue()))
    event = sample("thumbnail/events/object-created.json")

    with served("thumbnail", EXAMPLES / "thumbnail", store.directory / "function.log") as url:
        assert post_event(url, event)[0] == 200
    first = client.stat_object("photos-small", "in/summer day.jpg")
    with client.get_object("photos-small", "in/summer day.jpg") as answer:
        assert Image.open(io.BytesIO(answer.read())).size == (256, 171)
    load("thumbnail").handler(cloud_event("thumbnail/events/object-created.json"))
    assert client.stat_object("photos-small", "in/summer day.jpg").etag == first.etag


def test_thumbnail_of_a_photo_that_is_gone(store: minio_fixture.MinioServer) -> None:
    """An object that was deleted before its event came is no error and leaves nothing."""
    assert load("thumbnail").handler(cloud_event("thumbnail/events/object-created.json")) is None
    assert list(store.client().list_objects("photos-small")) == []


def test_orders_history(shop: str, tmp_path: Path) -> None:
    """Each change is one row of the history, with old and new values, however often its event comes."""
    with served("orders", EXAMPLES / "orders", tmp_path / "function.log") as url:
        for event in ("insert", "update", "update", "delete", "insert"):
            assert post_event(url, sample(f"orders/events/{event}.json"))[0] == 204
    history = query(shop, "SELECT op, order_id, old ->> 'status', new ->> 'status' FROM order_history ORDER BY id")
    assert history == [("insert", 1001, None, "new"), ("update", 1001, "new", "paid"), ("delete", 1001, "paid", None)]


def test_orders_truncate_ends_what_there_was(shop: str) -> None:
    """A TRUNCATE ends the history of every order that is left, once, also when it comes again after a newer order; a gap ends none."""
    app = load("orders")
    insert, truncate = sample("orders/events/insert.json"), sample("orders/events/truncate.json")
    deleted = sample("orders/events/delete.json")

    def order(number: int, event: dict[str, Any], event_id: str) -> CloudEvent:
        attributes = {name: event[name] for name in ("specversion", "source", "type")}
        return CloudEvent(attributes | {"id": event_id}, event["data"] | {"key": {"id": number}})

    prefix = insert["id"][:-8]
    later = truncate["id"].replace("1952f", "19530")
    for event in (
        order(1, insert, f"{prefix}00000002"),
        order(2, insert, f"{prefix}00000004"),
        order(2, deleted, f"{prefix}00000006"),
        cloud_event("orders/events/truncate.json"),
        order(3, insert, later),
        cloud_event("orders/events/truncate.json"),
        cloud_event("orders/events/gap.json"),
    ):
        app.handler(event)
    history = query(shop, "SELECT op, order_id, old ->> 'status', new ->> 'status' FROM order_history ORDER BY id")
    assert history[3:] == [("truncate", 1, "new", None), ("insert", 3, None, "new")]


def test_orders_handler_reconnects(shop: str) -> None:
    """A connection that the database cut fails one event and not the next attempt."""
    app = load("orders")
    app.handler(cloud_event("orders/events/insert.json"))
    query(
        shop,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop' AND pid <> pg_backend_pid()",
    )
    with pytest.raises(psycopg2.Error):
        app.handler(cloud_event("orders/events/update.json"))
    app.handler(cloud_event("orders/events/update.json"))
    assert query(shop, "SELECT count(*) FROM order_history") == [(2,)]


def test_orders_database_suits_the_reader(shop: str) -> None:
    """The example's user may do what the reader does, and a change of its table comes out of a replication slot with the old row."""
    query(shop, "CREATE PUBLICATION test FOR TABLE orders")
    query(shop, "SELECT pg_create_logical_replication_slot('test', 'pgoutput')")
    query(shop, "INSERT INTO orders VALUES (1001, 'Ada', 129.90)")
    query(shop, "UPDATE orders SET status = 'paid'")
    changes = query(
        shop,
        "SELECT chr(get_byte(data, 0)), chr(get_byte(data, 5)) FROM pg_logical_slot_get_binary_changes("
        "'test', NULL, NULL, 'proto_version', '1', 'publication_names', 'test') WHERE get_byte(data, 0) IN (73, 85)",
    )
    assert changes == [("I", "N"), ("U", "O")]  # insert: new row; update: first the whole old one
