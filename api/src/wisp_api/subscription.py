"""The Subscription kind: which events of which source run which Function."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from wisp_api.destination import DESTINATION_RULES, Destination, Reply
from wisp_api.kube import Conditions, Name, Posters, Time, any_object, rules
from wisp_api.sink import SINK_RULES, Sink

S3: Final = "s3"
POSTGRES: Final = "postgres"
MYSQL: Final = "mysql"
MONGODB: Final = "mongodb"
SCHEDULE: Final = "schedule"
BUS: Final = "bus"
FUNCTION: Final = "function"
"""No Subscription's source: the stream of a Function's asynchronous invocations."""
DESTINATION: Final = "destination"
"""Nor is this: the stream of the records that are posted to a destination."""
_KINDS: Final = ("bucket", POSTGRES, MYSQL, MONGODB, SCHEDULE, BUS)
"""Fields of a Source."""
FORGETFUL: Final = (MYSQL, MONGODB)
"""Databases that remember nothing for a reader: how far it is stands in the event log, and nothing is left at the server."""

_WINDOWED: Final = "has({0}.batch) && {0}.batch.tumblingWindowSeconds > 0"
_DATABASE: Final = (
    f"[{', '.join(f'has(self.source.{kind})' for kind in (POSTGRES, MYSQL, MONGODB))}].exists(given, given)"
)

ObjectEvent = Literal[
    "ObjectCreated:*",
    "ObjectCreated:Put",
    "ObjectCreated:Post",
    "ObjectCreated:Copy",
    "ObjectCreated:CompleteMultipartUpload",
    "ObjectCreated:PutTagging",
    "ObjectCreated:DeleteTagging",
    "ObjectCreated:PutRetention",
    "ObjectCreated:PutLegalHold",
    "ObjectRemoved:*",
    "ObjectRemoved:Delete",
    "ObjectRemoved:DeleteMarkerCreated",
    "ObjectRemoved:DeleteAllVersions",
    "ObjectRemoved:NoOP",
    "ObjectAccessed:*",
    "ObjectAccessed:Get",
    "ObjectAccessed:Head",
    "ObjectAccessed:Attributes",
    "ObjectAccessed:GetRetention",
    "ObjectAccessed:GetLegalHold",
    "ObjectAcl:Put",
    "ObjectTagging:*",
    "ObjectTagging:Put",
    "ObjectTagging:Delete",
    "ObjectRestore:*",
    "ObjectRestore:Post",
    "ObjectRestore:Completed",
    "ObjectRestore:Delete",
    "ObjectTransition:*",
    "ObjectTransition:Failed",
    "ObjectTransition:Complete",
    "LifecycleExpiration:*",
    "LifecycleExpiration:Delete",
    "LifecycleExpiration:DeleteMarkerCreated",
    "LifecycleDelMarkerExpiration:Delete",
    "LifecycleTransition",
    "Replication:*",
    "Replication:OperationFailedReplication",
    "Replication:OperationCompletedReplication",
    "Replication:OperationMissedThreshold",
    "Replication:OperationReplicatedAfterThreshold",
    "Replication:OperationNotTracked",
    "Scanner:ManyVersions",
    "Scanner:LargeVersions",
    "Scanner:BigPrefix",
]
"""As Amazon and MinIO write them; each server has some."""
_SAME_CONNECTION = rules(
    ("self.connection.name == oldSelf.connection.name", "the connection can't be changed: make another Subscription")
)


Operations = Annotated[
    list[Literal["insert", "update", "delete"]],
    Meta(min_length=1, max_length=3, extra_json_schema={"x-kubernetes-list-type": "set"}),
]
Pattern = Annotated[dict[str, Any], any_object(32)]
_TIME: Final = "^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
Start = Annotated[
    str,
    Meta(max_length=40),
    rules(
        (
            f"self in ['latest', 'earliest'] || self.matches('{_TIME}')",
            "write latest, earliest or a time as 2026-01-31T12:00:00Z",
        )
    ),
]


class FunctionReference(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A Function of the same namespace."""

    name: Name
    """Its name. It may be made later: the events wait for it."""
    tag: Annotated[str, Meta(min_length=1, max_length=12)] | None = None
    """A tag of the Function: only the revision that it names gets the events. Absent: the revisions that have a share of the requests."""


