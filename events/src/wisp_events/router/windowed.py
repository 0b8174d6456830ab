"""One route whose events are delivered in tumbling windows: as `batched`, but one batch after the other in each shard, with a state.

Invariants: as `delivery`'s; and an event is done exactly if the state of its shard, or one that a last call took away, has it.
`_settled` changes both between two turns of the loop, and they are stored in one record (`Cursor.windows`). A window ends by a
last call when nothing that was stored before its end is undone or unread; until that is answered nothing else of the shard is sent.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from wisp_api.cloudevent import Event

from wisp_events.router import batch, verdict, windows
from wisp_events.router.bucket import LOG_ERRORS
from wisp_events.router.client import BODY_BYTES
from wisp_events.router.cursor import Cursor, Tumbling
from wisp_events.router.delivery import GRACE_SECONDS, Delivery
from wisp_events.router.plan import Plan
from wisp_events.router.request import pick, render, render_plain
from wisp_events.router.schedule import Item
from wisp_events.router.shards import Shard
from wisp_events.router.shared import Shared
from wisp_events.router.verdict import Answer, Outcome, Verdict

SKEW_SECONDS: Final = 2.0
"""So much longer than to its end an idle window stays open: the server's clock decides what belongs to it."""


class Windowed(Delivery):
    """Delivers one route's events in windows."""

    _forgets = False  # a batch has all its events at once, within BATCH_BYTES

    def __init__(self, shared: Shared, plan: Plan, cursor: Cursor, revision: int) -> None:
        """Continue from a claimed cursor, which is at this revision of its bucket."""
        super().__init__(shared, plan, cursor, revision)
        assert plan.route.batch  # noqa: S101 - else it is a Delivery
        self._rule = plan.route.batch
        self._shards = {str(number): Shard(str(number)) for number in range(windows.SHARDS)}
        self._seen = 0.0
        self._looking: asyncio.Task[None] | None = None

    def update(self, plan: Plan) -> None:
        """Go on under a plan that `reads_like` the one before."""
        self._rule = plan.route.batch or self._rule
        self._put_back_heads()
        super().update(plan)

    def tick(self, now: float) -> None:
        """As `Delivery.tick`; and find out whether a window is over of which nothing more comes."""
        super().tick(now)
        over = time.time() - SKEW_SECONDS
        waiting = any(one.state is not None and self._seen < one.end <= over for one in self.cursor.windows.values())
        if waiting and not self.lost and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look(over))

    async def _finish(self) -> None:
        if self._looking:
            self._looking.cancel()
        await super()._finish()

    async def _look(self, since: float) -> None:
        """Nothing more comes from before this time if all that the stream holds now was read."""
        with contextlib.suppress(*LOG_ERRORS):
            last = (await self._js.stream_info(self.plan.route.stream)).state.last_seq
            read = await self.intake.caught_up()
            if read is not None and read >= last:
                self._seen = max(self._seen, since)
                self._wake()

    def _take_frame(self, sequence: int, content: bytes, stored: float, subject: str) -> None:
        self._seen = max(self._seen, stored)
        super()._take_frame(sequence, content, stored, subject)

    def _admit(self, item: Item) -> None:
        item.key, item.lane = windows.shard(item.event), ""
        self._shards[item.key].undone += 1
        super()._admit(item)

    def _out(self, item: Item) -> None:
        shard = self._shards[item.key or ""]
        shard.undone -= 1
        shard.busy = False
        super()._out(item)

    # What may start

    def _startable(self) -> bool:
        now = time.time()
        shards = self._shards.values()
        return super()._startable() or any(one.head and not one.busy and one.due <= now for one in shards)

    def _next_due(self, now: float) -> float | None:
        due = [super()._next_due(now)]
        for shard in self._shards.values():
            if not shard.busy:
                due += [shard.due, shard.since + self._rule.window_seconds if shard.head else None]
        return min((one for one in due if one is not None and one > now), default=None)

    def _expire(self) -> None:
        self._put_back_heads()
        super()._expire()

    def _put_back_heads(self) -> None:
        for shard in self._shards.values():
            if shard.head:
                self.schedule.put_back(shard.head)
                shard.head = None

    def _length(self, item: Item) -> int:
        """Bytes of an event in a call; one that has no record in the route's format becomes one to bury."""
        form = self.plan.form
        return len(item.raw) if form is None or item.event.type == windows.TYPE else form.length(item)

    def _start_one(self, now: float) -> bool:
        while item := self.schedule.take():
            shard = self._shards[item.key or ""]
            shard.head, shard.since = item, now
            self._length(item)
        return any(not shard.busy and self._begin(shard, now) for shard in self._shards.values())

    def _begin(self, shard: Shard, now: float) -> bool:
        """Start what a shard has to start, if there is anything."""
        head, open_window = shard.head, self.cursor.windows.get(shard.name)
        if head and (head.burial or now >= self._expiry(head)):
            shard.head, shard.busy = None, True
            if head.burial:
                self._bury(head, *head.burial)
            else:
                self._bury_expired(head)
            return True
        if now < shard.due:
            return False
        if open_window and shard.over(open_window, self._seen):
            self._end(shard, open_window, now)
            return True
        return head is not None and self._send(shard, head, open_window, now)

    def _send(self, shard: Shard, head: Item, open_window: Tumbling | None, now: float) -> bool:
        """Send the first undone event and what goes with it, unless it waits for more."""
        if windows.is_call(self.plan.route, head.event):  # a last call that was a dead letter
            shard.head = None
            self._post(shard, head.event, [head], partial(self._settled, shard, None, [head], now))
            return True
        window = windows.window(open_window, head.stored, self._rule.tumbling_seconds)
        if not (shard.gathered(self._rule, window.end, self._seen, now) or self._room() == 0):
            return False
        items = shard.gather(self.schedule, head, window, self._rule.size, now, self._length)
        event = windows.call(self.plan, shard.name, window, items)
        self._post(shard, event, items, partial(self._settled, shard, window, items, now))
        return True

    # Attempts

    def _post(self, shard: Shard, event: Event, items: list[Item], answered: Callable[[Outcome], None]) -> None:
        plan = self.plan
        index = pick(plan.route.targets, event.id)
        to = plan.addresses[index]
        retry = any(item.tries for item in items)

        def done(outcome: Outcome) -> None:
            self._attempts -= 1
            self._retries -= retry
            if not self.lost:
                shard.busy = False
                answered(outcome)
                self._wake()

        trace, ended = self._shared.tracer.follow(plan.route, to, items, done)
        signed = self._sign(index)
        request = (
            render(event, to, signed, trace)
            if plan.form is None
            else render_plain(bytes(event.data or b""), event, to, signed, trace)
        )
        self._attempts += 1
        self._retries += retry
        shard.busy = True
        for item in items:
            item.first, item.to = item.first or time.time(), to
        self._shared.http.send(to, request, plan.route.timeout_seconds + GRACE_SECONDS, ended, batch.ANSWER_BYTES)

    def _settled(self, shard: Shard, window: Tumbling | None, items: list[Item], sent: float, outcome: Outcome) -> None:
        """A batch was answered; without window it was a last call."""
        check = windows.Check(window)
        settled = batch.settle(items, outcome, ordered=True, bisect=self.plan.route.retry.bisect, check=check)
        now = self._note(Verdict.DELIVERED if check.early else settled.verdict, outcome, sent)
        if check.early:
            shard.early = True
            shard.put_back(self.schedule, items)
            return
        if settled.verdict is not Verdict.DELIVERED:
            self.last_error = settled.message
        self.cursor.delivered += len(settled.done)
        self.cursor.failed += len(settled.counted) + len(settled.dead)
        if window and settled.done:
            self.cursor.windows[shard.name] = Tumbling(start=window.start, end=window.end, state=check.state)
        if left := settled.again or settled.dead:
            self._count(settled, outcome)
            shard.repeat(left, split=settled.split)
            if settled.again:
                tries = 1 if settled.split else max(item.tries for item in left)
                shard.due = min(now + verdict.pause(self.plan.route.retry, tries, outcome), self._expiry(left[0]))
            shard.put_back(self.schedule, left)
        for item in settled.done:
            self._out(item)
        self._keeper.touch()

    def _count(self, settled: batch.Settled, outcome: Outcome) -> None:
        """Remember what happened to the events that are not done, and which of them are to be buried."""
        most, last = self.plan.route.retry.max_attempts, _brief(outcome)
        for item in (*settled.again, *settled.dead):
            item.tries += 1
            item.last = last
            self.failing[item.place] = item
        for item in settled.counted:
            item.attempts += 1
            if item.attempts >= most:
                item.burial = ("MaxAttempts", f"{most} attempts failed, the last with {self.last_error}")
        for item in settled.dead:
            item.burial = ("Rejected", f"the function refused the batch: {self.last_error}")

    # The end of a window

    def _end(self, shard: Shard, window: Tumbling, now: float) -> None:
        window.ending.first = window.ending.first or now
        event = windows.call(self.plan, shard.name, window, (), early=shard.early)
        self._post(shard, event, [], partial(self._ended_by, shard, window, event, now))

    def _ended_by(self, shard: Shard, window: Tumbling, event: Event, sent: float, outcome: Outcome) -> None:
        """A last call was answered: its window is over, or it is made again, or it becomes a dead letter."""
        retry, ending = self.plan.route.retry, window.ending
        judged = verdict.judge(outcome)
        now = self._note(judged, outcome, sent)
        if judged is Verdict.DELIVERED:
            self._close(shard, window)
            return
        self.cursor.failed += 1
        ending.tries += 1
        ending.attempts += judged is Verdict.FUNCTION_FAILED
        self._keeper.touch()
        if reason := windows.given_up(judged, ending, retry, now):
            shard.busy = True
            message = f"the last call of a window failed, {ending.tries} times, the last with {self.last_error}"
            item = windows.as_item(event, shard.name, ending)
            item.last = _brief(outcome)
            self._give_up(item, reason, message, partial(self._close, shard, window))
        else:
            shard.due = now + verdict.pause(retry, ending.tries, outcome)

    def _close(self, shard: Shard, window: Tumbling) -> None:
        """A window's state was taken over; one that ended early goes on with an empty one."""
        end = window.start if shard.early else window.end
        self.cursor.windows[shard.name] = Tumbling(start=window.start, end=end)
        shard.early = shard.busy = False
        self._keeper.touch()


def _brief(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Answer):
        return Answer(outcome.status, outcome.marked, outcome.retry_after, outcome.body[:BODY_BYTES])
    return outcome
