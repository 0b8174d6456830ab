"""What the operator tells source readers and the ingest, and what the readers report back.

A reader runs in the tenant's namespace with that namespace's connection Secret mounted; the operator never reads it.
"""

import msgspec

from wisp_api.cloudevent import OptionalRaw


class TableConfig(msgspec.Struct, rename="camel", kw_only=True):
    """One table that some Subscription of the namespace wants."""

    name: str
    """`schema.table` (MySQL: `database.table`, MongoDB: `database.collection`), unquoted."""
    operations: list[str]
    """The union of what the Subscriptions want: insert, update, delete."""
    snapshots: list[str] = []
    """Uids of the Subscriptions that want the rows that it has, besides."""


class PostgresConfig(msgspec.Struct, rename="camel", kw_only=True):
    """A PostgreSQL reader's task."""

    slot: str
    """Also the publication's name: made from cluster uid, namespace and connection."""
    stream: str
    tables: list[TableConfig] = []


class MysqlConfig(msgspec.Struct, rename="camel", kw_only=True):
    """A MySQL or MariaDB reader's task."""

    server_id: int
    """What the reader calls itself to the server, as a replica does: made from cluster uid, namespace and connection."""
    stream: str
    tables: list[TableConfig] = []


class MongodbConfig(msgspec.Struct, rename="camel", kw_only=True):
    """A MongoDB reader's task."""

    stream: str
    tables: list[TableConfig] = []
    """Collections."""


class S3Server(msgspec.Struct, rename="camel", kw_only=True):
    """An S3 server that can call the ingest's webhook; set in the chart's values."""

    name: str
    endpoint: str
    """`http(s)://host:port`; a connection belongs to the server with the same endpoint."""
    notification_arns: list[str]
    """Every rule names all of these; the ingest takes what comes twice once (same event id)."""


class BucketRule(msgspec.Struct, rename="camel", kw_only=True):
    """One Subscription's wish on a bucket."""

    subscription: str
    bucket: str
    events: list[str]
    """As S3 writes them: `s3:ObjectCreated:*`."""
    prefix: str = ""
    suffix: str = ""
    listing: str = ""
    """The Subscription's uid where it wants the objects that the bucket holds, besides, and its route reads them."""
    since: str = ""
    """RFC 3339: what changed from then on was not told for a time, so that who has a listing gets the objects since then once more."""


class S3Config(msgspec.Struct, rename="camel", kw_only=True):
    """An S3 reader's task: it keeps notification rules on buckets, proves that its key may read them, and lists them for who asks."""

    servers: list[S3Server]
    rules: list[BucketRule] = []


class ReaderConfig(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """The task of one reader. Key: `reader.<namespace>.<kind>.<connection>` in KV_SOURCES."""

    namespace: str
    kind: str
    """s3, postgres, mysql or mongodb."""
    connection: str
    """Name of the Secret."""
    version: str
    """Hash of the rest of this object; the status says which version it speaks of."""
    draining: bool = False
    """True: remove slot, publication and rules, report `drained`, then do nothing."""
    postgres: PostgresConfig | None = None
    mysql: MysqlConfig | None = None
    mongodb: MongodbConfig | None = None
    s3: S3Config | None = None

    @property
    def database(self) -> PostgresConfig | MysqlConfig | MongodbConfig | None:
        """The task, if it is a database's."""
        return self.postgres or self.mysql or self.mongodb

    @property
    def given(self) -> set[tuple[str, str]]:
        """(uid, table or bucket) of the Subscriptions that are to have what was there before, and of what."""
        rows = {
            (uid, table.name) for table in (self.database.tables if self.database else []) for uid in table.snapshots
        }
        return rows | {(rule.listing, rule.bucket) for rule in (self.s3.rules if self.s3 else []) if rule.listing}


class ItemStatus(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """State of one table (`schema.table`) or bucket."""

    ready: bool
    reason: str = ""
    """A constant of `conditions`, e.g. TableNotFound; empty when ready."""
    message: str = ""
    """What is wrong and what to do; when ready, what is under way besides."""
    operations: list[str] = []
    """Tables: the operations that are followed, also where that is less than is wanted and the table is not ready."""
    proof: str = ""
    """Buckets: a presigned HEAD request for the bucket, good for some minutes; that it answers 200 shows that the key may read the bucket."""
    unseen_since: str = ""
    """Buckets: RFC 3339, when the rules stood that somebody had taken away when the reader looked last; empty where nobody did."""


class ReaderStatus(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What a reader reports, on change and at least every 30 s. Key: `reader.<namespace>.<kind>.<connection>` in KV_STATUS."""

    version: str
    """Of the ReaderConfig that this speaks of."""
    ready: bool
    """Connected and following."""
    reason: str = ""
    message: str = ""
    time: str = ""
    """RFC 3339; an old one means that the reader is away."""
    server: str = ""
    """s3: name of the server that the connection's endpoint belongs to."""
    drained: bool = False
    items: dict[str, ItemStatus] = {}


class ScheduleConfig(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A Subscription's schedule. Key: `<namespace>.<subscription>` in KV_SCHEDULES."""

    namespace: str
    name: str
    """The Subscription's."""
    uid: str
    generation: int
    since: str
    """RFC 3339: when the Subscription was made; no tick is before it."""
    stream: str
    cron: str | None = None
    timezone: str = "UTC"
    at: str | None = None
    missed: str = "skip"
    """skip, once or all."""
    data: OptionalRaw = None
    suspend: bool = False

    @property
    def timing(self) -> str:
        """What decides when it ticks, as one text: another one begins anew."""
        return self.at or f"{self.cron} {self.timezone}"


class ScheduleStatus(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """How far a schedule's ticks are decided, written after the log has them. Key: `schedule.<namespace>.<subscription>` in KV_STATUS."""

    uid: str
    generation: int
    """Of the ScheduleConfig that this speaks of."""
    timing: str
    last: str
    """RFC 3339: every tick up to here is in the log, or was left out by the policy for missed ones."""
    next: str = ""
    """RFC 3339: the tick to come; empty where there is none, or while it is suspended."""
    reason: str = ""
    """A constant of `conditions`; empty while ticks are stored."""
    message: str = ""
    """What is wrong and what to do."""


class Inbox(msgspec.Struct, rename="camel", kw_only=True):
    """What may be posted to: a bus that a Subscription names, or a Function with `async`. Key: `names.inbox_key` in KV_SOURCES."""

    stream: str
    allow_from: list[str] = []
    """ServiceAccounts of other namespaces that may post: `namespace/name` or `namespace/*`."""


class TokenKeys(msgspec.Struct, rename="camel", kw_only=True):
    """What ServiceAccount tokens are checked with, as the Kubernetes API publishes it. Key: `TOKEN_KEYS` in KV_SOURCES."""

    issuer: str
    jwks: msgspec.Raw
    """The JSON Web Key Set."""


class BucketBinding(msgspec.Struct, rename="camel", kw_only=True):
    """Which namespaces receive a bucket's events. Key: `bucket.<server>.<bucket token>` in KV_SOURCES; written only for namespaces that proved their right."""

    server: str
    bucket: str
    namespaces: list[str]
