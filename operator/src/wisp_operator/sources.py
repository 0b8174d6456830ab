"""Subscriptions compiled to what their sources need: a task for each reader, streams, and bindings of buckets.

Pure. What several Subscriptions share (a reader for each connection, a stream for each source) is always computed from all
of them, so that adding or removing one is a new compilation and nothing is counted up or down.
"""

import hashlib
import re
import sys
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import msgspec
from wisp_api import names
from wisp_api.source import (
    BucketBinding,
    BucketRule,
    Inbox,
    MongodbConfig,
    MysqlConfig,
    PostgresConfig,
    ReaderConfig,
    S3Config,
    S3Server,
    TableConfig,
)
from wisp_api.subscription import BUS, DESTINATION, FUNCTION, MONGODB, MYSQL, POSTGRES, S3, SCHEDULE, SubscriptionSpec

from wisp_operator.api import Object
from wisp_operator.apply import digest

_OPERATIONS: Final = ("insert", "update", "delete")
_SLOT_LENGTH: Final = 63
_POSTGRES_NAME_BYTES: Final = 63
_BYTES: Final = {SCHEDULE: 4 * 1024 * 1024, FUNCTION: 64 * 1024 * 1024, DESTINATION: 64 * 1024 * 1024}


class ReaderKey(NamedTuple):
    """One reader of a namespace."""

    kind: str
    """s3, postgres, mysql or mongodb."""
    connection: str

    def key(self, namespace: str) -> str:
        """Its key in the buckets of sources and statuses."""
        return f"reader.{namespace}.{self.kind}.{self.connection}"


class Wish(NamedTuple):
    """A Subscription, decoded."""

    live: Object
    spec: SubscriptionSpec

    @property
    def name(self) -> str:
        """Its name."""
        name: str = self.live["metadata"]["name"]
        return name

    @property
    def uid(self) -> str:
        """Its uid."""
        uid: str = self.live["metadata"]["uid"]
        return uid

    @property
    def deleting(self) -> bool:
        """Whether it is being deleted."""
        return "deletionTimestamp" in self.live["metadata"]

    @property
    def reader(self) -> ReaderKey | None:
        """Its reader; a schedule and a bus have none."""
        if self.spec.source.bucket:
            return ReaderKey(S3, self.spec.source.bucket.connection.name)
        if self.spec.source.postgres:
            return ReaderKey(POSTGRES, self.spec.source.postgres.connection.name)
        if self.spec.source.mysql:
            return ReaderKey(MYSQL, self.spec.source.mysql.connection.name)
        if self.spec.source.mongodb:
            return ReaderKey(MONGODB, self.spec.source.mongodb.connection.name)
        return None

    @property
    def items(self) -> list[str]:
        """What the reader reports on for it: its bucket, or its tables."""
        if self.spec.source.bucket:
            return [self.spec.source.bucket.name]
        return self.spec.source.database.tables if self.spec.source.database else []


def table_mistake(wish: Wish) -> str:
    """What is wrong with the tables' names that the CRD's rules can't see, since they count characters; empty if nothing."""
    postgres = wish.spec.source.postgres
    for table in postgres.tables if postgres else []:
        for name in table.split("."):
            if (size := len(name.encode())) > _POSTGRES_NAME_BYTES:
                return f"spec.source.postgres.tables: {name!r} has {size} bytes; a name in PostgreSQL has at most {_POSTGRES_NAME_BYTES}"
    return ""


def decode(live: Object) -> Wish:
    """A Subscription as the API returns it.

    Raises:
        msgspec.ValidationError: an older CRD let something through; the message names the field.
    """
    return Wish(live, msgspec.convert(live["spec"], SubscriptionSpec))


def compile_reader(  # noqa: PLR0917 - one call
    namespace: str,
    reader: ReaderKey,
    wishes: Iterable[Wish],
    servers: list[S3Server],
    cluster: str,
    begun: Collection[tuple[str, str]] = (),
) -> ReaderConfig:
    """The task of one reader from all Subscriptions that use it; none: drain. `cluster` is the cluster's uid; `begun` as for `_tables`."""
    wishes = sorted(
        (wish for wish in wishes if wish.reader == reader and not wish.deleting), key=lambda wish: wish.name
    )
    task = ReaderConfig(
        namespace=namespace, kind=reader.kind, connection=reader.connection, version="", draining=not wishes
    )
    if reader.kind == S3:
        task.s3 = S3Config(servers=servers, rules=[_bucket_rule(wish, begun) for wish in wishes])
    elif reader.kind == MYSQL:
        task.mysql = MysqlConfig(
            server_id=server_id(cluster, namespace, reader.connection),
            stream=stream_name(namespace, reader),
            tables=_tables(wishes, begun),
        )
    elif reader.kind == MONGODB:
        task.mongodb = MongodbConfig(stream=stream_name(namespace, reader), tables=_tables(wishes, begun))
    else:
        task.postgres = PostgresConfig(
            slot=slot_name(cluster, namespace, reader.connection),
            stream=stream_name(namespace, reader),
            tables=_tables(wishes, begun),
        )
    task.version = digest(task)
    return task


def stream_name(namespace: str, reader: ReaderKey) -> str:
    """The stream of a database; a bucket's is named by its server too, see `bucket_stream`."""
    return names.stream(namespace, reader.kind, names.token(reader.connection))