class Connection(Struct, rename="camel", kw_only=True):
    """A Secret of the same namespace that says how to reach the source."""

    name: Name
    """The Secret's name.

    Its keys for a bucket: endpoint, accessKey, secretKey, and where the server needs them notificationArn and region. For a database: dsn.
    """


class BucketSource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Objects of one S3 bucket."""

    name: Annotated[
        str,
        Meta(min_length=3, max_length=63, pattern="^[a-z0-9][-.a-z0-9]*[a-z0-9]$"),
        rules(("self == oldSelf", "the bucket can't be changed: make another Subscription")),
    ]
    """The bucket; can't be changed afterwards."""
    connection: Connection
    """The Secret with the server's endpoint and keys; the events come only while its keys may read the bucket. Can't be changed afterwards."""
    events: Annotated[
        list[ObjectEvent],
        Meta(min_length=1, max_length=16, extra_json_schema={"x-kubernetes-list-type": "set"}),
    ] = field(default_factory=lambda: ["ObjectCreated:*"])
    """Which events, by S3's names, as far as the server has them: ObjectAccessed and tags under ObjectCreated are MinIO's. Absent: ObjectCreated:*."""
    prefix: Annotated[str, Meta(max_length=1024)] = ""
    """Only keys that start with this."""
    suffix: Annotated[str, Meta(max_length=1024)] = ""
    """Only keys that end with this."""


class PostgresSource(Struct, rename="camel", kw_only=True):
    """Row changes of a PostgreSQL database, by logical replication."""

    connection: Connection
    """The Secret with the database's dsn; its user needs REPLICATION and must own the tables. Can't be changed afterwards."""
    tables: Annotated[
        list[
            Annotated[
                str,
                Meta(max_length=127),
                rules(("self.matches('^[^.]{1,63}[.][^.]{1,63}$')", "write a table as schema.table, as public.orders")),
            ]
        ],
        Meta(min_length=1, max_length=64, extra_json_schema={"x-kubernetes-list-type": "set"}),
    ]
    """The tables, as schema.table and without quotes."""
    operations: Operations = field(default_factory=lambda: ["insert", "update", "delete"])
    """Which changes. Absent: all three."""
    snapshot: Literal["never", "initial"] = "never"
    """initial: the rows that a table has when it is first followed for this Subscription come first, as events of type dev.wisp.postgres.snapshot.

    Changes of a row come after it. Each table's rows come once; a table that is added later gets its own.
    """


class MysqlSource(Struct, rename="camel", kw_only=True):
    """Row changes of a MySQL or MariaDB server, from its binary log."""

    connection: Connection
    """The Secret with the server's dsn; can't be changed afterwards.

    Its user needs REPLICATION SLAVE, REPLICATION CLIENT and SELECT on the tables; for `snapshot` also LOCK TABLES on their databases.
    """
    tables: Annotated[
        list[
            Annotated[
                str,
                Meta(max_length=129),
                rules(("self.matches('^[^.]{1,64}[.][^.]{1,64}$')", "write a table as database.table, as shop.orders")),
            ]
        ],
        Meta(min_length=1, max_length=64, extra_json_schema={"x-kubernetes-list-type": "set"}),
    ]
    """The tables, as database.table and without quotes."""
    operations: Operations = field(default_factory=lambda: ["insert", "update", "delete"])
    """Which changes. Absent: all three."""
    snapshot: Literal["never", "initial"] = "never"
    """initial: the rows that a table has when it is first followed for this Subscription come first, as events of type dev.wisp.mysql.snapshot.

    Changes of a row come after it. Each table's rows come once; a table that is added later gets its own.
    """


