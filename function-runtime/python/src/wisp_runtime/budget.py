"""The bytes that all connections may hold at once, and each connection's share of them.

Invariant: what shares have taken and what is left add up to what was allowed; each connection holds ``FREE`` bytes
whatever the others do, lest health is refused where bodies fill the budget.
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
