"""The doors for ServiceAccounts: `POST /v1/namespaces/NS/buses/NAME/events` and `.../functions/NAME/invocations`.

Invariant: an event named as accepted is in the log, on the disk; one named as rejected is not. Where the log took some and then no more,
the whole request is answered 429 or 503, and what is stored already is stored once when it comes again (see `gather`).
"""

import time
from typing import Final

import msgspec
import prometheus_client
from nats.js import JetStreamContext
from wisp_api import calling, names
from wisp_api.cloudevent import EVENT_BYTES, LARGE_BYTES, Event
from wisp_api.source import Inbox

from wisp_events import log
from wisp_events.gather import Entry, Gatherer
from wisp_events.ingest import invocation, posted
from wisp_events.ingest.door import Answer, Headers, Room, header, read
from wisp_events.ingest.tokens import Caller, Tokens
from wisp_events.router import bucket
from wisp_events.web import Receive, Refusal

UNANNOUNCED_BYTES: Final = 4 * 1024 * 1024
"""Of a batch whose length was not said beforehand."""
FOUND_SECONDS: Final = 1.0
"""How long a bus that was found is believed to be as it was."""
_FOUND: Final = 10_000

EVENTS = prometheus_client.Counter(
    "wisp_ingest_bus_events", "Events posted to buses, by what became of them", ["result"]
)


INVOCATIONS = prometheus_client.Counter("wisp_ingest_invocations", "Asynchronous invocations taken")
_ALLOW: Final = {
    "bus": "a Subscription there has to name it in source.bus.allowFrom",
    "function": "the Function has to name it in async.allowFrom",
}
_MAKE: Final = {
    "bus": "it is there as soon as a Subscription names it in source.bus",
    "function": "a Function takes asynchronous invocations as soon as its spec has async: {}",
}


class Rejected(msgspec.Struct):
    """An event of a request that was not taken."""

    index: int
    message: str


class Accepted(msgspec.Struct, rename="camel"):
    """An invocation that was taken."""

    request_id: str


class Receipt(msgspec.Struct):
    """What became of a request's events."""

    accepted: int
    rejected: list[Rejected]


class Doors:
    """Takes posted events and invocations."""

    def __init__(self, js: JetStreamContext, tokens: Tokens, room: Room) -> None:
        """`room` is what the bodies of both hold."""
        self._js = js
        self._tokens = tokens
        self._room = room
        self._gatherer = Gatherer(js)
        self._found: dict[str, tuple[float, Inbox, int]] = {}

    async def post(self, namespace: str, name: str, headers: Headers, receive: Receive) -> Answer:
        """Answer events for a bus once the log has them.

        Raises:
            Refusal: nothing is taken.
            log.LogUnavailable: not all are stored.
        """
        caller = await self._tokens.caller(headers)
        bus, made = await self._authorized("bus", namespace, name, caller)
        async with self._room.hold(caller.namespace, headers, EVENT_BYTES, UNANNOUNCED_BYTES) as longest:
            found = posted.events(headers, await read(receive, longest))
            entries: list[Entry] = []
            rejected: list[Rejected] = []
            for index, event in enumerate(found):
                try:
                    if isinstance(event, str):
                        raise ValueError(event)  # noqa: TRY004, TRY301 - it is a sentence about the value
                    entries.append(entry(namespace, name, made, event))
                except ValueError as error:
                    rejected.append(Rejected(index, str(error)))
            del found  # what waits for the log is the entries
            await self._store("bus", name, bus, entries)
        EVENTS.labels("accepted").inc(len(entries))
        EVENTS.labels("rejected").inc(len(rejected))
        status = 202 if not rejected else 207 if entries else 400
        return _json(status, Receipt(len(entries), rejected))

    async def invoke(self, namespace: str, name: str, headers: Headers, receive: Receive) -> Answer:
        """Answer an asynchronous invocation of a Function once the log has it; raises as `post`."""
        caller = await self._tokens.caller(headers)
        if header(headers, calling.TYPE.encode()) not in {b"", calling.EVENT.encode()}:
            raise Refusal(400, f"{calling.TYPE}: write {calling.EVENT} or {calling.RESPONSE}")
        inbox, made = await self._authorized("function", namespace, name, caller)
        async with self._room.hold(caller.namespace, headers, EVENT_BYTES, LARGE_BYTES) as longest:
            by = f"urn:wisp:serviceaccount:{caller.namespace}:{caller.name}"
            event = invocation.event(headers, await read(receive, longest), by)
            source, request_id = inbox.stream.removeprefix(names.stream(namespace, "function", "")), event.id
            try:
                encoded = log.encode(event)
            except log.EventTooLarge as error:
                raise Refusal(413, str(error)) from None
            same = log.fingerprint(namespace, name, str(made), event.source, event.id)
            one = Entry(names.invocation_subject(namespace, source), 0, None, same, encoded)
            del event  # what waits for the log is the entry
            await self._store("function", name, inbox, [one])
        INVOCATIONS.inc()
        return _json(202, Accepted(request_id))

    async def _store(self, kind: str, name: str, inbox: Inbox, entries: list[Entry]) -> None:
        try:
            await self._gatherer.append(inbox.stream, entries)
        except log.LogFull as error:
            message = f"the {kind} {name} is full, what it holds waits for functions: {error}"
            raise Refusal(429, message, retry_after="5") from error

    async def _authorized(self, kind: str, namespace: str, name: str, caller: Caller) -> tuple[Inbox, int]:
        """The inbox and the revision of its entry.

        Raises:
            Refusal: it is none, or not for this caller.
        """
        inbox, made = await self._find(names.inbox_key(kind, namespace, name))
        if caller.namespace != namespace and not (inbox and caller.allowed(inbox.allow_from)):
            message = f"ServiceAccount {caller.namespace}/{caller.name} may not post to {kind} {name} of namespace {namespace}: "
            raise Refusal(403, message + _ALLOW[kind])
        if inbox is None:
            raise Refusal(404, f"namespace {namespace} has no {kind} {name} that can be posted to: {_MAKE[kind]}")
        return inbox, made

    async def _find(self, key: str) -> tuple[Inbox | None, int]:
        """An inbox; one that was found is believed for FOUND_SECONDS, one that was not is looked for every time."""
        known = self._found.get(key)
        if known and time.monotonic() - known[0] < FOUND_SECONDS:
            return known[1], known[2]
        try:
            entry = await bucket.read(self._js, names.KV_SOURCES, key)
        except bucket.LOG_ERRORS as error:
            raise log.describe(error) from error
        if entry is None or entry.value is None:
            self._found.pop(key, None)
            return None, 0
        if len(self._found) >= _FOUND:
            self._found.clear()
        inbox = msgspec.json.decode(entry.value, type=Inbox)
        self._found[key] = time.monotonic(), inbox, entry.revision
        return inbox, entry.revision


def _json(status: int, value: msgspec.Struct) -> Answer:
    return Answer(status, msgspec.json.encode(value) + b"\n", {"content-type": "application/json"})


def entry(namespace: str, name: str, made: int, event: Event) -> Entry:
    """An event as it goes into its bus' stream; `made` tells this bus from an earlier one of its name.

    Raises:
        log.EventTooLarge: more than the log takes.
    """
    lane = names.lane(event.partitionkey or event.type)
    return Entry(
        names.bus_subject(namespace, name, event.type, lane),
        lane,
        event.partitionkey,
        log.fingerprint(namespace, name, str(made), event.source, event.id),
        log.encode(event),
    )
