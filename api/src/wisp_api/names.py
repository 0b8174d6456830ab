"""Names that more than one part uses: API group, labels, streams, subjects and key-value buckets.

Invariant: two different sources never share a stream or a subject. Every part of a name that a user chose is one
NATS token, escaped so that the mapping is one to one; `_` joins tokens in stream names and stands in no escaped token.
"""

import zlib
from typing import Final

GROUP: Final = "wisp.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "wisp-operator"
FINALIZER: Final = "wisp.dev/cleanup"
LABELS: Final = {"app.kubernetes.io/part-of": "wisp"}
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
FUNCTION_LABEL: Final = "wisp.dev/function"
CONNECTION_LABEL: Final = "wisp.dev/connection"
RESTARTED_ANNOTATION: Final = "wisp.dev/restartedAt"
"""On a Function: any text, best the time; another one makes a new revision of the same content."""
UPLOADED_ANNOTATION: Final = "wisp.dev/uploadedAt"
"""On a Function: when `wisp deploy` last had to upload its code; it only makes the operator look."""
REPLAY_ANNOTATION: Final = "wisp.dev/replay"
"""On a Subscription: `<RFC 3339 time> <request>`, move it back to that time, once for each request."""

KV_ROUTES: Final = "wisp-routes"
"""Operator writes, router reads: key `<namespace>.<subscription>`, value `route.Route`."""
KV_SOURCES: Final = "wisp-sources"
"""Operator writes: `reader.<namespace>.<kind>.<connection>` (`source.ReaderConfig`, read by that reader) and
`bucket.<server>.<bucket token>` (`source.BucketBinding`), `inbox.<kind>.<namespace>.<name>` (`source.Inbox`) and TOKEN_KEYS, which the ingest reads."""
TOKEN_KEYS: Final = "tokens"  # noqa: S105 - a key of the bucket, no secret
"""In KV_SOURCES: `source.TokenKeys`, what the cluster's ServiceAccount tokens are checked with."""
AUDIENCE: Final = "wisp.dev/ingest"
"""What a ServiceAccount token has to be made for to be taken by the ingest."""
LOG_AUDIENCE: Final = "wisp.dev/logs"
"""What a pod's token has to be made for to write log lines; it opens nothing else."""
CODE_AUDIENCE: Final = "wisp.dev/code"
"""What a token has to be made for to upload code: those that pods have mounted do not."""
KV_SCHEDULES: Final = "wisp-schedules"
"""Operator writes, the ingest reads: key `<namespace>.<subscription>`, value `source.ScheduleConfig`."""
KV_STATUS: Final = "wisp-status"
"""Data plane writes, operator reads: `route.<namespace>.<subscription>`, `reader.<namespace>.<kind>.<connection>` and
`schedule.<namespace>.<subscription>`, which is the ingest's own memory, too; `position.<namespace>.<kind>.<connection>`, which is a reader's own."""
KV_CURSORS: Final = "wisp-cursors"
"""Router's own: `<namespace>.<subscription uid>`; deleted by the operator with the Subscription."""
KV_MEMBERS: Final = "wisp-members"
"""Router replicas that live: `<pod name>`, kept alive by heartbeats, gone by the bucket's time to live."""

LETTERS_API: Final = "wisp.letters.api"
"""Where the components reach JetStream's API of the account that holds dead letters and nothing else (decision 0045)."""
SHARED_LETTERS: Final = "wisp-dead-letters"
"""All namespaces' dead letters of before each had a stream of its own; nothing is added, and it goes when they have aged out."""

LOG_STREAM: Final = "wisp-logs"
"""Functions' log lines: a message is some lines of one pod, as they are in its log."""
LOG_SUBJECTS: Final = "wisp.logs.>"

LANES: Final = 8
"""Lanes of one entity. A key belongs to one lane; order holds within a lane. Fixed: changing it reorders keys."""

_SNAPSHOT: Final = "_snapshot"
"""No token of a name, which has its `_` escaped."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")


def token(text: str) -> str:
    """Escape any text into one NATS subject token: bytes of UTF-8 outside [A-Za-z0-9-] become `%XX`."""
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in text.encode()) or "%"


def lane(key: str) -> int:
    """The lane (0 to LANES-1) that a partition key belongs to."""
    return zlib.crc32(key.encode()) % LANES


def bucket_source(server: str, bucket: str) -> str:
    """Source id of an S3 bucket; unique because an escaped token holds no `_`."""
    return f"{token(server)}_{token(bucket)}"


def owned_source(name: str, uid: str) -> str:
    """Source id of what an object has for itself, a schedule or a Function's invocations.

    Its uid keeps one made anew from what the one before left.
    """
    return f"{name}_{token(uid)}"


def stream(namespace: str, kind: str, source: str) -> str:
    """Name of the event stream of one source of one namespace; `kind` is s3, postgres, mysql, mongodb, schedule, bus, function or destination.

    `source` is a token, or two joined by `_`.
    """
    return f"events_{namespace}_{kind}_{source}"


def stream_subjects(namespace: str, kind: str, source: str) -> str:
    """The wildcard that a source's stream captures and its writer may publish to."""
    return f"wisp.events.{namespace}.{kind}.{source}.>"


