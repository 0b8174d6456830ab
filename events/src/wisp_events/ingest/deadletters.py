"""The door for dead letters: `/v1/namespaces/NS/deadletters`, for ServiceAccounts of that namespace.

`GET` lists them, `GET .../ID` gives one, `POST .../redrive` sends events again to the Subscription that they came from, `POST .../purge`
drops letters. Both act on the letters that `ids` names, or on all of a Subscription's, at most `limit` in one request, in the order
in which they were written; `more` says whether to go on `after` the last one.

Invariant: a letter is removed only after its event is stored where its Subscription reads (`names.redrive_subject`), or when it was to be
dropped. Whoever is interrupted between the two sends the event a second time, under the same id.
Memory: a letter may have 8 MB. At once AT_ONCE requests read letters and AT_ONCE act on them, one of a namespace each, and each has one
letter; others wait, in the order in which they came. What is written to a caller is the connection's.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from nats.aio.client import Client
from nats.js.api import Header
from wisp_api import cloudevent, names
from wisp_api.route import DeadLetter, Route
from wisp_api.source import Inbox
from wisp_api.subscription import BUS, DESTINATION, FUNCTION

from wisp_events import log
from wisp_events.ingest.door import Answer, Headers, Room, read
from wisp_events.ingest.letters import LAST, Letter, Letters
from wisp_events.ingest.tokens import Tokens
from wisp_events.router import bucket
from wisp_events.web import Receive, Refusal

BODY_BYTES: Final = 64 * 1024
LIST_LIMIT: Final = 500
ACT_LIMIT: Final = 100
AT_ONCE: Final = 3
_encoder = msgspec.json.Encoder()


class Summary(msgspec.Struct, rename="camel", omit_defaults=True):
    """A letter in a list."""

    id: int
    time: str
    reason: str
    message: str
    subscription: str | None = None
    source: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    attempts: int = 0


class Shown(DeadLetter, rename="camel", kw_only=True, omit_defaults=True):
    """A letter by itself."""

    id: int


class Page(msgspec.Struct, rename="camel"):
    """A list."""

    letters: list[Summary]
    more: bool


class Order(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Which letters to act on."""

    subscription: str | None = None
    ids: list[int] | None = None
    after: int = 0
    until: int = 0
    """The last one to act on; 0: the last that there is now. What fails again meanwhile is a letter after it."""
    limit: int = ACT_LIMIT


class Kept(msgspec.Struct):
    """A letter that could not be sent again."""

    id: int
    message: str


class Done(msgspec.Struct):
    """What became of an order."""

    done: int
    kept: list[Kept]
    after: int
    until: int
    more: bool


class _Turns:
    """Of requests that hold letters."""

    def __init__(self) -> None:
        self._own: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._all = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """One of them, as long as the block lasts."""
        async with self._own[namespace], self._all:
            yield