class MongodbSource(Struct, rename="camel", kw_only=True):
    """Changes of documents of a MongoDB replica set or sharded cluster, from its change streams."""

    connection: Connection
    """The Secret with the deployment's dsn; its user needs the role read on the databases. Can't be changed afterwards."""
    collections: Annotated[
        list[
            Annotated[
                str,
                Meta(max_length=255),
                rules(
                    (
                        "self.matches('^[^.]{1,63}[.].{1,250}$')",
                        "write a collection as database.collection, as shop.orders",
                    )
                ),
            ]
        ],
        Meta(min_length=1, max_length=64, extra_json_schema={"x-kubernetes-list-type": "set"}),
    ]
    """The collections, as database.collection."""
    operations: Operations = field(default_factory=lambda: ["insert", "update", "delete"])
    """Which changes. Absent: all three."""
    snapshot: Literal["never", "initial"] = "never"
    """initial: the documents that a collection has when it is first followed for this Subscription come first, as events of type dev.wisp.mongodb.snapshot.

    A change of a document that it does not contain comes after it. Each collection's documents come once; a collection that is added later gets its own.
    """

    @property
    def tables(self) -> list[str]:
        """The collections, as other databases call them."""
        return self.collections


class ScheduleSource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The clock: an event at each tick of a cron expression, or one at a single time."""

    cron: (
        Annotated[
            str,
            Meta(max_length=200),
            rules(
                (
                    r"self.matches('^[0-9A-Za-z*,/#-]+([ \t]+[0-9A-Za-z*,/#-]+){4,5}$')",
                    "write minute, hour, day of month, month, day of week, as */5 * * * *, with seconds first if need be",
                )
            ),
        ]
        | None
    ) = None
    """Minute, hour, day of month, month, day of week as in cron, with an optional field for seconds in front: */5 * * * *."""
    timezone: Annotated[
        str,
        Meta(max_length=64),
        rules(
            (
                "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
                "write a name of the tz database, as Europe/Oslo or UTC",
            )
        ),
    ] = "UTC"
    """The time zone that the cron expression is meant in, by its name in the tz database: Europe/Oslo. Absent: UTC."""
    at: (
        Annotated[str, Meta(max_length=40), rules((f"self.matches('{_TIME}')", "write a time as 2026-01-31T12:00:00Z"))]
        | None
    ) = None
    """A single time instead of a cron expression, in RFC 3339."""
    missed: Literal["skip", "once", "all"] | None = None
    """What becomes of ticks that could not be stored within a minute, because the platform was down or the Subscription suspended.

    skip: nothing. once: together one event, the latest. all: an event each. Absent: skip for cron, once for `at`.
    """
    data: Annotated[dict[str, Any], any_object(256)] | None = None
    """The events' data, at most 64 KiB as JSON and 64 levels deep. Absent: none."""


class BusSource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """CloudEvents that are posted to a bus of this namespace. A bus is there as long as a Subscription names it."""

    name: Annotated[Name, rules(("self == oldSelf", "the bus can't be changed: make another Subscription"))]
    """The bus; can't be changed afterwards. Events are posted to the ingest: /v1/namespaces/NAMESPACE/buses/NAME/events."""
    allow_from: Posters = []
    """ServiceAccounts of other namespaces that may post to it, as shop/checkout or shop/*; those of this namespace always may.

    Where several Subscriptions name one bus, whoever one of them allows may post.
    """