def row_subject(
    namespace: str, connection: str, schema: str, table: str, lane_number: int | str, *, kind: str = "postgres"
) -> str:
    """Subject of a row change; `"*"` as lane gives the filter for the whole table."""
    return f"wisp.events.{namespace}.{kind}.{token(connection)}.{token(schema)}.{token(table)}.{lane_number}"


def snapshot_subject(
    namespace: str, connection: str, schema: str, table: str, uid: str, *, kind: str = "postgres"
) -> str:
    """Subject of the rows that a table had, for the Subscription with this uid alone."""
    return f"{row_subject(namespace, connection, schema, table, _SNAPSHOT, kind=kind)}.{uid}"


def entity(subject: str) -> str:
    """What a subject's events are about, in whatever lane: a table, for instance, also where they are the rows that it had."""
    return subject.rpartition(".")[0].removesuffix(f".{_SNAPSHOT}")


def object_subject(namespace: str, server: str, bucket: str, event_name: str, lane_number: int | str) -> str:
    """Subject of an object event; `event_name` as S3 writes it (`ObjectCreated:Put`, with or without `s3:`); `ObjectCreated:*` and lane `"*"` give a filter."""
    family, _, action = event_name.removeprefix("s3:").partition(":")
    tail = "*" if action == "*" else token(action)
    return f"wisp.events.{namespace}.s3.{bucket_source(server, bucket)}.{token(family)}.{tail}.{lane_number}"


def listing_subject(namespace: str, server: str, bucket: str, uid: str) -> str:
    """Subject of the objects that a bucket held, for the Subscription with this uid alone."""
    return f"wisp.events.{namespace}.s3.{bucket_source(server, bucket)}.{_SNAPSHOT}.{uid}"


def is_listing_of(subject: str, uid: str) -> bool:
    """Whether a subject is that of a listing for the Subscription with this uid."""
    return subject.endswith(f".{_SNAPSHOT}.{uid}")


def listing_subjects(namespace: str) -> str:
    """The wildcard of those of all buckets."""
    return f"wisp.events.{namespace}.s3.*.{_SNAPSHOT}.*"


def schedule_subject(namespace: str, name: str, uid: str) -> str:
    """Subject of a schedule's ticks."""
    return f"wisp.events.{namespace}.schedule.{owned_source(name, uid)}.tick"


def bus_subject(namespace: str, bus: str, event_type: str, lane_number: int | str) -> str:
    """Subject of an event on a bus, by its type; `"*"` as type or lane gives a filter."""
    kind = event_type if event_type == "*" else token(event_type)
    return f"wisp.events.{namespace}.bus.{token(bus)}.{kind}.{lane_number}"


def inbox_key(kind: str, namespace: str, name: str) -> str:
    """Key of an inbox; `kind` is bus or function. `"*"` as name gives all of the namespace."""
    return f"inbox.{kind}.{namespace}.{name}"


def invocation_subject(namespace: str, source: str) -> str:
    """Subject of a Function's asynchronous invocations; `source` is its `owned_source`."""
    return f"wisp.events.{namespace}.function.{source}.invocation"


def invocation_route(function: str) -> str:
    """Name of the route of a Function's asynchronous invocations; no Subscription's, since `_` stands in none of theirs."""
    return f"function_{function}"


def record_subject(namespace: str, source: str) -> str:
    """Subject of the records for a destination that they are posted to; `source` is its owner's `owned_source` and the outcome."""
    return f"wisp.events.{namespace}.destination.{source}.record"


def record_route(outcome: str, kind: str, name: str) -> str:
    """Name of the route of those records, by the outcome that they tell of (success or failure) and whose they are; no Subscription's."""
    return f"{outcome}_{kind}_{name}"


def position_key(namespace: str, kind: str, connection: str) -> str:
    """Key, in KV_STATUS, of how far a reader is whose server does not remember it."""
    return f"position.{namespace}.{kind}.{connection}"


def dead_letter_subject(namespace: str, origin: str, name: str) -> str:
    """Subject of a dead letter; `origin` is `subscription`, `function`, `bus`, `destination` or the source's kind, `name` that one's or the connection's."""
    return f"wisp.dead.{namespace}.{origin}.{token(name)}"


def dead_letter_stream(namespace: str) -> str:
    """Name of the stream of a namespace's dead letters."""
    return f"dead_{namespace}"


def dead_letter_subjects(namespace: str) -> str:
    """What that stream captures."""
    return f"wisp.dead.{namespace}.>"


def redrive_subject(stream_name: str, uid: str) -> str:
    """Subject, in a source's own stream, of events that come again from one Subscription's dead letters; no other one's filter has so many tokens."""
    _, namespace, kind, source = stream_name.split("_", 3)
    return f"wisp.events.{namespace}.{kind}.{source}.redrive.{token(uid)}.again.0"


def log_subject(namespace: str, function: str, uid: str) -> str:
    """Subject of a Function's log lines; its uid keeps one made anew, in a namespace made anew perhaps, from those of the one before."""
    return f"wisp.logs.{namespace}.{function}.{token(uid)}"


def log_path(namespace: str, function: str, uid: str) -> str:
    """Where the ingest takes a Function's log lines and gives them back."""
    return f"/v1/namespaces/{namespace}/functions/{function}/logs/{uid}"
