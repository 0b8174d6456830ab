"""One router process among its replicas: which routes exist, which are its own, what it says of them.

Three loops that don't wait for each other: `_follow` reads members and routes and moves ownership (it may hang while NATS
does), `_turn` gives each delivery its time, `_report` writes what changed. All are polling: a message that NATS or its
client loses delays something by a turn and loses nothing (see `bucket`).
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import nats.js.errors
from nats.aio.client import Client as Nats
from wisp_api import names

from wisp_events.router import batched, bucket, janitor, metrics, status, windowed
from wisp_events.router.claim import claim
from wisp_events.router.client import Client as Http
from wisp_events.router.delivery import GRACE_SECONDS, Delivery
from wisp_events.router.ownership import ALIVE, BEAT_SECONDS, LEAVING, Members, owner
from wisp_events.router.plan import InvalidRoute, Plan
from wisp_events.router.routes import Routes
from wisp_events.router.shared import Shared
from wisp_events.router.tracer import Tracer

if TYPE_CHECKING:
    from wisp_api.route import RouteStatus

logger = logging.getLogger(__name__)

FOLLOW_SECONDS: Final = 0.5
TURN_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 2.0
"""So long between two polls, and nobody's silence counts against them."""
RELIST_SECONDS: Final = 60.0
REPORT_SECONDS: Final = 30.0
CLEAN_SECONDS: Final = 15.0
SHUTDOWN_SECONDS: Final = 20.0
"""Less than the pod's grace period."""
CLAIMS_AT_ONCE: Final = 32