class Source(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Where the events come from: exactly one of the fields."""

    bucket: Annotated[
        BucketSource | None,
        _SAME_CONNECTION,
    ] = None
    """Objects of an S3 bucket."""
    postgres: Annotated[
        PostgresSource | None,
        _SAME_CONNECTION,
    ] = None
    """Row changes of a PostgreSQL database."""
    mysql: Annotated[
        MysqlSource | None,
        _SAME_CONNECTION,
    ] = None
    """Row changes of a MySQL or MariaDB server."""
    mongodb: Annotated[
        MongodbSource | None,
        _SAME_CONNECTION,
    ] = None
    """Changes of documents of a MongoDB deployment."""
    schedule: Annotated[
        ScheduleSource | None,
        rules(("has(self.cron) != has(self.at)", "write exactly one of schedule.cron and schedule.at")),
    ] = None
    """The clock: cron, or a single time."""
    bus: BusSource | None = None
    """CloudEvents of your own."""

    @property
    def database(self) -> PostgresSource | MysqlSource | MongodbSource | None:
        """The database, if it is one."""
        return self.postgres or self.mysql or self.mongodb


class Retry(Struct, rename="camel", kw_only=True):
    """What happens when the function fails: exponential back-off with full jitter, then the dead-letter stream."""

    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 5
    """Attempts that the function itself failed or let time out. Network errors don't count."""
    max_age_seconds: Annotated[int, Meta(ge=1, le=1209600)] = 86400
    """An event that is older than this and not delivered becomes a dead letter, whatever the cause."""
    initial_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 1
    """The first wait, on average half of it; it doubles with each attempt."""
    max_seconds: Annotated[float, Meta(ge=0.01, le=86400)] = 300
    """The longest wait."""
    bisect: bool = False
    """True: a batch that fails as a whole is sent again in halves, at no cost in attempts, until what fails it is alone.

    Of no effect without batch.
    """


class Batch(Struct, rename="camel", kw_only=True):
    """Several events in one delivery, as a JSON list of CloudEvents: as Lambda's event source mappings make them.

    A function that answers {"batchItemFailures": [{"itemIdentifier": ID}]} is given only these events again; with order: key also
    those behind them in their keys. An answer that names no event of the batch is a failure of the whole batch.
    """

    size: Annotated[int, Meta(ge=1, le=10000)] = 100
    """Events in one delivery, at most. Also 6 MiB end a batch."""
    window_seconds: Annotated[int, Meta(ge=0, le=300)] = 0
    """How long the first event waits for others, at most. 0: what there is goes at once."""
    tumbling_window_seconds: Annotated[int, Meta(ge=0, le=900)] = 0
    """Length of tumbling windows: batches of one window pass a state on from one to the next, and a last call ends the window. 0: none.

    The function gets a CloudEvent of type dev.wisp.window with AWS Lambda's event as its data ({Records, window, state, ...}) and returns {"state": ...}.
    Needs order: key. Can't be added or taken away afterwards.
    """


class SubscriptionSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which events of which source run which Function, or go to which sink."""

    function: FunctionReference | None = None
    """The Function that receives the events."""
    sink: Annotated[Sink | None, SINK_RULES] = None
    """What receives the events instead of a Function, each alone, as a CloudEvent in binary mode; a 2xx answer takes it."""
    source: Annotated[
        Source,
        rules(
            (
                f"[{', '.join(f'has(self.{kind})' for kind in _KINDS)}].exists_one(given, given)",
                "write exactly one source: source.bucket, source.postgres, source.mysql, source.mongodb, source.schedule or source.bus",
            ),
            (
                " && ".join(f"has(self.{kind}) == has(oldSelf.{kind})" for kind in _KINDS),
                "the kind of source can't be changed: make another Subscription",
            ),
        ),
    ]
    """Where the events come from. Its kind, bucket and connection can't be changed afterwards."""
    filter: Pattern | None = None
    """An EventBridge pattern on the event's attributes and data; what doesn't match wakes no pod: {data: {new: {total: [{numeric: [">", 100]}]}}}."""
    format: Literal["cloudevent", "aws", "debezium"] = "cloudevent"
    """What the function receives.

    cloudevent: a CloudEvent. aws: what AWS Lambda's event sources hand to a function: for a bucket S3's event, for a database that of a DynamoDB
    stream, for a schedule EventBridge's scheduled event or the schedule's own data, for a bus EventBridge's event.
    debezium: Debezium's change event of a row, for databases. The Function's signature is lambda, http or asgi, unless it is cloudevent's own format.
    """
    batch: Batch | None = None
    """Several events in one delivery, as a JSON list, also where it is one; in format aws under Records where the source has that. Absent: each event alone.

    The Function's signature is lambda, http or asgi: cloudevent takes single events only.
    """
    order: Literal["key", "none"] | None = None
    """key: one event at a time per row, object, schedule or (bus) `partitionkey`, in order. none: no order. Absent: key for databases, none for the others."""
    reply: Reply | None = None
    """Where CloudEvents go that the function returns, one or a batch; other results are dropped. Absent: so are they. Not with batch."""
    parallelism: Annotated[int, Meta(ge=1, le=1000)] = 10
    """Deliveries that run at once, at most; never more than the Function runs: scale.max times scale.perInstance."""
    start: Start = "latest"
    """Where a new Subscription begins: latest (events from now on), earliest (all that the log still holds), or a time in RFC 3339.

    For a bucket, earliest also lists the objects that it holds, as events of type dev.wisp.s3.ObjectListed.
    Of no effect on a schedule, whose first tick is the first after the Subscription was made.
    """
    retry: Annotated[
        Retry,
        rules(("self.initialSeconds <= self.maxSeconds", "retry.initialSeconds is above retry.maxSeconds: lower it")),
    ] = field(default_factory=Retry)
    """What happens when the function fails."""
    dead_letter: Annotated[Destination | None, DESTINATION_RULES] = None
    """Where the record of an event goes that was given up, besides the dead-letter stream: event, last answer and circumstances, as AWS Lambda writes them."""
    suspend: bool = False
    """True: deliver nothing; the events wait, and become dead letters at retry.maxAgeSeconds. A schedule makes none: schedule.missed decides afterwards."""


class ReplayStatus(Struct, rename="camel", kw_only=True):
    """What became of the last order to replay events."""

    request: str
    """The order, as the annotation wisp.dev/replay names it."""
    moved: bool
    """Whether events come again."""
    message: str
    """From where, or why not."""


class UnseenStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """When nobody could see what changed in the bucket."""

    since: Time
    """From when on something may be missing."""
    until: Time | None = None
    """When changes were seen again; absent while they are not."""


class SubscriptionStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What became of the spec; the figures are at most 30 s old, exact ones are metrics."""

    observed_generation: int = 0
    """The metadata.generation that this speaks of."""
    conditions: Conditions = []
    """Ready: events are delivered. SourceReady: they are read. FunctionReady: the Function, or the sink, takes them.

    DestinationReady, where deadLetter has a ref or uri: that takes the records.
    """
    source: str | None = None
    """The source in short: s3/photos, postgres/shop-db, mysql/shop-db, mongodb/shop-db, schedule/0 2 * * * or bus/default."""
    delivered: int = 0
    """Events that the function took."""
    failed: int = 0
    """Attempts that failed, repeated ones included."""
    dead_lettered: int = 0
    """Events that stand in the dead-letter stream."""
    pending: int = 0
    """Events that wait, an upper bound."""
    oldest_pending: Time | None = None
    """Since when the oldest of them has waited."""
    last_delivery: Time | None = None
    """When the function last took one."""
    replay: ReplayStatus | None = None
    """The last `wisp replay`."""
    unseen: UnseenStatus | None = None
    """A bucket's: the last time in which its changes were not seen, since its right or its rules had been taken away."""


class Subscription(Struct, rename="camel", kw_only=True):
    """Events of a source that run a Function: at least once each, or they stand in the dead-letter stream with the reason."""

    spec: Annotated[
        SubscriptionSpec,
        rules(
            ("!has(self.reply) || !has(self.batch)", "reply is for events that are delivered alone: leave out batch"),
            (
                f"!({_WINDOWED.format('self')}) || (has(self.order) ? self.order == 'key' : {_DATABASE})",
                "batch.tumblingWindowSeconds passes a state on in order: write order: key",
            ),
            (
                f"({_WINDOWED.format('self')}) == ({_WINDOWED.format('oldSelf')})",
                "batch.tumblingWindowSeconds can't be added or taken away: make another Subscription",
            ),
            ("has(self.__function__) != has(self.sink)", "write exactly one of spec.function and spec.sink"),
            (
                f"!has(self.format) || self.format != 'debezium' || {_DATABASE}",
                "format debezium is of rows: write it with source.postgres, source.mysql or source.mongodb, and aws or cloudevent with others",
            ),
            (
                "!has(self.sink) || !has(self.format) || self.format == 'cloudevent'",
                "a sink takes CloudEvents: leave out format",
            ),
            ("!has(self.sink) || !has(self.batch)", "a sink takes events one by one: leave out batch"),
            (
                "!has(self.deadLetter) || !has(self.deadLetter.bus) || !has(self.source.bus) || self.deadLetter.bus.name != self.source.bus.name",
                "deadLetter: a bus that gets the records of its own events never ends: name another one",
            ),
        ),
    ]
    """Which events of which source run which Function."""
    status: SubscriptionStatus | None = None
    """What became of it."""


NAME_RULES = rules(
    (
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        "metadata.name: at most 63 lower-case letters, digits and '-'",
    )
)
"""On the object itself: the name is one token of the event log's keys."""
