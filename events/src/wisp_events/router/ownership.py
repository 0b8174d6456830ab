"""Which replica serves which route. The rules are pure; `replica` acts on them.

Each replica renews its key in KV_MEMBERS every BEAT_SECONDS. A replica is alive while its key changed within
LOST_SECONDS by the observer's own clock; after a silence of NATS itself everyone gets that long again. The owner of a
route is the live replica with the highest hash of (replica, route), so a replica that comes or goes moves only its share.

Invariants: a route is taken over only with its owner's release, or when its owner is not alive, or by the owner itself in
a new session; the cursor's revision decides between two who try. A replica that could not renew its own key for
LEASE_SECONDS (less than LOST_SECONDS) starts no attempts, so an owner that was cut off overlaps its successor by what
it had under way at most.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

BEAT_SECONDS: Final = 1.5
LOST_SECONDS: Final = 6.0
LEASE_SECONDS: Final = 5.0
ALIVE: Final = b"alive"
LEAVING: Final = b"leaving"


def owner(route: str, members: Iterable[str]) -> str:
    """The live replica that a route belongs to; empty without any."""
    return max(members, key=lambda member: hashlib.blake2b(f"{member}\0{route}".encode()).digest(), default="")


class Members:
    """Who is alive, by this replica's clock."""

    def __init__(self, me: str, now: float) -> None:
        """Only this replica is known."""
        self._me = me
        self._silence = now
        self._revisions: dict[str, int] = {}  # also of what was deleted
        self._newest = 0
        self._seen: dict[str, float] = {}
        self._leaving: set[str] = set()
        self.renewed = 0.0
        """When this replica's own key was last written, counted from before the write."""

    def beat(self, revision: int, began: float) -> None:
        """This replica's own key was written; one whose revision is behind those seen is in a bucket that was made anew."""
        self.renewed = began
        if revision < self._newest:
            self._revisions.clear()
            self._newest = 0

    def observe(self, member: str, revision: int, now: float, value: bytes | None) -> None:
        """A member's key was read: ALIVE, LEAVING (it finishes what it has and takes nothing) or deleted. What lags is passed over."""
        if revision <= self._revisions.get(member, 0):
            return
        self._revisions[member] = revision
        self._newest = max(self._newest, revision)
        if value == LEAVING:
            self._leaving.add(member)
        else:
            self._leaving.discard(member)
        if value is None:
            self._seen.pop(member, None)
        else:
            self._seen[member] = now

    def interrupted(self, now: float) -> None:
        """NATS was away: nobody can be blamed for silence until now."""
        self._silence = now

    def sharing(self, now: float) -> list[str]:
        """The live replicas that don't leave, this one always among them."""
        others = self._seen.keys() - self._leaving - {self._me}
        return [self._me, *(member for member in others if not self._lost(member, now))]

    def may_take(self, holder: str, now: float) -> bool:
        """Whether a route that `holder` has may be taken from it."""
        return holder in ("", self._me) or self._lost(holder, now)

    def leased(self, now: float) -> bool:
        """Whether this replica may start attempts: others still count it as alive."""
        return now - self.renewed < LEASE_SECONDS

    def _lost(self, member: str, now: float) -> bool:
        return now - max(self._seen.get(member, 0.0), self._silence) >= LOST_SECONDS
