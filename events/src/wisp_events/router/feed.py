"""One reading of a stream for many routes: each record is fetched and decoded once, and handed to the routes that it could concern.

A route of a bus reads through a `Branch`. Where its cursor is behind the stream's `Feed` it begins with a reading of its own, and joins when it is as far; a
route that has no room leaves it, goes on alone, and joins again. So nobody waits for a slow one, and a thousand routes that an event does not
concern cost one lookup (`wisp_api.pattern_index`).

Invariant: of each record that matches its subjects a branch hands over those that hold an event for it, once, in the order of the log; what it is not
handed holds none by its patterns. A branch joins where it has read at least as far as the feed, and passes over what it has read already. What can't
be decoded is handed to every branch: it is theirs to bury.
How it could fail: a route's subjects say more than its patterns. On a bus they are made of them (`type`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from nats.aio.client import Client
from wisp_api import cloudevent, names
from wisp_api.pattern_index import Index
from wisp_api.subscription import BUS

from wisp_events.router.bucket import LOG_ERRORS
from wisp_events.router.intake import PULL_FRAMES, Frame, Intake
from wisp_events.router.plan import Plan

logger = logging.getLogger(__name__)

FEW: Final = 3
"""So many routes judge for themselves as fast."""
RETRY_SECONDS: Final = 1.0
JOIN_SECONDS: Final = 2.0
"""So often one that reads alone asks whether it has read all."""


def is_shared(plan: Plan) -> bool:
    """Whether a route's stream may have many readers whose patterns say all that their subjects do."""
    route = plan.route
    return route.stream.startswith(names.stream(route.namespace, BUS, ""))


class Feeds:
    """The feeds of a process, by stream."""

    def __init__(self, client: Client) -> None:
        """None yet."""
        self._client = client
        self._feeds: dict[str, Feed] = {}

    def branch(self, plan: Plan, after: int, frame: Frame, room: Callable[[], int]) -> "Branch":
        """A route's way of reading its bus, as an `Intake`."""
        stream = plan.route.stream
        self._feeds = {name: feed for name, feed in self._feeds.items() if not feed.closed}
        if stream not in self._feeds:
            self._feeds[stream] = Feed(self._client, stream)
        return Branch(self._client, self._feeds[stream], plan, after, frame, room)


class Feed:
    """The reading of one stream that its branches share; it begins at the stream's end, and ends with its last branch."""

    def __init__(self, client: Client, stream: str) -> None:
        """Read nothing yet."""
        self._client = client
        self._stream = stream
        self._intake: Intake | None = None
        self._problem = ""
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._users: set[Branch] = set()
        self._joined: dict[Branch, None] = {}  # in the order of joining
        self._index: Index[Branch] | None = None
        self.closed = False
        self.events = 0
        """That went by."""
        self.size = 0
        """Of them in the record that goes by now."""

    @property
    def read(self) -> int | None:
        """Stream sequence of the last record that all who have joined have seen; None before it reads."""
        return self._intake.read if self._intake else None

    @property
    def pending(self) -> int:
        """Records in the stream that were not read yet."""
        return self._intake.pending if self._intake else 0

    @property
    def trouble(self) -> str:
        """Why nothing is read now."""
        return self._intake.trouble if self._intake else self._problem

    @property
    def stale(self) -> bool:
        """As `Intake.stale`."""
        return self._intake is not None and self._intake.stale

    def use(self, branch: "Branch") -> None:
        """A branch may join."""
        self._users.add(branch)
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    def join(self, branch: "Branch") -> None:
        """Hand over from the next record on."""
        self._joined[branch] = None
        self._index = None

    def part(self, branch: "Branch") -> None:
        """Hand over nothing more."""
        self._joined.pop(branch, None)
        self._index = None

    def changed(self) -> None:
        """A branch has other patterns."""
        self._index = None

    def forget(self, branch: "Branch") -> None:
        """A branch has ended; the feed ends with the last one."""
        self.part(branch)
        self._users.discard(branch)
        if not self._users and not self.closed:
            self.closed = True
            self._stopping = asyncio.get_running_loop().create_task(self._stop())

    def check(self, now: float) -> None:
        """As `Intake.check`."""
        if self._intake:
            self._intake.check(now)

    def again(self) -> None:
        """Read on at once: the connection is back."""
        if self._intake:
            self._intake.start()

    async def _start(self) -> None:
        while not self.closed:
            try:
                last = (await self._client.jetstream().stream_info(self._stream)).state.last_seq
            except LOG_ERRORS as error:
                self._problem = f"stream {self._stream} can't be read now: {error}"
                await asyncio.sleep(RETRY_SECONDS)
                continue
            subjects = [self._stream_subjects()]
            self._intake = Intake(self._client, self._stream, subjects, last, self._take, lambda: PULL_FRAMES)
            self._intake.start()
            for branch in list(self._users):
                branch.start()
            return

    def _stream_subjects(self) -> str:
        _, namespace, kind, source = self._stream.split("_", 3)
        return names.stream_subjects(namespace, kind, source)

    async def _stop(self) -> None:
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._intake:
            await self._intake.stop()

    def _take(self, sequence: int, content: bytes, stored: float, subject: str) -> None:
        for branch in self._concerned(content, subject):
            branch.hand(sequence, content, stored, subject)

    def _concerned(self, content: bytes, subject: str) -> list["Branch"]:
        """The branches that a record could concern."""
        joined, self.size = list(self._joined), 0
        if ".redrive." in subject:
            return [branch for branch in joined if branch.redriven == subject]
        try:
            frame = cloudevent.decode_frame(content)
            self.size = len(frame)
            self.events += self.size
            if len(joined) <= FEW:
                return joined
            if self._index is None:
                self._index = Index((one, one.plan.matcher, one.plan.route.filters) for one in joined)
            found: dict[Branch, None] = {}
            for raw in frame:
                found |= dict.fromkeys(self._index(cloudevent.decode(raw)))
        except cloudevent.NOT_READABLE:
            return joined
        return list(found)


