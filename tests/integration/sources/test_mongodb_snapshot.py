"""Documents that collections of MongoDB had before they were followed: consistent with the changes that follow, once, for those who asked."""

import base64
import random
import threading
from datetime import UTC, datetime
from typing import Any

import bson
from bson import ObjectId
from fixtures.mongo_shop import MongoShop
from fixtures.process import wait_until
from fixtures.rows import applied, applied_loosely, data, rows
from fixtures.shop import ALL
from wisp_events.sources.mongodb_position import Position
from wisp_events.sources.row_fill import ROWS

ORDERS, OTHERS = "shop.orders", "shop.others"


def fill(mongo: MongoShop, count: int) -> None:
    """A collection with so many documents, which keeps images."""
    mongo.server.images.add(ORDERS)
    mongo.server.insert(ORDERS, *({"_id": number, "n": 0} for number in range(count)))


def table(mongo: MongoShop) -> dict[Any, int]:
    """The collection as it is."""
    return {key: document["n"] for key, document in mongo.server.data[ORDERS].items()}


def kept(mongo: MongoShop) -> Position:
    """What the reader keeps of the orders; without anything before it began."""
    positions = mongo.positions()
    return (positions.collections if positions else {}).get(ORDERS, Position(epoch=0, token=""))


def given(mongo: MongoShop) -> list[str]:
    """Who has the orders, as the reader remembers it."""
    return kept(mongo).given.snapshots.get(ORDERS, [])


def stop_in_the_middle(mongo: MongoShop) -> int:
    """Have the orders written for a Subscription, of 3000 two pages, and wait until the reader remembers these; returns how many they are."""
    written = ROWS[1] + ROWS[2]
    mongo.server.pages = 2
    mongo.wish((ORDERS, ALL), rows={ORDERS: ["uid-1"]})

    def remembered() -> bool:
        part = kept(mongo).part
        return part is not None and bson.decode(base64.b64decode(part.after)) == {"_id": written - 1}

    wait_until(remembered, "the part is not remembered")
    return written


class Writer:
    """Somebody who changes documents meanwhile."""

    def __init__(self, mongo: MongoShop, keys: int) -> None:
        """Begin."""
        self._mongo = mongo
        self._keys = keys
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        chance, server = random.Random(1), self._mongo.server
        while not self._stop.wait(0.005):
            key = chance.randrange(2 * self._keys)
            known = server.data[ORDERS].get(key)
            if known is None:
                server.insert(ORDERS, {"_id": key, "n": 0})
            elif chance.random() < 0.3:
                server.delete(ORDERS, key)
            else:
                server.update(ORDERS, key, {"n": known["n"] + 1})

    def stop(self) -> dict[Any, int]:
        """End; returns the collection then."""
        self._stop.set()
        self._thread.join()
        return table(self._mongo)


def test_events_make_the_collection_whoever_writes_to_it_meanwhile(mongo: MongoShop) -> None:
    """The documents stand behind every change that they contain and before every other: applied one by one they make it, and none contradicts."""
    fill(mongo, 3000)
    mongo.server.insert(OTHERS, {"_id": 1})
    mongo.wish((ORDERS, ALL), (OTHERS, ALL))
    mongo.wait_ready()
    writer = Writer(mongo, 3000)
    try:
        wait_until(lambda: len(mongo.events()) > 50, "changes")
        mongo.wish((ORDERS, ALL), (OTHERS, ALL), rows={ORDERS: ["uid-1"]})
        wait_until(lambda: len(rows(mongo)) >= 2000, "documents")
        before = len(mongo.events())
        wait_until(lambda: len(mongo.events()) > before + 50, "changes after them")
    finally:
        made = writer.stop()
    wait_until(lambda: applied(mongo.events()) == made, "the events make the collection")
    assert {event.subject for event in rows(mongo)} == {ORDERS}, "nobody asked for the other collection"
    of_one: dict[str | None, list[str]] = {}
    for event in mongo.events():
        of_one.setdefault(event.partitionkey, []).append(event.sequence or "")
    assert all(sequences == sorted(sequences) for sequences in of_one.values()), "a document's sequences go back"


def test_who_dies_in_the_middle_goes_on_behind_what_the_log_has(mongo: MongoShop) -> None:
    """No document comes twice, what changed meanwhile comes as a change, and it is done once; who comes later has its own."""
    fill(mongo, 3000)
    done = stop_in_the_middle(mongo)
    assert mongo.reader
    mongo.reader.kill()
    for key in (0, 2999):
        mongo.server.update(ORDERS, key, {"n": 1})
    mongo.server.delete(ORDERS, done - 1)
    mongo.server.release()
    mongo.reader.start()
    wait_until(lambda: given(mongo) == ["uid-1"], "it is not remembered")
    assert kept(mongo).part is None, "what is done has no part"
    wait_until(lambda: applied_loosely(mongo.events()) == table(mongo), "the events make the collection")
    keys = [event.partitionkey for event in rows(mongo)]
    assert len(keys) == len(set(keys)) == 3000
    mongo.wish((ORDERS, ALL), rows={ORDERS: ["uid-1", "uid-2"]})
    wait_until(lambda: given(mongo) == ["uid-1", "uid-2"], "who came later has them")
    assert len(rows(mongo)) == 3000 + 2999