def bucket_stream(namespace: str, server: str, bucket: str) -> str:
    """The stream of a bucket."""
    return names.stream(namespace, S3, names.bucket_source(server, bucket))


def bus_stream(namespace: str, bus: str) -> str:
    """The stream of a bus."""
    return names.stream(namespace, BUS, names.token(bus))


def compile_bus(namespace: str, bus: str, wishes: Iterable[Wish]) -> Inbox:
    """A bus from all Subscriptions that name it: what one of them allows is allowed."""
    sources = [source for wish in wishes if (source := wish.spec.source.bus) and source.name == bus]
    allowed = sorted({poster for source in sources for poster in source.allow_from})
    return Inbox(stream=bus_stream(namespace, bus), allow_from=allowed)


def stream_subjects(namespace: str, stream: str) -> str:
    """What a stream of that name captures."""
    kind, _, source = stream.removeprefix(f"events_{namespace}_").partition("_")
    return names.stream_subjects(namespace, kind, source)


def stream_bytes(stream: str) -> int:
    """The most that a stream of its kind may reserve: ticks are few and small, and many schedules and functions are wanted."""
    return _BYTES.get(stream.split("_")[2], sys.maxsize)


def server_of(namespace: str, stream: str, bucket: str) -> str:
    """The server that a bucket's stream is named by, empty where the stream is not that bucket's."""
    prefix, suffix = f"events_{namespace}_{S3}_", f"_{names.token(bucket)}"
    if stream.startswith(prefix) and stream.endswith(suffix):
        return stream[len(prefix) : -len(suffix)]
    return ""


def binding_key(server: str, bucket: str) -> str:
    """Key of a bucket's binding."""
    return f"bucket.{names.token(server)}.{names.token(bucket)}"


def rebind(
    namespace: str, wanted: dict[str, BucketBinding], held: dict[str, BucketBinding]
) -> dict[str, BucketBinding]:
    """The bindings to write so that this namespace has its share of `wanted` and no other; without namespaces: delete it."""
    changed = {}
    for key, binding in (held | {key: held.get(key, binding) for key, binding in wanted.items()}).items():
        namespaces = sorted({*binding.namespaces} - {namespace} | ({namespace} if key in wanted else set()))
        if namespaces != binding.namespaces:
            changed[key] = BucketBinding(server=binding.server, bucket=binding.bucket, namespaces=namespaces)
    return changed


def slot_name(cluster: str, namespace: str, connection: str) -> str:
    """Name of slot and publication: readable, and unique by a hash of cluster, namespace and connection."""
    unique = hashlib.sha256(f"{cluster}/{namespace}/{connection}".encode()).hexdigest()[:12]
    readable = re.sub("[^a-z0-9]", "_", f"{namespace}_{connection}")
    return f"wisp_{readable[: _SLOT_LENGTH - 18]}_{unique}"


def server_id(cluster: str, namespace: str, connection: str) -> int:
    """What a reader of MySQL calls itself: in the upper half of what there is, where people number no servers."""
    unique = hashlib.sha256(f"{cluster}/{namespace}/{connection}".encode()).digest()
    return 1 << 31 | int.from_bytes(unique[:4]) >> 1


def _bucket_rule(wish: Wish, begun: Collection[tuple[str, str]]) -> BucketRule:
    source = wish.spec.source.bucket
    assert source  # noqa: S101 - an s3 reader's wish
    events = [f"s3:{event}" for event in sorted(source.events)]
    rule = BucketRule(
        subscription=wish.name, bucket=source.name, events=events, prefix=source.prefix, suffix=source.suffix
    )
    if asks_for_objects(wish) and (wish.uid, source.name) in begun:
        rule.listing = wish.uid
        unseen = wish.live.get("status", {}).get("unseen", {})
        rule.since = unseen["since"] if "until" in unseen else ""
    return rule


def asks_for_objects(wish: Wish) -> bool:
    """Whether a new Subscription wants the objects that its bucket holds, besides what is uploaded."""
    bucket = wish.spec.source.bucket
    return bool(bucket and wish.spec.start == "earliest" and any(e.startswith("ObjectCreated:") for e in bucket.events))


def asks_for_rows(wish: Wish) -> bool:
    """Whether a Subscription wants the rows that its tables have, besides their changes."""
    source = wish.spec.source.database
    return source is not None and source.snapshot == "initial"


def _tables(wishes: list[Wish], begun: Collection[tuple[str, str]]) -> list[TableConfig]:
    """`begun` are (uid, table) of Subscriptions whose route reads the table's rows: those written before that would pass it by."""
    wanted: dict[str, set[str]] = {}
    rows: dict[str, set[str]] = {}
    for wish in wishes:
        source = wish.spec.source.database
        assert source  # noqa: S101 - a database reader's wish
        for table in source.tables:
            wanted.setdefault(table, set()).update(source.operations)
            if asks_for_rows(wish) and (wish.uid, table) in begun:
                rows.setdefault(table, set()).add(wish.uid)
    return [
        TableConfig(
            name=table,
            operations=[operation for operation in _OPERATIONS if operation in operations],
            snapshots=sorted(rows.get(table, ())),
        )
        for table, operations in sorted(wanted.items())
    ]
