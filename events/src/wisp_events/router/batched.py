"""One route whose events are delivered in batches: as `delivery`, but for what goes together and what an answer means.

Invariant: as `delivery`'s. `_settled` marks done what `batch.settle` calls done; all else of the batch is sent again,
stands behind its key's earlier events again, or becomes a dead letter, the events of a key one after the other.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from wisp_api.cloudevent import NOT_READABLE

from wisp_events.router import batch, verdict
from wisp_events.router.client import BODY_BYTES
from wisp_events.router.cursor import Cursor
from wisp_events.router.delivery import GRACE_SECONDS, Delivery
from wisp_events.router.forming import Forming
from wisp_events.router.plan import Plan
from wisp_events.router.request import pick
from wisp_events.router.schedule import Item
from wisp_events.router.shared import Shared
from wisp_events.router.verdict import Answer, Outcome, Verdict

BURIALS: Final = 64
"""Dead letters of one batch that are stored at once."""


class Batched(Delivery):
    """Delivers one route's events in batches."""

    _forgets = False  # a batch has all its events at once, within BATCH_BYTES

    def __init__(self, shared: Shared, plan: Plan, cursor: Cursor, revision: int) -> None:
        """Continue from a claimed cursor, which is at this revision of its bucket."""
        super().__init__(shared, plan, cursor, revision)
        assert plan.route.batch  # noqa: S101 - else it is a Delivery
        self._ordered = plan.route.order == "key"
        self._forming = Forming(self.schedule, plan.route.batch, plan.form and plan.form.length)

    def update(self, plan: Plan) -> None:
        """Go on under a plan that `reads_like` the one before."""
        self._forming.dissolve(ordered=self._ordered)
        self._forming.rule = plan.route.batch or self._forming.rule
        self._forming.length = plan.form and plan.form.length
        super().update(plan)

    def pump(self) -> None:
        """Start as many batches as may run now, and come back when the window of the one that forms is over."""
        super().pump()
        self._arm()

    def _startable(self) -> bool:
        return self._forming.ready or super()._startable()

    def _make_ready(self, now: float) -> None:
        super()._make_ready(now)
        self._forming.wake(now)

    def _next_due(self, now: float) -> float | None:
        due = [super()._next_due(now), self._forming.next_due(now)]
        return min((one for one in due if one is not None), default=None)

    def _expire(self) -> None:
        self._make_ready(time.time())
        self._forming.dissolve(ordered=self._ordered)
        super()._expire()

    def _start_one(self, now: float) -> bool:
        items = self._forming.take(now, hurry=self._room() == 0)
        if not items:
            return False
        if items[0].burial:
            self._bury(items[0], *items[0].burial)
        elif now >= self._expiry(items[0]):  # the oldest
            self._bury_old(items, now)
        else:
            self._send(items, now)
        return True

    def _send(self, items: list[Item], now: float) -> None:
        plan = self.plan
        index = pick(plan.route.targets, items[0].event.id)
        to = plan.addresses[index]
        retry = any(item.tries for item in items)
        trace, done = self._shared.tracer.follow(plan.route, to, items, partial(self._settled, items, now, retry))
        try:
            request = plan.render_batch(items, to, self._sign(index), trace)
        except NOT_READABLE as error:  # the format was changed since the batch formed
            self._bury_all(items, "Malformed", str(error))
            return
        for item in items:
            item.first, item.to = item.first or now, to
        self._attempts += 1
        self._retries += retry
        self._shared.http.send(to, request, plan.route.timeout_seconds + GRACE_SECONDS, done, batch.ANSWER_BYTES)

    def _settled(self, items: list[Item], sent: float, retry: bool, outcome: Outcome) -> None:  # noqa: FBT001 - a callback
        self._attempts -= 1
        self._retries -= retry
        if self.lost:
            return
        settled = batch.settle(items, outcome, ordered=self._ordered, bisect=self.plan.route.retry.bisect)
        now = self._note(settled.verdict, outcome, sent)
        if settled.verdict is not Verdict.DELIVERED:
            self.last_error = settled.message
        self.cursor.delivered += len(settled.done)
        self.cursor.failed += len(settled.counted) + len(settled.dead)
        last = outcome
        if isinstance(last, Answer):
            last = Answer(last.status, last.marked, last.retry_after, last.body[:BODY_BYTES])
        for item in items:
            item.tries += 1
            item.last = last
        for item in settled.counted:
            item.attempts += 1
        for item in settled.done:
            self._out(item)
        if settled.dead:
            self._bury_all(settled.dead, "Rejected", f"the function refused the batch: {self.last_error}")
        if settled.again:
            self._again(settled, outcome, now)
        self.pump()

    def _again(self, settled: batch.Settled, outcome: Outcome, now: float) -> None:
        """Send again what may be, in halves or with what of it has attempts left."""
        retry = self.plan.route.retry
        for item in settled.again:
            self.failing[item.place] = item
        if settled.split:
            first, free, bound = batch.halves(settled.again, ordered=self._ordered)
            for last, *later in bound:
                self.schedule.part(last, later)
            parts, tries = [first, free], 1
        else:
            parts, tries = [self._left(settled.again)], max(item.tries for item in settled.again)
        for items in parts:
            if items:
                due = now + verdict.pause(retry, tries, outcome)
                self._forming.again(items, min(due, *(self._expiry(item) for item in items[:1])))
        self._keeper.touch()
        self._wake()

    def _left(self, items: list[Item]) -> list[Item]:
        """What of a failed batch has attempts left; the rest become dead letters, and what is behind them follows."""
        most = self.plan.route.retry.max_attempts
        if all(item.attempts < most for item in items):
            return items
        left: list[Item] = []
        dead: list[Item] = []
        for group in batch.groups(items, ordered=self._ordered):
            if number := batch.spent(group, most):
                dead += group[:number]
                self.schedule.part(group[number - 1], group[number:])
            else:
                left += group
        self._bury_all(dead, "MaxAttempts", f"{most} attempts failed, the last with {self.last_error}")
        left.sort(key=lambda item: (item.sequence, item.index))
        return left

    def _bury_old(self, items: list[Item], now: float) -> None:
        """Dead-letter what became too old, send the rest."""
        left: list[Item] = []
        for group in batch.groups(items, ordered=self._ordered):
            first, *later = group
            if now >= self._expiry(first):
                self.schedule.part(first, later)
                self._bury_expired(first)
            else:
                left += group
        if left:
            left.sort(key=lambda item: (item.sequence, item.index))
            self._send(left, now)

    def _bury_all(self, items: list[Item], reason: str, message: str) -> None:
        """Store dead letters, of a key one after the other."""
        chains: list[list[Item]] = [[] for _ in range(BURIALS)]
        for number, item in enumerate(items):
            chains[(hash(item.key) if self._ordered else number) % BURIALS].append(item)
        for chain in chains:
            self._bury_next(iter(chain), reason, message)

    def _bury_next(self, chain: Iterator[Item], reason: str, message: str) -> None:
        item = next(chain, None)
        if item is None:
            return

        def out() -> None:
            self._out(item)
            self._bury_next(chain, reason, message)

        self._give_up(item, reason, message, out)