def test_a_log_that_goes_away_in_the_middle_gets_each_document_once(mongo: MongoShop) -> None:
    """What was on its way is stored when the log is back, none twice, and what changed meanwhile comes behind."""
    fill(mongo, 3000)
    stop_in_the_middle(mongo)
    mongo.plane.server.kill()
    for key in (0, 2999):
        mongo.server.update(ORDERS, key, {"n": 1})
    mongo.server.release()
    mongo.wait_log_trouble()
    mongo.plane.server.start()
    wait_until(lambda: given(mongo) == ["uid-1"], "it is not remembered")
    wait_until(lambda: applied(mongo.events()) == table(mongo), "the events make the collection")
    assert len({event.partitionkey for event in rows(mongo)}) == len(rows(mongo)) == 3000


def test_a_moment_that_the_server_forgot_is_followed_by_a_later_one(mongo: MongoShop) -> None:
    """The rest of the documents come as of then, behind the changes of meanwhile, and none twice."""
    fill(mongo, 3000)
    done = stop_in_the_middle(mongo)
    mongo.server.update(ORDERS, 2999, {"n": 1})
    mongo.server.update(ORDERS, 0, {"n": 1})
    mongo.server.forget_snapshots()
    mongo.server.release()
    mongo.wait_status(
        lambda status: "rows of shop.orders are still to come: Read timestamp" in status.message, "untold"
    )
    wait_until(lambda: given(mongo) == ["uid-1"], "it is not remembered")
    assert len({event.id for event in rows(mongo)}) == len(rows(mongo)) == 3000
    assert [event.type.rpartition(".")[2] for event in mongo.events()[done : done + 2]] == ["update", "update"]
    assert applied_loosely(mongo.events()) == table(mongo)


def test_documents_look_as_their_changes_do(mongo: MongoShop) -> None:
    """Key and values of whatever type, `_id`s of types that MongoDB orders and does not compare; one for each who asked."""
    mongo.server.images.add(ORDERS)
    moment = datetime(2024, 2, 29, 12, 30, 15, 123000, tzinfo=UTC)
    keys = [
        *range(-4, 0),
        *range(2, 10),
        7.5,
        1e300,
        "",
        "7",
        "ø",
        ObjectId(b"a" * 12),
        ObjectId(b"b" * 12),
        False,
        True,
        moment,
    ]
    documents = [{"_id": key, "of": {"a": [key, None]}, "n": number} for number, key in enumerate(keys)]
    mongo.server.insert(ORDERS, *documents)
    mongo.wish((ORDERS, ALL), rows={ORDERS: ["uid-1", "uid-2"]})
    wait_until(lambda: given(mongo) == ["uid-1", "uid-2"], "it is not remembered")
    told = rows(mongo)
    assert len(told) == len({event.id for event in told}) == 2 * len(keys)
    for key in keys:
        mongo.server.update(ORDERS, key, {"n": 0})
    changes = mongo.wait_events(3 * len(keys))[-len(keys) :]
    for change in changes:
        shown = [data(row) for row in told if row.partitionkey == change.partitionkey]
        assert shown == [{"op": "snapshot", "key": data(change)["key"], "old": None, "new": data(change)["old"]}] * 2


def test_what_is_in_the_way_holds_up_documents_and_nothing_else(mongo: MongoShop) -> None:
    """A missing right is told of; changes and the other collection's documents are carried on, and a collection that is not there has none."""
    fill(mongo, 3)
    mongo.server.insert(OTHERS, {"_id": 7})
    mongo.server.unreadable.add(OTHERS)
    names = (ORDERS, OTHERS, "shop.none")
    mongo.wish(*((name, ALL) for name in names), rows={name: ["uid-1"] for name in names})
    mongo.wait_status(
        lambda status: f"the rows of {OTHERS} are still to come: not authorized" in status.message, "nobody is told"
    )
    mongo.server.insert(OTHERS, {"_id": 8})
    wait_until(lambda: len(mongo.events()) == 4, "the others' documents, and a change")
    mongo.server.unreadable.clear()
    wait_until(lambda: len(rows(mongo)) == 5, "the documents that can be read now")


def test_what_may_have_been_missed_is_followed_by_documents_anew(mongo: MongoShop) -> None:
    """Behind a gap, and when another collection took the name: under other ids, for who asked for them."""
    fill(mongo, 2)
    mongo.wish((ORDERS, ALL), rows={ORDERS: ["uid-1"]})
    wait_until(lambda: given(mongo) == ["uid-1"], "it is not remembered")
    assert mongo.reader
    mongo.reader.kill()
    mongo.server.insert(ORDERS, {"_id": 2, "n": 5})
    mongo.server.forget()
    mongo.reader.start()
    wait_until(lambda: len(rows(mongo)) == 5, "the documents behind the gap")
    mongo.server.insert("shop.temporary", {"_id": 9, "n": 9})
    wait_until(lambda: given(mongo) == ["uid-1"], "it is not remembered")
    mongo.server.rename("shop.temporary", ORDERS)  # as $out does
    wait_until(lambda: len(rows(mongo)) == 6, "the documents of the other collection")
    assert [event.type.rpartition(".")[2] for event in mongo.events()] == [
        "snapshot", "snapshot", "gap", "snapshot", "snapshot", "snapshot", "gap", "snapshot",
    ]  # fmt: skip
    assert len({event.id for event in rows(mongo)}) == 6
    assert data(rows(mongo)[-1])["new"] == {"_id": 9, "n": 9}
