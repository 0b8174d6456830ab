"""What the deliveries of a router's process share: connections, bounds on memory, and who writes and reads for several of them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from nats.aio.client import Client as Nats

from wisp_events.gather import Gatherer
from wisp_events.router.client import Client as Http
from wisp_events.router.contents import AT_ONCE
from wisp_events.router.feed import Feeds
from wisp_events.router.signer import Signer
from wisp_events.router.tracer import Tracer


@dataclass
class Budget:
    """Bytes of events that all routes of a process hold together."""

    limit: int = 128 * 1024 * 1024
    used: int = 0


@dataclass
class Shared:
    """What the deliveries of a process share."""

    nats: Nats
    http: Http
    me: str
    session: str
    leased: Callable[[], bool]
    """Whether this replica may start attempts."""
    budget: Budget = field(default_factory=Budget)
    turns: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, AT_ONCE))
    """Of large events."""
    signer: Signer = field(default_factory=Signer)
    tracer: Tracer = field(default_factory=Tracer)
    gatherer: Gatherer = field(init=False)
    """Writes what goes to destinations; of all routes, so that they share frames."""
    feeds: Feeds = field(init=False)
    """Reads streams that many routes read."""

    def __post_init__(self) -> None:
        """Write where is read."""
        self.gatherer = Gatherer(self.nats.jetstream())
        self.feeds = Feeds(self.nats)