class Replica:
    """Serves this replica's share of the routes."""

    def __init__(
        self, client: Nats, http: Http, me: str, retention_seconds: float, tracer: Tracer | None = None
    ) -> None:
        """`me` is the pod's name: the same after a restart of the container."""
        self._nats = client
        self._js = client.jetstream()
        self._me = me
        self._retention = retention_seconds
        self._members = Members(me, time.monotonic())
        self._shared = Shared(client, http, me, secrets.token_hex(8), self._leased, tracer=tracer or Tracer())
        self._listed = 0.0
        self._polled = 0.0
        self._known = Routes()
        self._routes = self._known.plans
        self._owned: dict[str, Delivery] = {}
        self._moving: dict[str, asyncio.Task[None]] = {}  # claims and releases under way
        self._blocked: dict[str, str] = {}  # why a route could not be claimed
        self._sent: dict[str, tuple[float, RouteStatus]] = {}
        self._leaving = False
        self._claims = asyncio.Semaphore(CLAIMS_AT_ONCE)
        self.trouble = "the routes were not read yet"
        """Why this replica does not do its work now; empty when it does."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is under way and release the routes."""
        following = asyncio.create_task(self._follow())
        tasks = [asyncio.create_task(loop) for loop in (self._turn(), self._report(), self._clean())]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([following, *tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        await self._leave(tasks)
        following.cancel()
        stopping.cancel()
        await asyncio.gather(following, stopping, return_exceptions=True)
        with contextlib.suppress(*bucket.LOG_ERRORS):  # else the key runs out
            await bucket.delete(self._js, names.KV_MEMBERS, self._me)
        for task in (following, *tasks):
            if task in done:
                task.result()  # a loop that ended is a defect: end with its traceback

    async def _leave(self, loops: list[asyncio.Task[None]]) -> None:
        """Hand the routes over while `_follow` goes on to say that this replica lives."""
        self._leaving = True
        self._members.renewed = min(self._members.renewed, time.monotonic() - BEAT_SECONDS)  # say so in the next turn
        for task in (*loops, *self._moving.values()):
            task.cancel()
        await asyncio.gather(*loops, *self._moving.values(), return_exceptions=True)
        await asyncio.gather(*(delivery.drain(SHUTDOWN_SECONDS) for delivery in self._owned.values()))

    def reconnected(self) -> None:
        """NATS is back: read on at once instead of waiting until silence is noticed."""
        for delivery in self._owned.values():
            delivery.intake.start()

    def _leased(self) -> bool:
        return self._members.leased(time.monotonic())

    def _may_take(self, holder: str) -> bool:
        return self._leased() and self._members.may_take(holder, time.monotonic())

    # Following members and routes

    async def _follow(self) -> None:
        while True:
            try:
                await self._poll()
                self._share()
                self.trouble = ""
            except bucket.LOG_ERRORS as error:
                if isinstance(error, bucket.MISSING) and self._nats.is_connected:
                    self.trouble = "the key-value buckets do not exist yet: the operator makes them"
                else:
                    self.trouble = f"NATS does not answer: {error}"
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _poll(self) -> None:
        began = time.monotonic()
        if began - self._polled >= SILENCE_SECONDS:
            self._members.interrupted(began)  # others' beats could not be seen, and may not have been written
        if began - self._members.renewed >= BEAT_SECONDS:
            value = LEAVING if self._leaving else ALIVE
            self._members.beat(await bucket.write(self._js, names.KV_MEMBERS, self._me, value), began)
        for entry in await bucket.changes(self._js, names.KV_MEMBERS):
            self._members.observe(entry.key, entry.revision, time.monotonic(), entry.value)
        whole = began - self._listed >= RELIST_SECONDS
        entries = await bucket.changes(self._js, names.KV_ROUTES, 0 if whole else self._known.revision)
        if whole:
            if not self._known.reached(entries):
                self._known.compare(await bucket.last_revision(self._js, names.KV_ROUTES))
            self._listed = began
        self._known.take(entries, whole=whole)
        self._polled = time.monotonic()

    def _share(self) -> None:
        """Claim what is ours, release what is not, hand changed plans on."""
        if self._leaving:
            return
        sharing = self._members.sharing(time.monotonic())
        for key, delivery in list(self._owned.items()):
            plan = self._routes.get(key)
            ours = isinstance(plan, Plan) and owner(key, sharing) == self._me
            if delivery.lost:
                logger.warning("route %s: its cursor was taken over or deleted", key)
                self._move(key, self._drop(key, delivery))
            elif not ours or not isinstance(plan, Plan) or not plan.reads_like(delivery.plan):
                self._move(key, self._release(key, delivery))
            elif plan is not delivery.plan:
                delivery.update(plan)
        for key, plan in self._routes.items():
            if isinstance(plan, Plan) and key not in self._owned and owner(key, sharing) == self._me:
                self._move(key, self._claim(key, plan))
        metrics.ROUTES.set(len(self._owned))

    def _move(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a claim or release, one at a time per route."""
        if key in self._moving:
            work.close()
            return
        task = asyncio.create_task(work)
        self._moving[key] = task
        task.add_done_callback(partial(self._moved, key))

    def _moved(self, key: str, task: asyncio.Task[None]) -> None:
        del self._moving[key]
        if not task.cancelled() and (error := task.exception()):
            logger.error("route %s could not be moved", key, exc_info=error)

    async def _claim(self, key: str, plan: Plan) -> None:
        try:
            async with self._claims:
                claimed = await claim(self._nats, plan, self._me, self._shared.session, self._may_take)
        except bucket.Changed:
            return  # another was faster; the next turn sees what is right
        except nats.js.errors.NotFoundError:
            self._blocked[key] = f"stream {plan.route.stream} does not exist yet"
            return
        except bucket.LOG_ERRORS:
            return  # `_follow` says it
        except ValueError as error:
            self._blocked[key] = f"the stored cursor does not decode: {error}"
            logger.exception("route %s: its cursor does not decode", key)
            return
        self._blocked.pop(key, None)
        if claimed:
            delivery = self._owned[key] = _kind(plan)(self._shared, plan, *claimed)
            delivery.start()
            logger.info("serving route %s from record %d of %s", key, claimed[0].floor + 1, plan.route.stream)

    async def _release(self, key: str, delivery: Delivery) -> None:
        await delivery.drain(delivery.plan.route.timeout_seconds + GRACE_SECONDS + 5)
        self._forget(key, delivery)

    async def _drop(self, key: str, delivery: Delivery) -> None:
        await delivery.abandon()
        self._forget(key, delivery)

    def _forget(self, key: str, delivery: Delivery) -> None:
        self._owned.pop(key, None)
        self._sent.pop(key, None)
        delivery.metrics.forget()
        logger.info("no longer serving route %s", key)

    # Time, status, purging

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(TURN_SECONDS)
            now = time.monotonic()
            for delivery in list(self._owned.values()):
                delivery.tick(now)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(TURN_SECONDS)
            sharing = self._members.sharing(time.monotonic())
            for key, plan in list(self._routes.items()):
                if owner(key, sharing) != self._me:
                    continue
                try:
                    await self._report_one(key, plan)
                except bucket.LOG_ERRORS:
                    break  # the next turn tries again

    async def _report_one(self, key: str, plan: Plan | InvalidRoute) -> None:
        """Write a route's status: a changed state at once, changed figures every REPORT_SECONDS."""
        delivery = self._owned.get(key)
        now = time.monotonic()
        before = self._sent.get(key)
        due = before is None or now - before[0] >= REPORT_SECONDS
        if delivery and key not in self._moving:
            if due and before:
                await delivery.catch_up()
            delivery.gauge()
            wanted = status.report(delivery, self._me)
        elif isinstance(plan, InvalidRoute):
            wanted = status.invalid(plan, self._me)
        elif key in self._blocked:
            wanted = status.unclaimed(plan.route.uid, plan.route.generation, self._blocked[key], self._me)
        else:
            return
        changed = before is None or _state(before[1]) != _state(wanted)
        if changed or (due and before and before[1] != wanted):
            await bucket.write(self._js, names.KV_STATUS, f"route.{key}", msgspec.json.encode(wanted))
            self._sent[key] = now, wanted

    async def _clean(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_SECONDS)
            try:
                await janitor.clean(self._nats, self._me, self._members.sharing(time.monotonic()), self._retention)
            except (*bucket.LOG_ERRORS, ValueError) as error:
                logger.warning("streams can't be purged now: %s", error)


def _state(status: "RouteStatus") -> tuple[object, ...]:
    """What of a status is told at once."""
    return status.state, status.generation, status.replay


def _kind(plan: Plan) -> type[Delivery]:
    """What delivers a route's events."""
    if plan.route.batch is None:
        return Delivery
    return windowed.Windowed if plan.route.batch.tumbling_seconds else batched.Batched
