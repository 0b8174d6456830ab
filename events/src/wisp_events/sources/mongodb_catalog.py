"""What a MongoDB reader asks of the deployment: whether it has change streams, and which collections keep images. It alters nothing."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wisp_api import conditions
from wisp_api.source import ItemStatus, MongodbConfig

from wisp_events.sources.mongodb_session import Client, explained
from wisp_events.sources.reader import Trouble

_WIRE_VERSION: Final = 17
"""Of MongoDB 6.0, the first that keeps documents as they were before and after a change."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What the reader does with a collection's changes."""

    operations: frozenset[str]
    """Those that some Subscription wants; a drop counts as delete."""
    images: bool
    """The server keeps documents as they were before and after each change."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What streaming needs to know."""

    collections: dict[str, Followed]
    """Those that are followed, by `database.collection`."""
    items: dict[str, ItemStatus]
    """Every collection of the config."""
    absent: tuple[str, ...]
    """Those that are followed and not there: a collection comes into being with its first document."""


async def prepare(client: Client, config: MongodbConfig) -> Prepared:
    """Check the deployment and the collections.

    Raises:
        Trouble: nothing can be followed now.
    """
    wanted = defaultdict(list)
    for table in config.tables:
        database, _, collection = table.name.partition(".")
        wanted[database].append(collection)
    found: dict[str, Mapping[str, Any]] = {}
    with explained():
        _check(await client.admin.command("hello"))
        for database, collections in wanted.items():
            async for one in await client[database].list_collections(filter={"name": {"$in": collections}}):
                found[f"{database}.{one['name']}"] = one
    return _prepared(config, found)


def _check(hello: Mapping[str, Any]) -> None:
    """Raises: Trouble: there are no change streams here."""
    replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
    if not replicated or hello.get("maxWireVersion", 0) < _WIRE_VERSION:
        have = "is older than 6.0" if replicated else "is no member of a replica set, and has no change streams"
        raise Trouble(
            conditions.CHANGE_STREAMS_OFF,
            f"the server {have}; MongoDB 6.0 or newer as a replica set or sharded cluster is needed; one server can be a replica set, too",
        )


def _prepared(config: MongodbConfig, found: Mapping[str, Mapping[str, Any]]) -> Prepared:
    followed, items, absent = {}, {}, []
    for table in config.tables:
        one = found.get(table.name)
        if one is not None and one["type"] != "collection":
            message = f"{table.name} is a {one['type']}; only a collection has changes"
            items[table.name] = ItemStatus(ready=False, reason=conditions.TABLE_NOT_FOUND, message=message)
            continue
        if one is None:
            absent.append(table.name)
        images = (one or {}).get("options", {}).get("changeStreamPreAndPostImages", {}).get("enabled", False)
        followed[table.name] = Followed(frozenset(table.operations), bool(images))
        items[table.name] = ItemStatus(ready=True, operations=sorted(table.operations))
    return Prepared(followed, items, tuple(absent))