class DeadLetters:
    """Answers requests about dead letters."""

    def __init__(self, client: Client, tokens: Tokens, room: Room) -> None:
        """`room` is what the bodies of all doors of this kind hold."""
        self._js = client.jetstream()
        self._letters = Letters(client)
        self._tokens = tokens
        self._room = room
        self._reading, self._acting = _Turns(), _Turns()

    async def answer(self, namespace: str, what: str, scope: dict[str, Any], receive: Receive) -> Answer:
        """Answer one request; `what` is a letter's id, `redrive`, `purge`, or empty.

        Raises:
            Refusal: it is not allowed, or wrong.
            log.LogUnavailable: the log is away.
        """
        headers: Headers = scope["headers"]
        caller = await self._tokens.caller(headers)
        if caller.namespace != namespace:
            raise Refusal(403, f"dead letters of {namespace} are for its own ServiceAccounts, not {caller.namespace}'s")
        wanted = "POST" if what in ("redrive", "purge") else "GET"
        if scope["method"] != wanted:
            raise Refusal(405, f"send {wanted}", allow=wanted)
        try:
            if what.isdigit():
                async with self._reading.turn(namespace):
                    found = await self._one(namespace, int(what))
                    return _json(Shown(id=found.id, **msgspec.structs.asdict(found.content)))
            if not what:
                async with self._reading.turn(namespace):
                    return _json(await self._list(namespace, scope.get("query_string", b"").decode()))
            async with self._room.hold(namespace, headers, BODY_BYTES):
                order = _order(await read(receive, BODY_BYTES))
            if what not in ("redrive", "purge"):
                raise Refusal(404, f"{what} is neither a letter's id nor redrive nor purge")
            async with self._acting.turn(namespace):  # two at once would mix the order of a key
                return _json(await self._act(namespace, order, redrive=what == "redrive"))
        except bucket.LOG_ERRORS as error:
            raise log.describe(error) from error

    async def _list(self, namespace: str, query: str) -> Page:
        given = {name: values[-1] for name, values in parse_qs(query).items()}
        after, limit = given.get("after", "0"), given.get("limit", str(LIST_LIMIT))
        if not (after.isdecimal() and limit.isdecimal() and int(limit) and int(after) < LAST):
            raise Refusal(400, f"after and limit are whole numbers, limit at least 1, after below {LAST}")
        most = min(int(limit), LIST_LIMIT)
        page = Page([], more=False)
        async with contextlib.aclosing(
            self._letters.following(namespace, given.get("subscription"), int(after))
        ) as found:
            async for letter in found:
                page.more = len(page.letters) == most
                if page.more:
                    break
                page.letters.append(_summary(letter))
        return page

    async def _act(self, namespace: str, order: Order, *, redrive: bool) -> Done:
        until = order.until or await self._letters.last(namespace)
        limit = max(1, min(order.limit, ACT_LIMIT))
        if order.ids is not None:
            ids = sorted({one for one in order.ids if order.after < one})
            for one in ids[: limit + 1]:
                await self._one(namespace, one)  # before anything is done
            found = self._named(namespace, ids)
        else:
            found = self._letters.following(namespace, order.subscription, order.after, until)
        done = Done(0, [], order.after, until, more=False)
        async with contextlib.aclosing(found):
            async for letter in found:
                done.more = done.done + len(done.kept) == limit
                if done.more:
                    break
                done.after = letter.id
                await self._treat(namespace, letter, done, redrive=redrive)
        return done

    async def _named(self, namespace: str, ids: list[int]) -> AsyncGenerator[Letter, None]:
        for one in ids:
            yield await self._one(namespace, one)

    async def _treat(self, namespace: str, letter: Letter, done: Done, *, redrive: bool) -> None:
        """Send a letter's event again, or not, and remove the letter."""
        try:
            if redrive:
                await self._redrive(namespace, letter)
        except ValueError as error:
            done.kept.append(Kept(letter.id, str(error)))
        else:
            await self._letters.remove(namespace, letter.id)
            done.done += 1

    async def _redrive(self, namespace: str, letter: Letter) -> None:
        """Store the letter's event where its Subscription reads.

        Raises:
            ValueError: that is not possible.
            nats.errors.Error, OSError: it may be stored or not.
        """
        content = letter.content
        if content.reason == "RecordGone":
            raise ValueError(
                "its content is gone: only the attributes are left, which would come as an event without data"
            )
        kind, _, name = (content.source or "").partition("/")
        if content.subscription is None and kind == BUS and content.event is not None:
            await self._post(namespace, name, letter)
            return
        if content.subscription is None and kind not in {FUNCTION, DESTINATION}:
            raise ValueError(
                f"it is of the source {content.source}, for no Subscription: send what it says again there"
            )
        if content.event is None:
            raise ValueError("it holds no event, only what came in: send that again, put right")
        where, key = _reader(content.subscription, kind, name)
        entry = await bucket.read(self._js, names.KV_ROUTES, f"{namespace}.{key}")
        if entry is None or entry.value is None:
            raise ValueError(f"there is no {where} (any more) that could take it")
        route = msgspec.json.decode(entry.value, type=Route)
        subject = names.redrive_subject(route.stream, route.uid)
        if subject not in route.subjects:
            raise ValueError(f"{where} does not read what comes again yet: the operator has to be of this version")
        # Not the event's id: the server would take an event that failed again within two minutes for one that it has.
        headers = {Header.MSG_ID.value: log.fingerprint("redrive", route.uid, str(letter.id), content.time)}
        frame = cloudevent.encode_frame([bytes(content.event)])
        await self._js.publish(subject, frame, log.PUBLISH_SECONDS, route.stream, headers)

    async def _post(self, namespace: str, bus: str, letter: Letter) -> None:
        """Put what a bus did not take, a function's reply or a record, on it; raises as `_redrive`."""
        entry = await bucket.read(self._js, names.KV_SOURCES, names.inbox_key(BUS, namespace, bus))
        if entry is None or entry.value is None:
            raise ValueError(f"there is no bus {bus}: a Subscription has to name it in source.bus")
        stream, raw = msgspec.json.decode(entry.value, type=Inbox).stream, bytes(letter.content.event or b"")
        event = cloudevent.decode(raw)
        lane = names.lane(event.partitionkey or event.type)
        headers = {Header.MSG_ID.value: log.fingerprint("redrive", stream, str(letter.id), letter.content.time)}
        subject = names.bus_subject(namespace, bus, event.type, lane)
        await self._js.publish(subject, cloudevent.encode_frame([raw]), log.PUBLISH_SECONDS, stream, headers)

    async def _one(self, namespace: str, number: int) -> Letter:
        """Raises: Refusal: the namespace has no such letter."""
        found = await self._letters.one(namespace, number)
        if found is None:
            raise Refusal(404, f"namespace {namespace} has no dead letter {number} (any more)")
        return found


def _reader(subscription: str | None, kind: str, name: str) -> tuple[str, str]:
    """Who takes a letter's event again, in words and by its route's name."""
    if subscription:
        return f"Subscription {subscription}", subscription
    if kind == FUNCTION:
        return f"Function {name} with async", names.invocation_route(name)
    return f"destination {name}", name


def _order(body: bytes) -> Order:
    """Raises: Refusal: it is none."""
    try:
        order = msgspec.json.decode(body or b"{}", type=Order)
    except ValueError as error:
        raise Refusal(400, f"send {{subscription, ids, after, until, limit}} as JSON: {error}") from None
    if not (0 <= order.after < LAST and order.until >= 0):
        raise Refusal(400, f"after is a letter's id below {LAST}, until one or 0")
    return order


def _summary(letter: Letter) -> Summary:
    content = letter.content
    event = cloudevent.decode(content.event) if content.event is not None else None
    return Summary(
        letter.id,
        content.time,
        content.reason,
        content.message,
        content.subscription,
        content.source,
        event.id if event else None,
        event.type if event else None,
        content.attempts,
    )


def _json(value: Any) -> Answer:
    return Answer(200, _encoder.encode_lines([value]), {"content-type": "application/json"})
