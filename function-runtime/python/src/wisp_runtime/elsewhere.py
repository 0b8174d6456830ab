"""A runtime in another container of the pod: what there is instead of ending it.

Nobody here can end another container's process. Invariant: while the runtime is still at an invocation whose time is over
the pod is not ready, nobody waits for it longer than for a start, and the probe of its container's life fails once, so that
the kubelet starts it anew. Failing again before it could be back would end it at each of its starts.
"""

from __future__ import annotations

import time

from wisp_runtime.front import open_port

LATE_SECONDS = 2.0  # for what is nearly done
START_SECONDS = 60.0  # for a container's end and start, image and all


class Elsewhere:
    """Where that runtime is.

    Attributes:
        listener: Where its client finds us. It outlives the bridge, which takes it as its descriptor 0: between one bridge and the
            next a client waits, and isn't refused, which would end it.
        here: It has asked for an invocation and takes the next.
        missed: It has been waited for as long as a start may take.
    """

    def __init__(self, port: int) -> None:
        """Open the port that its client looks for.

        Raises:
            InitError: It can't be opened.
        """
        self.listener = open_port("127.0.0.1", port)
        self.here = self.missed = False
        self._overran = 0.0

    def came(self) -> None:
        """Take note that it takes invocations."""
        self.here, self.missed, self._overran = True, False, 0.0

    def left(self) -> None:
        """Take note that it takes none."""
        self.here = False

    def overran(self) -> None:
        """Take note that it is at an invocation whose time is over."""
        self._overran = time.monotonic()

    def alive(self) -> bool:
        """Say whether its container may live; no is said once."""
        now = time.monotonic()
        if not self._overran or now - self._overran < LATE_SECONDS:
            return True
        self._overran = now + START_SECONDS
        return False
