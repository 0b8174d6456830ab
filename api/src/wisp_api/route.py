"""A Subscription compiled for the router, and what the router reports back.

The operator writes routes, the router executes them; neither calls the other. A route holds all that delivery needs, so
the router goes on while the operator or the Kubernetes API is away.
"""

from typing import Any, Final

import msgspec

from wisp_api.cloudevent import OptionalRaw

CLOUDEVENT: Final = "cloudevent"
S3: Final = "s3"
"""AWS Lambda's event of an S3 notification."""
DYNAMODB: Final = "dynamodb"
"""AWS Lambda's event of a DynamoDB stream."""
TICK: Final = "tick"
"""EventBridge's scheduled event, or the schedule's own data."""
EVENTBRIDGE: Final = "eventbridge"
"""EventBridge's event."""
DEBEZIUM: Final = "debezium"
"""Debezium's envelope of a row's change."""


class Target(msgspec.Struct, rename="camel", kw_only=True):
    """Where deliveries go: one revision's Service and its share of them."""

    url: str
    percent: int = 100
    audience: str = ""
    """Whom the router's token is for, which each delivery carries; empty: the target asks for none."""
    reach: str = ""
    """Which addresses the URL's host may have: function and cluster (a Service's), public (outside), empty: any."""
    service: str = ""
    """The whole name of the Service that the URL's host stood for when the operator looked; that name's addresses are called while it is no alias."""


class Retry(msgspec.Struct, rename="camel", kw_only=True):
    """Exponential back-off with full jitter; see the Subscription's `retry`."""

    max_attempts: int = 5
    """Counts answers of the function and timeouts, not network errors."""
    max_age_seconds: int = 86400
    initial_seconds: float = 1
    max_seconds: float = 300
    bisect: bool = False
    """Split a batch that failed, at no cost in attempts."""


class Batch(msgspec.Struct, rename="camel", kw_only=True):
    """How many events go together in one delivery."""

    size: int = 10
    window_seconds: float = 0
    """How long the first event may wait for others."""
    tumbling_seconds: int = 0
    """Length of the windows in which a state is passed on from batch to batch; 0: there is none."""


class Replay(msgspec.Struct, rename="camel", kw_only=True):
    """The order to move a Subscription back in the log."""

    since: str
    """RFC 3339."""
    request: str
    """Names the order: each is carried out once."""


class ReplayReport(msgspec.Struct, rename="camel", kw_only=True):
    """What became of the last such order."""

    request: str
    moved: bool
    message: str
    """From where events come again, or why they don't."""


class Outlet(msgspec.Struct, rename="camel", kw_only=True):
    """A stream that the router puts into what comes of a delivery: a bus', that of a Function's asynchronous invocations, or of records that are posted."""

    kind: str
    """bus, function or destination."""
    name: str
    """Of a destination, its route's."""
    stream: str = ""
    """Empty: there is no such bus or Function now."""


class Route(msgspec.Struct, rename="camel", kw_only=True):
    """One Subscription as the router sees it. Key: `<namespace>.<name>` in KV_ROUTES."""

    namespace: str
    name: str
    uid: str
    """The Subscription's uid: the cursor is kept under it, so a Subscription made anew starts anew."""
    generation: int
    stream: str
    subjects: list[str]
    """Subject filters; the server sends only what matches one."""
    filters: list[dict[str, Any]] = []
    """EventBridge patterns; an event is delivered when all match."""
    start: str = "latest"
    """latest, earliest or an RFC 3339 time; used once, when no cursor exists."""
    targets: list[Target] = []
    """Empty: nothing is delivered yet, the events wait."""
    order: str = "key"
    """key: one event at a time per partition key, in stream order. none: no order."""
    barriers: bool = True
    """Where ordered: an event without a partition key waits for all before it, and all after it wait for it. False: it has no order."""
    parallelism: int = 10
    batch: Batch | None = None
    """None: each event is delivered alone, in binary mode; else as a JSON list, also where it is one."""
    format: str = CLOUDEVENT
    """What is delivered, as the constants above have it."""
    timeout_seconds: float = 30
    """How long the function may take; the router waits a little longer."""
    retry: Retry = msgspec.field(default_factory=Retry)
    suspend: bool = False
    replay: Replay | None = None
    function: str = ""
    """Whose asynchronous invocations these are; empty for a Subscription's events."""
    receiver: str = ""
    """The Function that a Subscription names, for those who read what failed; empty where it has a sink."""
    reply: Outlet | None = None
    """Where the CloudEvents go that the function returns."""
    on_success: Outlet | None = None
    """Where the records of invocations go that succeeded."""
    on_failure: Outlet | None = None
    """Where the records of what was given up go, besides the dead letters: of invocations, or of a Subscription's events."""
    records: bool = False
    """Whether this posts records to a destination, and its dead letters are that destination's."""


class RouteStatus(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """What the router says of a route, at most every 30 s (a changed state at once). Key: `route.<namespace>.<name>` in KV_STATUS."""

    uid: str
    generation: int
    """Of the route that this speaks of."""
    state: str
    """Active, Suspended, WaitingForTarget, Backlogged, Failing, InvalidRoute."""
    message: str = ""
    """What is wrong and what to do; empty when Active."""
    delivered: int = 0
    failed: int = 0
    """Attempts that failed, retried ones included."""
    dead_lettered: int = 0
    pending: int = 0
    """Events between the cursor and the end of the stream, an upper bound (records count as the events they hold once read)."""
    oldest_pending: str | None = None
    """RFC 3339: when the oldest of the pending events that were read came into the log."""
    last_delivery: str | None = None
    """RFC 3339."""
    owner: str = ""
    """The router replica that serves it."""
    replay: ReplayReport | None = None


class DeadLetter(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """An event that was not delivered, with all that is needed to understand it without the logs. Subject: `names.dead_letter_subject`."""

    reason: str
    """MaxAttempts, MaxAge, Rejected, RecursionLimit, FilterError, BadReply, RecordGone, DestinationFailed; from a source: Malformed, EventTooLarge, LogFull."""
    message: str
    time: str
    namespace: str
    subscription: str | None = None
    """Absent where the source itself could not take the event."""
    source: str | None = None
    """Kind and name of the source where `subscription` is absent, as `s3/minio` or `postgres/shop-db`; an invocation's is `function/thumbnail`;
    of what a destination did not take, that destination."""
    function: str | None = None
    """The Function that it was for; absent for a sink, and from a source."""
    revision: str | None = None
    """Which of its revisions the last attempt went to; absent where there was none since the router began to serve the route."""
    event: OptionalRaw = None
    """The structured CloudEvent; absent where there is none (malformed input: see `input`)."""
    input: str | None = None
    """What came in where it is no event: its first 4 KiB, undecodable bytes replaced."""
    stream: str | None = None
    sequence: int | None = None
    index: int | None = None
    attempts: int = 0
    first_attempt: str | None = None
    last_status: int | None = None
    last_response: str | None = None
    """First 4 KiB of the function's last answer."""
