"""One route on the replica that owns it: from frames in the log to answers of the function.

Invariant: an event is marked done in exactly two places, `_delivered` with a success and `_store` after the acknowledged
dead letter, both not before the log has what goes to a destination, or at once where the filter leaves it out; the cursor
is written after, never before. Whoever loses the cursor's revision stops at once and writes nothing more.

Memory: the window between the cursor and the read position holds WINDOW_EVENTS or WINDOW_BYTES, and all routes together
what `Budget` allows; beyond that the events stay in the log. Of large events it holds no more than attributes (`contents`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from wisp_api import cloudevent, names
from wisp_api.cloudevent import LARGE_BYTES, NOT_READABLE
from wisp_api.route import DeadLetter

from wisp_events.router import letter, results, verdict
from wisp_events.router.client import Exchange
from wisp_events.router.contents import Contents
from wisp_events.router.cursor import Cursor, Trouble, Window
from wisp_events.router.feed import Branch, is_shared
from wisp_events.router.intake import Intake
from wisp_events.router.keeper import Keeper
from wisp_events.router.metrics import RouteMetrics
from wisp_events.router.outbox import Outbox
from wisp_events.router.plan import Plan
from wisp_events.router.request import MAX_HOPS, pick
from wisp_events.router.schedule import Item, Schedule
from wisp_events.router.shared import Shared
from wisp_events.router.verdict import Answer, Failure, Outcome, Verdict

logger = logging.getLogger(__name__)

WINDOW_EVENTS: Final = 10_000
WINDOW_BYTES: Final = 32 * 1024 * 1024
GRACE_SECONDS: Final = 5.0
"""How much longer than the function's timeout the router waits: the runtime's own answer comes first."""
EXPIRE_SECONDS: Final = 5.0
BURY_AT_ONCE: Final = 64
FAULT_SECONDS: Final = 1.0


class Delivery:
    """Delivers one route's events."""

    _forgets = True
    """Whether large events that wait hold no content."""

    def __init__(self, shared: Shared, plan: Plan, cursor: Cursor, revision: int) -> None:
        """Continue from a claimed cursor, which is at this revision of its bucket."""
        self._shared = shared
        self.plan = plan
        self.cursor = cursor
        self._js = shared.nats.jetstream()
        self._keeper = Keeper(self._js, plan.cursor_key, cursor.session, revision, self._snapshot)
        self._window = Window(msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor))
        self.schedule = Schedule(ordered=plan.route.order == "key")
        self.failing: dict[str, Item] = {}
        """`sequence.index` -> an undone event whose last attempt failed."""
        self._attempts = 0  # under way
        self._retries = 0  # of those
        self._limit = float(plan.route.parallelism)
        self._shrunk = 0.0
        self._bytes = 0
        self._frame_size = 1
        self._draining = False
        self._ended = False
        self.last_error = ""
        self._outbox = Outbox(self._js, shared.gatherer, cursor.started)
        self._contents = Contents(self._js, plan.route.stream, shared.turns, self._faulted, self.pump)
        self._timer: asyncio.TimerHandle | None = None
        self._expired_at = 0.0
        route = plan.route
        self._redriven = names.redrive_subject(route.stream, route.uid)
        self.metrics = RouteMetrics(route.namespace, route.name)
        self.intake = self._reading()

    def _reading(self) -> Intake | Branch:
        read, route = self._window.read, self.plan.route
        if is_shared(self.plan):
            return self._shared.feeds.branch(self.plan, read, self._take_frame, self._room)
        return Intake(self._shared.nats, route.stream, route.subjects, read, self._take_frame, self._room)

    def start(self) -> None:
        """Begin to read and deliver."""
        self.intake.start()

    def update(self, plan: Plan) -> None:
        """Go on under a plan that `reads_like` the one before; events read already keep the old filter's judgement."""
        self.plan = plan
        if isinstance(self.intake, Branch):
            self.intake.update(plan)
        self._limit = float(plan.route.parallelism)
        self.pump()

    def tick(self, now: float) -> None:
        """Do what time asks for; call it about twice a second with `time.monotonic()`."""
        self.intake.check(now)
        if self.intake.stale:  # so is the cursor: it is claimed anew
            self._keeper.lost = True
        if self._paused and now - self._expired_at >= EXPIRE_SECONDS:
            self._expired_at = now
            self._expire()
        self._wake()

    @property
    def lost(self) -> bool:
        """Whether it has ended, or must: another replica took over, or the cursor was deleted."""
        return self._ended or self._keeper.lost

    @property
    def full(self) -> bool:
        """Whether the window admits no more events."""
        return self.schedule.size >= WINDOW_EVENTS or self._bytes >= WINDOW_BYTES

    @property
    def in_flight(self) -> int:
        """Attempts under way, what of them is on its way into the log, and large events on their way out of it."""
        return self._attempts + len(self._outbox) + self._contents.fetching

    @property
    def stalled(self) -> bool:
        """Whether the window is full of events that stand behind failing ones."""
        return self.full and not self._startable() and self._attempts == self._retries

    @property
    def pending(self) -> int:
        """Events read and not done, and records not read."""
        return self.schedule.size + self.intake.pending

    @property
    def oldest(self) -> float:
        """Unix time at which the oldest event that was read and is not done was stored; 0 without any."""
        return self._window.oldest

    def gauge(self) -> None:
        """Set the metrics that are levels."""
        self.metrics.in_flight.set(self.in_flight)
        self.metrics.large.set(self._contents.fetching + self._contents.answers + self.schedule.passed)
        self.metrics.pending.set(self.pending)
        self.metrics.filtered.inc(self.intake.left_out())
        self.metrics.parked.set(len(self.failing))
        self.metrics.oldest.set(time.time() - self.oldest if self.oldest else 0)

    async def catch_up(self) -> None:
        """Let the cursor pass records at the stream's end that are not for this route.

        Raises:
            nats.errors.Error, OSError: unknown now.
        """
        read = self.intake.read
        last = await self.intake.caught_up()
        if last is not None and read == self.intake.read and last > self._window.floor and not self.schedule.size:
            self._window.skip_to(last)
            self._keeper.touch()

    async def drain(self, seconds: float) -> None:
        """Start nothing more, wait for what is under way, store the cursor and release the route."""
        self._draining = True
        await self.intake.stop()
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - what ends it are callbacks
            await asyncio.sleep(0.02)
        await self._finish()
        if not self.lost:
            self.cursor.owner = self.cursor.session = ""
            await self._keeper.flush(max(1.0, deadline - time.monotonic()))
        self._ended = True

    async def abandon(self) -> None:
        """Stop at once and write nothing."""
        self._ended = True
        await self.intake.stop()
        await self._finish()

    async def _finish(self) -> None:
        await self._contents.stop()
        await self._outbox.stop()
        await self._keeper.stop()
        self._shared.budget.used -= self._bytes
        self._bytes = 0
        if self._timer:
            self._timer.cancel()

    # Reading

    def _room(self) -> int:
        budget = self._shared.budget
        if self._draining or self.full or (budget.used >= budget.limit and self.schedule.size):
            return 0
        return max(1, (WINDOW_EVENTS - self.schedule.size) // self._frame_size)

    def _take_frame(self, sequence: int, content: bytes, stored: float, subject: str) -> None:
        if self.lost:
            return
        try:
            events = cloudevent.decode_frame(content)
        except NOT_READABLE as error:
            if not self._window.open(sequence, 1, stored):
                self._bury_input(sequence, 0, content, f"the record is no frame: {error}")
            return
        self._frame_size = len(events) or 1
        done = self._window.open(sequence, len(events), stored)
        for index, raw in enumerate(events):
            if not done >> index & 1:
                self._take_event(sequence, index, raw, stored, subject)
        self._keeper.touch()
        self.pump()

    def _take_event(self, sequence: int, index: int, raw: msgspec.Raw, stored: float, subject: str) -> None:
        try:
            event = cloudevent.decode(raw)
        except NOT_READABLE as error:
            self._bury_input(sequence, index, bytes(raw), f"not a CloudEvent: {error}")
            return
        entity = names.entity(subject)  # an event without a key is a barrier for all of its table
        item = Item(sequence, index, event, raw, stored, entity)
        if item.key is None and not self.plan.route.barriers:
            item.key = f"\0{item.place}"  # a key of its own: in no order
        reason = message = ""
        try:
            if subject != self._redriven and not self.plan.matcher(event):
                self.metrics.filtered.inc()
                self._window.mark(sequence, index)
                return
        except NOT_READABLE as error:
            reason, message = "FilterError", f"the filter can't read data: {error}"
        self._shared.tracer.begin(event, stored, self.plan.route, again=subject == self._redriven)
        if event.wisphops > MAX_HOPS:
            reason, message = "RecursionLimit", f"the event went through more than {MAX_HOPS} functions"
        if trouble := self._window.trouble(sequence, index):
            item.tries, item.attempts = trouble.tries, trouble.attempts
            item.first, item.due = trouble.first, trouble.due
            self.failing[item.place] = item
        if item.size > LARGE_BYTES and self._forgets:
            item.forget()
            item.size = len(item.raw)
        self._bytes += item.size
        self._shared.budget.used += item.size
        if reason:
            item.burial = (reason, message)
        self._admit(item)

    # Delivering

    @property
    def _paused(self) -> bool:
        return self.plan.route.suspend or not self.plan.addresses

    def pump(self) -> None:
        """Start as many attempts as may run now."""
        if self._draining or self.lost or self._paused or not self._shared.leased():
            return
        while self.in_flight < self._limit and self._start_one(time.time()):
            pass

    # What `batched` and `windowed` do in their own way

    def _admit(self, item: Item) -> None:
        """Take an event that has to be delivered."""
        self.schedule.admit(item)

    def _startable(self) -> bool:
        """Whether something could start now."""
        return self.schedule.ready > 0

    def _start_one(self, now: float) -> bool:
        """Start an attempt; False without anything to start."""
        item = self._take()
        if item:
            self._dare(item, self._attempt, now)
        return item is not None

    def _take(self) -> Item | None:
        """The next event to start; of large ones one at a time waits for its turn, and all small ones come before the others."""
        return self.schedule.take(large=not self._contents.queued)

    def _make_ready(self, now: float) -> None:
        """Make startable what is due."""
        self.schedule.wake(now)

    def _next_due(self, now: float) -> float | None:  # noqa: ARG002 - of use where a batch forms
        """When something more is due."""
        return self.schedule.next_due

    def _attempt(self, item: Item, now: float) -> None:
        if item.burial:
            self._bury(item, *item.burial)
            return
        if now >= self._expiry(item):
            self._bury_expired(item)
            return
        if item.absent:
            self._contents.fetch(item, partial(self._fetched, item))
            return
        plan = self.plan
        index = pick(plan.route.targets, item.event.id)
        to = plan.addresses[index]
        trace, done = self._shared.tracer.follow(plan.route, to, [item], partial(self._answered, item, now))
        try:
            request = plan.render(item, to, self._sign(index), trace)
        except NOT_READABLE as error:
            self._bury(item, "Malformed", str(error))
            return
        item.first, item.to = item.first or now, to
        exchange = Exchange(request, plan.route.timeout_seconds + GRACE_SECONDS, done)
        if plan.route.reply or plan.route.on_success:
            exchange.keep, exchange.large = results.REPLY_BYTES, partial(self._contents.turn, item)
        if self._contents.has_turn(item):
            item.forget()  # the request has it
            exchange.sent = partial(self._contents.release, item)
        pool = self._shared.http.pool(to)
        pool.send(exchange)
        self._attempts += 1  # only now: of one that couldn't be sent nobody takes it back
        self._retries += item.tries > 0

    def _fetched(self, item: Item) -> None:
        """A large event has its content: attempt it, unless that has to wait now."""
        if self._draining or self.lost or self._paused or not self._shared.leased():
            self._contents.release(item)
            self.schedule.put_back(item)
        else:
            self._attempt(item, time.time())

    def _sign(self, index: int) -> bytes:
        """The header line with the token that a target asks for, if it does."""
        audience = self.plan.route.targets[index].audience
        return self._shared.signer.header(audience) if audience else b""

    def _answered(self, item: Item, sent: float, outcome: Outcome) -> None:
        self._attempts -= 1
        self._retries -= item.tries > 0
        if self.lost:
            return
        self._dare(item, self._settle, outcome, sent)
        self.pump()

    def _dare(self, item: Item, act: Callable[..., None], *given: Any) -> None:
        """Take an event further; what goes wrong that nobody foresaw is its own matter."""
        try:
            act(item, *given)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._faulted(item, error)

    def _faulted(self, item: Item, error: Exception) -> None:
        """A defect kept an event from going on: it is tried again, as if it had not reached the function."""
        route = self.plan.route
        logger.error("event %s of %s: a defect of the router", item.place, route.stream, exc_info=error)
        if self.lost:
            return
        self.last_error = f"a defect of the router: {error!r}"
        item.tries += 1
        item.last = Failure(self.last_error)
        self._later(item, time.time() + FAULT_SECONDS + verdict.pause(route.retry, item.tries, item.last))

    def _settle(self, item: Item, outcome: Outcome, sent: float) -> None:
        """Do what an answer asks for."""
        item.tries += 1
        item.last = outcome
        judged = verdict.judge(outcome)
        now = self._note(judged, outcome, sent)
        if judged is Verdict.DELIVERED and isinstance(outcome, Answer):
            self._delivered(item, outcome)
        else:
            self.cursor.failed += 1
            self._failed(item, judged, outcome, now)

    def _delivered(self, item: Item, answer: Answer) -> None:
        """The function took the event: it is done when the log has what goes on."""
        if item.absent and self.plan.route.on_success:  # its record tells what the event was
            self._contents.fetch(item, partial(self._delivered, item, answer))
            return
        try:
            parcel = results.of_success(self.plan.route, item, answer)
        except results.BadReply as error:
            self.last_error = str(error)
            self.cursor.failed += 1
            self._bury(item, "BadReply", self.last_error)
            return
        self.cursor.delivered += 1
        self._pass_on(item, parcel, partial(self._out, item))

    def _note(self, judged: Verdict, outcome: Outcome, sent: float) -> float:
        """Count an outcome and follow how much the target takes at once; returns the time."""
        now = time.time()
        self.metrics.attempts[judged].inc()
        self.metrics.seconds.observe(now - sent)
        if judged is Verdict.DELIVERED:
            self.cursor.last_delivery = now
            if self._limit < self.plan.route.parallelism:
                self._limit = min(self._limit + 1 / self._limit, float(self.plan.route.parallelism))
            return now
        self.last_error = verdict.describe(outcome)
        if verdict.overloaded(outcome) and now - self._shrunk > 1:
            self._shrunk = now
            self._limit = max(1.0, self._limit / 2)
        return now

    def _failed(self, item: Item, judged: Verdict, outcome: Outcome, now: float) -> None:
        retry = self.plan.route.retry
        item.attempts += judged is Verdict.FUNCTION_FAILED
        if judged is Verdict.REJECTED:
            self._bury(item, "Rejected", f"the function refused the event: {self.last_error}")
            return
        if item.attempts >= retry.max_attempts:
            self._bury(item, "MaxAttempts", f"{item.attempts} attempts failed, the last with {self.last_error}")
            return
        self._later(item, min(now + verdict.pause(retry, item.tries, outcome), self._expiry(item)))

    def _later(self, item: Item, due: float) -> None:
        """Try an event again at this time."""
        self.failing[item.place] = item
        self._contents.release(item)
        self.schedule.again(item, due)
        self._keeper.touch()
        self._arm()

    def _expiry(self, item: Item) -> float:
        return max(item.stored, self.cursor.started) + self.plan.route.retry.max_age_seconds

    def _wake(self) -> None:
        """Start what is due, and come back when the next one is."""
        self._make_ready(time.time())
        self.pump()
        self._arm()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = time.time()
        due = self._next_due(now)
        if due is not None and not self.lost:
            self._timer = asyncio.get_running_loop().call_later(max(0.001, due - now), self._wake)

    def _out(self, item: Item) -> None:
        """The event is done."""
        self._window.mark(item.sequence, item.index)
        self.schedule.out(item)
        if self.failing:
            self.failing.pop(item.place, None)
        self._bytes -= item.size
        self._shared.budget.used -= item.size
        self._contents.release(item)
        self._keeper.touch()
        self.intake.more()

    # Dead letters

    def _expire(self) -> None:
        """Dead-letter what became too old while nothing may be attempted."""
        now = time.time()
        self._make_ready(now)
        kept = []
        while self.in_flight < BURY_AT_ONCE and (item := self._take()):
            if now >= self._expiry(item):
                self._bury_expired(item)
            else:
                kept.append(item)
        for item in reversed(kept):
            self.schedule.put_back(item)

    def _bury_expired(self, item: Item) -> None:
        age = self.plan.route.retry.max_age_seconds
        last = f", the last attempt ended with {verdict.describe(item.last)}" if item.last else ""
        self._bury(item, "MaxAge", f"not delivered within {age} s; {item.tries} attempts{last}")

    def _bury(self, item: Item, reason: str, message: str) -> None:
        """Store a dead letter, then the event is done."""
        if item.absent and self._contents.queued and not self._contents.has_turn(item):
            item.burial = reason, message
            self.schedule.put_back(item)
            return
        if item.absent:
            self._contents.fetch(item, partial(self._bury, item, reason, message))
            return
        self._give_up(item, reason, message, partial(self._out, item))

    def _give_up(self, item: Item, reason: str, message: str, out: Callable[[], None]) -> None:
        """Store a dead letter, and the record for its destination, then the event is done."""
        parcel = results.of_failure(self.plan.route, item, reason)
        found = letter.of_event(self.plan.route, reason, message, item)
        self._store(found, partial(self._pass_on, item, parcel, out))

    def _pass_on(self, item: Item, parcel: results.Parcel | None, out: Callable[[], None]) -> None:
        """Store what goes to a destination, then the event is done; what the destination does not take is a dead letter."""
        if parcel is None:
            out()
            return
        left = len(parcel.entries)

        def buried() -> None:
            nonlocal left
            left -= 1
            if not left:
                out()

        def settled(trouble: str) -> None:
            if not trouble:
                self.metrics.passed_on.inc(left)
                out()
                self.pump()
                return
            for entry in parcel.entries:
                found = letter.of_parcel(self.plan.route, parcel.to, entry.encoded, trouble, item)
                self._store(found, buried)

        self._outbox.send(parcel, settled)

    def _bury_input(self, sequence: int, index: int, content: bytes, message: str) -> None:
        found = letter.of_input(self.plan.route, message, sequence, index, content)
        self._store(found, partial(self._window.mark, sequence, index))

    def _store(self, found: DeadLetter, out: Callable[[], None]) -> None:
        def stored(found: DeadLetter) -> None:
            self.cursor.dead_lettered += 1
            self.metrics.dead_letter(found.reason)
            out()
            self._keeper.touch()
            if self._paused:
                self._expire()
            self.pump()

        self._outbox.bury(found, stored)

    def _snapshot(self) -> bytes:
        """The cursor as it is to be stored now."""
        troubles = {
            place: Trouble(item.tries, item.attempts, item.first, item.due) for place, item in self.failing.items()
        }
        self._window.store(self.cursor, troubles)
        return msgspec.json.encode(self.cursor)
