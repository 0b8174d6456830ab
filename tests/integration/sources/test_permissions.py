"""Reader and ingest do all of their work with the rights that the operator mints for them."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from fixtures.bucket_reader import media_on, rule
from fixtures.dataplane import DataPlane, Part, data_plane
from fixtures.minio import minio_server
from fixtures.nats import nats_server
from fixtures.postgres import Postgres
from fixtures.process import free_port, wait_until
from fixtures.shop import ALL, shop_on
from fixtures.webhook import Webhook, notification
from nats.aio.client import RawCredentials
from wisp_api import names
from wisp_operator import nats_auth
from wisp_operator.accounts import Accounts


@pytest.fixture(scope="module")
def seeds() -> dict[str, str]:
    """The keys of an installation."""
    return {name: nats_auth.new_seed(prefix) for name, prefix in nats_auth.SEEDS.items()}


@pytest.fixture
def guarded(seeds: dict[str, str], tmp_path: Path) -> Iterator[DataPlane]:
    """A nats-server that checks them."""
    operator = nats_auth.operator_user()
    path = tmp_path / "operator.creds"
    path.write_text(nats_auth.make_credentials(seeds[nats_auth.ACCOUNT], operator))
    with (
        nats_server(tmp_path, nats_auth.make_server_config(seeds)) as server,
        data_plane(server, tmp_path, user_credentials=str(path), inbox_prefix=operator.inbox.encode()) as plane,
    ):
        yield plane


def environment(seed: str, user: nats_auth.User, directory: Path) -> dict[str, str]:
    """What a part with the credentials of this user of the account gets."""
    path = directory / f"{user.name}.creds"
    path.write_text(nats_auth.make_credentials(seed, user))
    return {"WISP_NATS_CREDS": str(path), "WISP_NATS_INBOX": user.inbox}


async def admit(url: str, seeds: dict[str, str], namespace: str) -> str:
    """Make a namespace's account as the operator does; its seed."""
    user = nats_auth.accounts_user()
    credentials = RawCredentials(nats_auth.make_credentials(seeds[nats_auth.SYSTEM], user))
    client = await nats.connect(url, user_credentials=credentials, inbox_prefix=user.inbox.encode())
    try:
        return await Accounts(client, seeds).ensure(namespace)
    finally:
        await client.close()


def test_the_postgres_reader(
    guarded: DataPlane,
    seeds: dict[str, str],
    database_server: Postgres,
    tmp_path: Path,
) -> None:
    """It reads its config, reports, writes and resumes its stream, writes dead letters, and remembers whom it gave rows."""
    stream = names.stream("shop", "postgres", "shop-db")
    user = nats_auth.reader_user("shop", "postgres", "shop-db", stream)
    seed = asyncio.run(admit(guarded.server.url, seeds, "shop"))
    with shop_on(guarded, database_server, tmp_path, **environment(seed, user, tmp_path)) as shop:
        shop.sql("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        shop.wish(("public.orders", ALL))
        shop.wait_ready()
        shop.sql("INSERT INTO orders VALUES (1, repeat('x', 7000000))")
        shop.sql("INSERT INTO orders VALUES (2, 'small')")
        shop.wait_events(1)
        assert [letter.reason for letter in guarded.dead_letters()] == ["EventTooLarge"]
        assert shop.reader
        shop.reader.kill()
        shop.reader.start()
        shop.reader.wait_ready()
        shop.sql("UPDATE orders SET note = 'x' WHERE id = 2")
        assert len(shop.wait_events(2)) == 2
        shop.wish(("public.orders", ALL), rows={"public.orders": ["uid-1"]})
        assert shop.wait_events(3)[2].type == "dev.wisp.postgres.snapshot"
        shop.wait_status(lambda status: status.ready and not status.message, "who has the rows is not remembered")


def test_the_bucket_reader(guarded: DataPlane, seeds: dict[str, str], tmp_path: Path) -> None:
    """It sees how far a route is, writes a listing for it, and remembers that it did; the events of uploads it may not write."""
    user = nats_auth.reader_user("media", "s3", "my-s3", None)
    seed = asyncio.run(admit(guarded.server.url, seeds, "media"))
    stream, subject = "events_media_s3_minio_photos", names.listing_subject("media", "minio", "photos", "uid-1")
    guarded.add_stream(stream, [names.stream_subjects("media", "s3", "minio_photos")])
    guarded.put(names.KV_CURSORS, "media.uid-1", {"floor": 1, "started": 0})
    guarded.publish(subject, b"[]")
    with (
        minio_server(tmp_path / "minio", f"http://127.0.0.1:{free_port()}/", "token") as store,
        media_on(guarded, store, tmp_path, **environment(seed, user, tmp_path)) as media,
    ):
        store.client().make_bucket("photos")
        store.client().put_object("photos", "a.jpg", io.BytesIO(b"abc"), 3)
        asking = rule("a")
        asking.listing = "uid-1"
        media.wish(asking)
        media.wait_status(lambda status: status.ready and not status.items["photos"].message, "nothing is listed")
        wait_until(lambda: len(guarded.records(stream)) == 2, "the listing is not in the log")
        position = f"$KV.{names.KV_STATUS}.{names.position_key('media', 's3', 'my-s3')}"
        wait_until(lambda: position in dict(guarded.records(f"KV_{names.KV_STATUS}")), "it is not remembered")
    assert [(at, bool(data)) for at, data in guarded.records(stream)] == [(subject, True)] * 2
    assert not any(one.startswith("wisp.events.") and "_snapshot" not in one for one in user.publish or [])


def test_the_ingest(guarded: DataPlane, seeds: dict[str, str], tmp_path: Path) -> None:
    """It reads bindings, writes any namespace's object events, and dead letters."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "minio").write_text("token-of-minio")
    port = free_port()
    own = {"WISP_INGEST_PORT": str(port), "WISP_INGEST_TOKENS": str(tokens)}
    ingest = Part("ingest", guarded, own | environment(seeds[nats_auth.ACCOUNT], nats_auth.ingest_user(), tmp_path))
    webhook = Webhook(guarded, ingest, port, tokens)
    ingest.start()
    try:
        ingest.wait_ready()
        webhook.add_stream("media", "my.photos")
        webhook.bind("my.photos", "media")
        assert webhook.post(notification("my.photos", "a")) == 200
        malformed = {"Records": [{"s3": {"bucket": {"name": "my.photos"}, "object": {}}}]}
        assert webhook.post(malformed) == 200
        assert webhook.post(b"no json") == 200
    finally:
        ingest.stop()
    assert [event.subject for event in webhook.events("media", "my.photos")] == ["a"]
    assert [letter.namespace for letter in guarded.dead_letters()] == ["media", "wisp-system"]
