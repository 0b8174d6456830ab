"""The reader, MongoDB and the log are killed while documents change, or take something away: nothing is lost, doubled or silent."""

import ipaddress
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fixtures.dataplane import DataPlane
from fixtures.mongo_shop import MongoShop, data, mongo_shop_on
from fixtures.mongod import mongod
from fixtures.process import wait_until
from fixtures.shop import ALL
from wisp_api import conditions, names
from wisp_api.cloudevent import Event
from wisp_events.sources.mongodb_position import Positions

ORDERS = "shop.orders"
ROWS = 10
CHANGES = 200


def follow(mongo: MongoShop) -> MongoShop:
    """Have a collection with some documents followed, and wait until they are in the log."""
    mongo.server.images.add(ORDERS)
    mongo.wish((ORDERS, ALL))
    mongo.wait_ready()
    mongo.server.insert(ORDERS, *({"_id": number, "version": 0} for number in range(ROWS)))
    mongo.wait_events(ROWS)
    return mongo


def change_documents(mongo: MongoShop, disturb: Callable[[], None]) -> None:
    """Change documents round and round while something goes wrong."""
    disturbing = threading.Thread(target=disturb)
    for number in range(CHANGES):
        if number == CHANGES // 3:
            disturbing.start()
        mongo.server.update(ORDERS, number % ROWS, {"version": number + 1})
    disturbing.join()


def check(events: list[Event]) -> None:
    """Every change is there once, and each document's in their order."""
    assert len({event.id for event in events}) == len(events), "an event stands twice in the log"
    versions = defaultdict(list)
    for event in events:
        versions[data(event)["new"]["_id"]].append(data(event)["new"]["version"])
    assert versions == {row: [0, *range(row + 1, CHANGES + 1, ROWS)] for row in range(ROWS)}


def test_the_reader_is_killed_while_documents_change(mongo: MongoShop) -> None:
    """SIGKILL in the middle, and a start anew: the log holds each change once, in order."""
    follow(mongo)

    def kill() -> None:
        assert mongo.reader
        mongo.reader.kill()
        mongo.reader.start()

    change_documents(mongo, kill)
    check(mongo.wait_events(ROWS + CHANGES))


def test_nats_and_the_database_are_killed_while_documents_change(mongo: MongoShop) -> None:
    """Each dies and comes back: the changes made meanwhile wait in the oplog, none is lost or doubled."""
    follow(mongo)

    def kill() -> None:
        mongo.plane.server.kill()
        mongo.wait_log_trouble()
        wait_until(lambda: mongo.behind() > 0, "the metric does not tell")
        mongo.plane.server.start()
        mongo.server.kill()
        mongo.wait_status(lambda status: status.reason == conditions.SERVER_UNREACHABLE, "nobody notices")
        mongo.server.start()

    change_documents(mongo, kill)
    check(mongo.wait_events(ROWS + CHANGES))
    wait_until(lambda: mongo.behind() == 0, "the metric stays")


def test_what_the_oplog_forgot_is_a_gap(mongo: MongoShop) -> None:
    """Changes that the server does not have any more are told of, before what comes after them."""
    follow(mongo)
    before = mongo.positions()
    assert mongo.reader
    mongo.reader.kill()
    mongo.server.insert(ORDERS, {"_id": 100})
    mongo.server.forget()
    mongo.start()
    status = mongo.wait_status(lambda status: status.ready and "missing" in status.message, "nobody is told")
    assert "oplog" in status.message
    mongo.server.insert(ORDERS, {"_id": 101})
    gap, insert = mongo.wait_sorted(ROWS + 2)[-2:]
    assert (data(gap)["op"], gap.partitionkey) == ("gap", None)
    assert data(insert)["new"]["_id"] == 101
    after = mongo.positions()
    assert before
    assert after
    assert after.collections[ORDERS].epoch > before.collections[ORDERS].epoch


