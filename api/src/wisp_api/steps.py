"""What judging one event by one Subscription's patterns may cost: both are a tenant's, and all tenants' routes wait meanwhile.

Invariant: a step is the work of a tenth of a microsecond or so, and whatever grows with the pattern and with the event takes some: an operator for
each value that it is tried on and for each TEXT_BYTES of it, a name for each object. So no pattern and no event hold a router up for longer than
STEPS take, a fraction of a second. How it could fail: a condition that costs more than its steps.
"""

from typing import Any, Final

STEPS: Final = 1_000_000
LEVELS: Final = 64
"""Objects in one another, in a Subscription's patterns: each takes some of Python's stack, here and where they are matched."""
CONDITIONS: Final = 1_000
"""Names and operators of a Subscription's patterns; the values of a list are one lookup, however many there are."""
TEXT_BYTES: Final = 128


class TooComplex(ValueError):  # noqa: N818 - as the reason of a dead letter
    """Raised when judging an event would take too long."""


class Steps:
    """What is left of the steps, and what the patterns have that takes them."""

    __slots__ = ("conditions", "left", "level")

    def __init__(self) -> None:
        """All of them, and no patterns."""
        self.left = STEPS
        self.conditions = 0
        self.level = 0

    def take(self, count: int) -> None:
        """Count work that is about to be done.

        Raises:
            TooComplex: it is too much.
        """
        self.left -= count
        if self.left < 0:
            raise TooComplex(
                f"the filter would take more than {STEPS:,} comparisons; name what is in no long array, or have fewer conditions"
            )

    def try_on(self, operators: int, leaves: list[Any]) -> None:
        """Count that each of some values is looked up, and that so many operators are tried on it; raises as `take`."""
        count = len(leaves)
        if operators:
            texts = sum([len(leaf) for leaf in leaves if type(leaf) is str])
            count += operators * (len(leaves) + texts // TEXT_BYTES)
        self.take(count)
