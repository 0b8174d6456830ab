"""Which routes a replica knows of, from listings and changes of their bucket.

Invariant: a route is never replaced by an older one of its key, nor dropped by an older listing, whichever replica of NATS
answered: an older route has an older filter, and may hold an order to replay that would be carried out again.
"""

from collections.abc import Sequence

from wisp_events.router.bucket import Entry
from wisp_events.router.plan import InvalidRoute, Plan, compile_route


class Routes:
    """The newest of each route that was seen."""

    def __init__(self) -> None:
        """None is known."""
        self.plans: dict[str, Plan | InvalidRoute] = {}
        self.revision = 0
        """Of the newest change seen."""
        self._revisions: dict[str, int] = {}  # also of what was deleted, as long as listings tell of it

    def reached(self, listing: Sequence[Entry]) -> bool:
        """Whether a listing is as new as what was seen; if not, it lags, or the bucket was made anew."""
        return (listing[-1].revision if listing else 0) >= self.revision

    def compare(self, last: int) -> None:
        """The bucket's leader says which revision is the last: one below those seen is another bucket's, to be listed from nothing."""
        if last < self.revision:
            self.revision = 0
            self._revisions.clear()

    def take(self, entries: Sequence[Entry], *, whole: bool) -> None:
        """Take changes in their order; `whole`: they are a listing of all keys."""
        if whole and self.reached(entries):
            listed = {entry.key for entry in entries}
            for key in self._revisions.keys() - listed:
                del self._revisions[key]
            for key in self.plans.keys() - listed:
                del self.plans[key]
        for entry in entries:
            self.revision = max(self.revision, entry.revision)
            if entry.revision > self._revisions.get(entry.key, 0):
                self._revisions[entry.key] = entry.revision
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        if entry.value is None:
            self.plans.pop(entry.key, None)
            return
        try:
            self.plans[entry.key] = compile_route(entry.value)
        except InvalidRoute as error:
            self.plans[entry.key] = error
