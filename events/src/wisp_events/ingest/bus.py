"""The door for events of one's own: `POST /v1/namespaces/NS/buses/NAME/events`.

Invariant: an event named as accepted is in the log, on the disk; one named as rejected is not. Where the log took some and then no more,
the whole request is answered 429 or 503, and what is stored already is stored once when it comes again (see `gather`).
"""

import time
from typing import Final

import msgspec
import prometheus_client
from nats.js import JetStreamContext
from wisp_api import names
from wisp_api.cloudevent import Event
from wisp_api.source import Bus

from wisp_events import log
from wisp_events.gather import Entry, Gatherer
from wisp_events.ingest import posted
from wisp_events.ingest.door import Answer, Headers, Room, read
from wisp_events.ingest.tokens import Caller, Tokens
from wisp_events.router import bucket
from wisp_events.web import Receive, Refusal

BODY_BYTES: Final = 4 * 1024 * 1024
FOUND_SECONDS: Final = 1.0
"""How long a bus that was found is believed to be as it was."""
_FOUND: Final = 10_000

EVENTS = prometheus_client.Counter(
    "wisp_ingest_bus_events", "Events posted to buses, by what became of them", ["result"]
)


class Rejected(msgspec.Struct):
    """An event of a request that was not taken."""

    index: int
    message: str


class Receipt(msgspec.Struct):
    """What became of a request's events."""

    accepted: int
    rejected: list[Rejected]


class Buses:
    """Takes posted events."""

    def __init__(self, js: JetStreamContext, tokens: Tokens, room: Room) -> None:
        """`room` is what the bodies of all doors of this kind hold."""
        self._js = js
        self._tokens = tokens
        self._room = room
        self._gatherer = Gatherer(js)
        self._found: dict[str, tuple[float, Bus, int]] = {}

    async def post(self, namespace: str, name: str, headers: Headers, receive: Receive) -> Answer:
        """Answer a request once the log has its events.

        Raises:
            Refusal: nothing is taken.
            log.LogUnavailable: not all are stored.
        """
        caller = await self._tokens.caller(headers)
        bus, made = await self._authorized(namespace, name, caller)
        async with self._room.hold(caller.namespace, headers, BODY_BYTES):
            found = posted.events(headers, await read(receive, BODY_BYTES))
            entries: list[Entry] = []
            rejected: list[Rejected] = []
            for index, event in enumerate(found):
                try:
                    if isinstance(event, str):
                        raise ValueError(event)  # noqa: TRY004, TRY301 - it is a sentence about the value
                    entries.append(entry(namespace, name, made, event))
                except ValueError as error:
                    rejected.append(Rejected(index, str(error)))
            try:
                await self._gatherer.append(bus.stream, entries)
            except log.LogFull as error:
                raise Refusal(
                    429, f"bus {name} is full, its events wait for their functions: {error}", retry_after="5"
                ) from error
        EVENTS.labels("accepted").inc(len(entries))
        EVENTS.labels("rejected").inc(len(rejected))
        status = 202 if not rejected else 207 if entries else 400
        return Answer(
            status,
            msgspec.json.encode(Receipt(len(entries), rejected)) + b"\n",
            {"content-type": "application/json"},
        )

    async def _authorized(self, namespace: str, name: str, caller: Caller) -> tuple[Bus, int]:
        """The bus and the revision of its entry.

        Raises:
            Refusal: it is none, or not for this caller.
        """
        bus, made = await self._find(f"bus.{namespace}.{name}")
        if caller.namespace != namespace and not (bus and caller.allowed(bus.allow_from)):
            raise Refusal(
                403,
                f"ServiceAccount {caller.namespace}/{caller.name} may not post to bus {name} of namespace {namespace}: "
                "a Subscription there has to name it in source.bus.allowFrom",
            )
        if bus is None:
            raise Refusal(
                404,
                f"namespace {namespace} has no bus {name}: it is there as soon as a Subscription names it in source.bus",
            )
        return bus, made

    async def _find(self, key: str) -> tuple[Bus | None, int]:
        """A bus; one that was found is believed for FOUND_SECONDS, one that was not is looked for every time."""
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
        bus = msgspec.json.decode(entry.value, type=Bus)
        self._found[key] = time.monotonic(), bus, entry.revision
        return bus, entry.revision


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