def test_what_the_oplog_may_drop_unread_is_warned_of(mongo: MongoShop) -> None:
    """While the log takes nothing, the oplog's other end comes near: beside the trouble stands a warning, until it is stored; who may not look is silent."""
    mongo.server.oplog_bytes = (99, 100)
    mongo.server.denied.add("local.oplog.rs")
    follow(mongo)
    reader = mongo.reader
    assert reader
    mongo.plane.server.kill()
    mongo.server.update(ORDERS, 1, {"version": 1})
    mongo.wait_log_trouble()
    mongo.server.write_elsewhere(10_000)
    assert "replSetResizeOplog" not in mongo.log()
    mongo.server.denied.clear()
    wait_until(lambda: "replSetResizeOplog" in mongo.log(), "no warning")
    wait_until(
        lambda: metric(reader.fetch("/metrics"), "wisp_reader_oplog_kept_seconds") >= 9_999, "the metric is wrong"
    )
    assert metric(reader.fetch("/metrics"), "wisp_reader_oplog_left_seconds") < 2_500
    mongo.plane.server.start()
    mongo.wait_events(ROWS + 1)
    mongo.wait_status(lambda status: status.ready and not status.reason and not status.message, "the warning stays")


def test_a_collection_that_may_not_be_read_is_warned_of(mongo: MongoShop) -> None:
    """Beside its own trouble, all that its Subscriptions are told; when the server is away nobody knows, and no alert fires."""
    mongo.server.oplog_bytes = (99, 100)
    follow(mongo)
    assert mongo.reader
    mongo.reader.kill()
    mongo.server.denied.add(ORDERS)
    mongo.server.write_elsewhere(10_000)
    reader = mongo.start()
    mongo.wait_status(
        lambda status: ORDERS in status.items and "replSetResizeOplog" in status.items[ORDERS].message, "no warning"
    )
    mongo.server.kill()
    wait_until(lambda: "wisp_reader_oplog_left_seconds NaN" in reader.fetch("/metrics"), "the metric stays")


def metric(metrics: str, name: str) -> float:
    """A gauge."""
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0


def test_a_lost_position_is_a_gap(mongo: MongoShop) -> None:
    """Without its key the reader can't know what it has not seen: it says so, and goes on from now."""
    follow(mongo)
    assert mongo.reader
    mongo.reader.kill()
    key = names.position_key(mongo.namespace, mongo.kind, mongo.connection)
    mongo.plane.publish(f"$KV.{names.KV_STATUS}.{key}", b"")
    mongo.start()
    mongo.wait_events(ROWS + 1)
    mongo.server.insert(ORDERS, {"_id": 100})
    gap, insert = mongo.wait_sorted(ROWS + 2)[-2:]
    assert (data(gap)["op"], data(insert)["new"]["_id"]) == ("gap", 100)


def test_an_idle_collection_outlives_the_oplog(mongo: MongoShop) -> None:
    """The server says how far it has looked, so what is long over for others is no gap for one in which nothing changed."""
    follow(mongo)
    first = mongo.positions()
    assert first
    mongo.server.insert("shop.others", {"_id": 1})

    def moved() -> bool:
        now = mongo.positions()
        assert now
        return now.collections[ORDERS].token > str(mongo.server.oplog[-1]["token"])

    mongo.wait_status(lambda _: moved(), "the token stays where it was")


def test_poison_passes(mongo: MongoShop) -> None:
    """What is too large for the log, and what is too large for the server itself, are dead letters; what follows is delivered."""
    follow(mongo)
    mongo.server.event_bytes = 8_000_000
    mongo.server.insert(ORDERS, {"_id": 100, "body": "x" * 7_000_000})
    mongo.server.insert(ORDERS, {"_id": 101})
    mongo.server.insert(ORDERS, {"_id": 102, "body": "x" * 9_000_000})
    mongo.server.insert(ORDERS, {"_id": 103})
    events = mongo.wait_events(ROWS + 2)[-2:]
    assert sorted(data(event)["key"]["_id"] for event in events) == [101, 103]
    letters = mongo.plane.dead_letters()
    assert [(letter.reason, letter.source) for letter in letters] == [("EventTooLarge", "mongodb/shop-db")] * 2
    assert ["log takes" in letters[0].message, "16 MiB" in letters[1].message] == [True, True]


