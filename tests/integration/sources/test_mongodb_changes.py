"""Changes of documents, over MongoDB's wire protocol, through the reader process, in the log."""

from fixtures.mongo_shop import MongoShop, data
from fixtures.shop import ALL
from wisp_api import conditions

ORDERS = "shop.orders"


def follow(mongo: MongoShop, *operations: str) -> MongoShop:
    """Have the orders followed, with images."""
    mongo.server.images.add(ORDERS)
    mongo.wish((ORDERS, list(operations) or ALL))
    mongo.wait_ready()
    return mongo


def test_changes_reach_the_log_in_order(mongo: MongoShop) -> None:
    """Each change is one event with key, old and new document as they were at its time."""
    follow(mongo)
    mongo.server.insert(ORDERS, {"_id": 1, "total": 12.5, "note": "first"})
    mongo.server.update(ORDERS, 1, {"total": 13}, "note")
    mongo.server.replace(ORDERS, {"_id": 1, "total": 14})
    mongo.server.delete(ORDERS, 1)
    first, changed, put = {"_id": 1, "total": 12.5, "note": "first"}, {"_id": 1, "total": 13}, {"_id": 1, "total": 14}
    key = {"_id": 1}
    assert mongo.told(4) == [
        {"op": "insert", "key": key, "old": None, "new": first},
        {
            "op": "update", "key": key, "old": first, "new": changed,
            "changed": {"set": {"total": 13}, "unset": ["note"]},
        },
        {"op": "update", "key": key, "old": changed, "new": put},
        {"op": "delete", "key": key, "old": put, "new": None},
    ]  # fmt: skip
    event = mongo.wait_sorted(4)[1]
    assert (event.type, event.subject) == ("dev.wisp.mongodb.update", ORDERS)
    assert event.source == "urn:wisp:mongodb:shop:shop-db"
    assert event.partitionkey == "shop.orders:[1]"
    assert event.id == event.sequence


def test_without_images_the_document_is_looked_up(mongo: MongoShop) -> None:
    """Then `old` is not known, and `new` is the document of now, which the event says; what was changed is exact."""
    mongo.server.insert(ORDERS, {"_id": 1, "total": 1})
    mongo.wish((ORDERS, ALL))
    mongo.wait_ready()
    with mongo.server.transaction():
        mongo.server.update(ORDERS, 1, {"total": 2})
        mongo.server.update(ORDERS, 1, {"total": 3})
    assert [(one["old"], one["new"], one["changed"]["set"], one["lookedUp"]) for one in mongo.told(2)] == [
        (None, {"_id": 1, "total": 3}, {"total": 2}, True),
        (None, {"_id": 1, "total": 3}, {"total": 3}, True),
    ]


def test_a_transaction_is_told_in_its_order(mongo: MongoShop) -> None:
    """Its changes have one time; each has a place of its own."""
    follow(mongo)
    with mongo.server.transaction():
        for number in range(5):
            mongo.server.insert(ORDERS, {"_id": number})
        mongo.server.update(ORDERS, 0, {"done": True})
    assert [(one["op"], one["key"]["_id"]) for one in mongo.told(6)] == [
        *(("insert", n) for n in range(5)),
        ("update", 0),
    ]


def test_only_wanted_collections_and_operations_are_told(mongo: MongoShop) -> None:
    """One that is added later is followed from then on; the others go on where they were."""
    follow(mongo, "delete")
    mongo.server.insert("shop.carts", {"_id": 1})
    mongo.server.insert(ORDERS, {"_id": 1})
    mongo.server.delete(ORDERS, 1)
    mongo.wait_events(1)
    mongo.wish((ORDERS, ["delete"]), ("shop.carts", ALL))
    mongo.wait_ready()
    mongo.server.insert("shop.carts", {"_id": 2})
    events = {event.subject: data(event) for event in mongo.wait_events(2)}
    assert [(events[name]["op"], events[name]["key"]) for name in (ORDERS, "shop.carts")] == [
        ("delete", {"_id": 1}),
        ("insert", {"_id": 2}),
    ]
    assert len(mongo.events()) == 2


def test_a_dropped_collection_is_a_barrier_and_its_successor_is_followed(mongo: MongoShop) -> None:
    """A drop is told as TRUNCATE is, a rename as a gap; the server ends the stream both times, and the reader goes on behind."""
    follow(mongo)
    mongo.server.insert(ORDERS, {"_id": 1})
    mongo.server.drop(ORDERS)
    mongo.server.insert(ORDERS, {"_id": 2})
    mongo.wait_events(3)
    mongo.server.rename(ORDERS, "shop.archive")
    mongo.server.insert(ORDERS, {"_id": 3})
    told = mongo.told(5)
    assert [one["op"] for one in told] == ["insert", "truncate", "insert", "gap", "insert"]
    assert "renamed to shop.archive" in told[3]["message"]
    assert [event.partitionkey is None for event in mongo.wait_sorted(5)] == [False, True, False, True, False]


def test_a_collection_that_is_not_there_yet_is_followed(mongo: MongoShop) -> None:
    """It comes into being with its first document, which must not be missed; a mistyped name is seen in the message."""
    mongo.wish(("shop.carts", ALL))
    mongo.wait_ready()
    mongo.wait_status(lambda status: "no collection shop.carts yet" in status.message, "nobody is told")
    mongo.server.insert("shop.carts", {"_id": 1})
    assert mongo.told(1)[0]["new"] == {"_id": 1}


def test_a_view_and_a_forbidden_collection_are_their_own_trouble(mongo: MongoShop) -> None:
    """Others are followed meanwhile, and what was forbidden is, once it is allowed."""
    mongo.server.views.add("shop.totals")
    mongo.server.denied.add("shop.secrets")
    mongo.wish((ORDERS, ALL), ("shop.totals", ALL), ("shop.secrets", ALL))
    mongo.wait_item("shop.totals", conditions.TABLE_NOT_FOUND)
    item = mongo.wait_item("shop.secrets", conditions.PERMISSION_DENIED)
    assert "grantRolesToUser" in item.message
    mongo.server.insert(ORDERS, {"_id": 1})
    mongo.wait_events(1)
    mongo.server.denied.clear()
    mongo.wait_status(lambda status: status.items["shop.secrets"].ready, "nobody looks again")
    mongo.server.insert("shop.secrets", {"_id": 1})
    mongo.wait_events(2)
