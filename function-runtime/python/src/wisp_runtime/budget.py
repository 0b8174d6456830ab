"""The bytes that all connections may hold at once: of requests by shares, of answers by who has let them lie.

Invariant: what shares have taken and what is left add up to what was allowed; each connection holds ``FREE`` bytes
whatever the others do, lest health is refused where bodies fill the budget. An answer is there already and can't be
refused: where all together are more than allowed, ``Unread`` says whose is let go.
"""

from __future__ import annotations

FREE = 8192


class Budget:
    """The bytes of requests that the process may hold at once, whoever sends them."""

    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        """Allow so many bytes."""
        self.left = most


class Share:
    """What one connection holds.

    Attributes:
        held: Bytes in hand.
    """

    __slots__ = ("_budget", "_taken", "held")

    def __init__(self, budget: Budget) -> None:
        """Hold nothing yet."""
        self._budget = budget
        self._taken = 0  # those of the bytes that the budget knows of
        self.held = 0

    def add(self, more: int) -> bool:
        """Hold so many bytes more, or less; false, and nothing changes, where the budget hasn't got them."""
        if not self._taken and self.held + more <= FREE:
            self.held += more
            return True
        taken = max(0, self.held + more - FREE)
        wanted = taken - self._taken
        if wanted > max(0, self._budget.left):
            return False
        self._budget.left -= wanted
        self._taken = taken
        self.held += more
        return True

    def set(self, size: int) -> bool:
        """Hold so many bytes instead; false, and nothing changes, where the budget hasn't got them."""
        return self.add(size - self.held)


class Unread:
    """What callers have not read of their answers, by their connections' descriptors; who began to let it lie first is first."""

    __slots__ = ("_held", "_most", "_total")

    def __init__(self, most: int) -> None:
        """Allow so many bytes."""
        self._most = most
        self._held: dict[int, int] = {}
        self._total = 0

    @property
    def over(self) -> bool:
        """Whether it is more than allowed."""
        return self._total > self._most

    def set(self, fd: int, size: int) -> None:
        """Take note that so much is unread at a connection."""
        self._total += size - self._held.get(fd, 0)
        if size:
            self._held[fd] = size
        else:
            self._held.pop(fd, None)

    def first(self, least: int) -> int:
        """Return who has let more than so much lie for longest, or else anything: a stream that goes on always has a little."""
        return next((fd for fd, size in self._held.items() if size > least), next(iter(self._held)))