def test_huge_ids_pass(mongo: MongoShop) -> None:
    """One that fits no letter whole is a dead letter without it, one that the server can't tell at all is a gap; what follows is delivered."""
    follow(mongo)
    mongo.server.insert(ORDERS, {"_id": "x" * 5_000_000})
    mongo.server.insert(ORDERS, {"_id": 101})
    assert data(mongo.wait_sorted(ROWS + 1)[-1])["key"] == {"_id": 101}
    [letter] = mongo.plane.dead_letters()
    assert (letter.reason, len(bytes(letter.event or b"")) < 10_000) == ("EventTooLarge", True)
    mongo.server.event_bytes = 8_000_000
    mongo.server.insert(ORDERS, {"_id": "x" * 9_000_000})
    gap = mongo.wait_sorted(ROWS + 2)[-1]
    assert "a change whose _id alone is too large" in data(gap)["message"]
    mongo.server.insert(ORDERS, {"_id": 102})
    assert data(mongo.wait_sorted(ROWS + 3)[-1])["key"] == {"_id": 102}


def test_what_is_wrong_is_a_condition_until_it_is_put_right(mongo: MongoShop) -> None:
    """A wrong DSN, a server that is away, a wrong password, a missing right and a lone server each have their reason and cure, and heal by themselves."""
    server, here = mongo.server, f"127.0.0.1:{mongo.server.port}"
    server.password, server.replicated = "p", False
    mongo.write_dsn("postgres://secret-word@what")
    mongo.wish((ORDERS, ALL))

    def wait_reason(reason: str) -> str:
        status = mongo.wait_status(lambda status: status.reason == reason, f"it is not {reason}")
        assert not status.ready
        return status.message

    assert "mongodb://" in wait_reason(conditions.INVALID_CONNECTION)
    mongo.write_dsn("mongodb://u:secret-word@127.0.0.1:1")
    assert "127.0.0.1:1" in wait_reason(conditions.SERVER_UNREACHABLE)
    mongo.write_dsn(f"mongodb://u:secret-word@{here}")
    assert "authSource" in wait_reason(conditions.AUTHENTICATION_FAILED)
    mongo.write_dsn(f"mongodb://{here}")
    server.password = ""
    assert "replica set" in wait_reason(conditions.CHANGE_STREAMS_OFF)
    server.password, server.replicated = "p", True
    assert "grantRolesToUser" in wait_reason(conditions.PERMISSION_DENIED)
    server.password = ""
    mongo.wait_ready()
    assert "secret-word" not in mongo.log()


def test_a_private_authority_is_trusted_when_it_is_given(plane: DataPlane, tmp_path: Path) -> None:
    """TLS with the certificate of the Secret's ca.crt; without it the server is not believed."""
    tls, authority = certificate(tmp_path)
    with mongod(tls=tls) as server, mongo_shop_on(plane, server, tmp_path) as mongo:
        mongo.write_dsn(server.dsn(options="tls=true"))
        mongo.wish((ORDERS, ALL))
        status = mongo.wait_status(lambda status: status.reason == conditions.SERVER_UNREACHABLE, "it is believed")
        assert "certificate" in status.message
        (mongo.secret / "ca.crt").write_text(authority)
        mongo.wait_ready()


def certificate(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server's side of TLS for loopback, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mongod")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = directory / "server.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, plain) + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, pem.decode()


def test_a_drained_reader_says_so(mongo: MongoShop) -> None:
    """With the last Subscription gone there is nothing at the server to take away."""
    follow(mongo)
    mongo.wish(draining=True)
    mongo.wait_status(lambda status: status.drained, "it is not drained")


def test_a_position_that_another_reader_wrote_is_gone_on_from(mongo: MongoShop) -> None:
    """One that was cut off doesn't write its own over it, with an epoch in which changes would count as told."""
    follow(mongo)
    before = mongo.positions()
    assert before
    at = before.collections[ORDERS]
    other = msgspec.structs.replace(at, epoch=at.epoch + 100)
    key = names.position_key(mongo.namespace, mongo.kind, mongo.connection)
    mongo.plane.put(names.KV_STATUS, key, Positions(collections={ORDERS: other}))
    mongo.server.insert(ORDERS, {"_id": 100})

    def kept() -> bool:
        now = mongo.positions()
        assert now
        assert now.collections[ORDERS].epoch == other.epoch
        return now.collections[ORDERS].token > other.token

    mongo.wait_status(lambda _: kept(), "the position stays where it was")
    assert 100 in {data(event)["new"]["_id"] for event in mongo.plane.events(mongo.stream)}