class Branch:
    """One route's reading of a bus: by itself, or with others."""

    def __init__(  # noqa: PLR0917 - as an Intake
        self, client: Client, feed: Feed, plan: Plan, after: int, frame: Frame, room: Callable[[], int]
    ) -> None:
        """Hand over to `frame` what comes after a stream sequence; `room` tells how many more records may come now."""
        self._client = client
        self._feed = feed
        self.plan = plan
        self.redriven = names.redrive_subject(plan.route.stream, plan.route.uid)
        self._frame = frame
        self._room = room
        self._read = after
        self._own: Intake | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0.0
        self._stopped = False
        self._broken = ""
        self._counted = 0  # of the feed's events
        self._left_out = 0

    @property
    def read(self) -> int:
        """Stream sequence up to which everything was handed over that is for this route."""
        return max(self._read, self._feed.read or 0) if self._joined else self._read

    @property
    def pending(self) -> int:
        """As `Intake.pending`."""
        return self._own.pending if self._own else self._feed.pending

    @property
    def trouble(self) -> str:
        """As `Intake.trouble`."""
        return self._broken or (self._own.trouble if self._own else self._feed.trouble)

    @property
    def stale(self) -> bool:
        """As `Intake.stale`."""
        return self._feed.stale or (self._own is not None and self._own.stale)

    @property
    def _joined(self) -> bool:
        return self in self._feed._joined  # noqa: SLF001 - two halves of one thing

    def start(self) -> None:
        """Begin to read as soon as the feed does; or, when the connection is back, read on at once."""
        if self._stopped or self._broken:
            return
        self._feed.use(self)
        if self._joined:
            self._feed.again()
        elif self._own:
            self._own.start()
        elif self._feed.read is not None and not self.try_to_join():
            self._read_alone()

    def update(self, plan: Plan) -> None:
        """Go on with other patterns."""
        self.plan = plan
        self._feed.changed()

    def try_to_join(self) -> bool:
        """Join the feed if it is not ahead."""
        position = self._feed.read
        if position is None or position > self._read or self._stopped or self._broken:
            return self._joined
        if not self._joined:
            self._leave_own()
            self._counted = self._feed.events
            self._feed.join(self)
        return True

    def hand(self, sequence: int, content: bytes, stored: float, subject: str) -> None:
        """Take a record from the feed; without room for it, leave the feed before it."""
        self._counted += self._feed.size
        if sequence <= self._read:
            return
        if self._room() <= 0:
            self._part(sequence - 1)
            self._read_alone()
            return
        try:
            self._frame(sequence, content, stored, subject)
        except Exception as error:  # as in Intake: passing it over would lose it
            self._part(sequence - 1)
            self._broken = f"reading has stopped at record {sequence}, a defect of the router: {error!r}"
            logger.exception("reading %s: record %d can't be taken", self.plan.route.stream, sequence)
        else:
            self._read = sequence

    def left_out(self) -> int:
        """As `Intake.left_out`."""
        count, self._left_out, self._counted = self._count(), 0, self._feed.events
        return count

    def check(self, now: float) -> None:
        """As `Intake.check`."""
        if self._own is None:
            self._feed.check(now)
            return
        self._own.check(now)
        if now - self._asked > JOIN_SECONDS and not self._own.pending:
            self._asked = now
            self._keep(self._ask())

    async def _ask(self) -> None:
        """Join where nothing more comes that would show how far this is."""
        with contextlib.suppress(*LOG_ERRORS):
            await self.caught_up()

    def more(self) -> None:
        """As `Intake.more`."""
        if self._own:
            self._own.more()

    async def caught_up(self) -> int | None:
        """As `Intake.caught_up`."""
        if self._joined:
            return self.read
        if self._own is None:
            return None
        own = self._own
        last = await own.caught_up()
        if last is not None and self._own is own:
            self._read = max(self._read, last)
            self.try_to_join()
        return last

    async def stop(self) -> None:
        """Hand over nothing more."""
        self._stopped = True
        self._leave_own()
        self._feed.forget(self)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _part(self, read: int) -> None:
        """Leave the feed, having read up to here."""
        self._left_out = self._count()
        self._feed.part(self)
        self._read = max(self._read, read)

    def _count(self) -> int:
        return self._left_out + (self._feed.events - self._counted if self._joined else 0)

    def _read_alone(self) -> None:
        route = self.plan.route
        own = Intake(self._client, route.stream, route.subjects, self._read, self._take_own, self._room)
        self._own = own
        own.start()

    def _take_own(self, sequence: int, content: bytes, stored: float, subject: str) -> None:
        if self._own is None or sequence <= self._read:
            return  # it comes by the feed
        self._frame(sequence, content, stored, subject)
        self._read = sequence
        self.try_to_join()

    def _leave_own(self) -> None:
        own, self._own = self._own, None
        if own:
            self._keep(own.stop())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
