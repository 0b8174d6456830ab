"""Only one operator acts: the holder of a coordination.k8s.io Lease.

Invariant: two holders never overlap, as long as clocks run at about the same speed. A candidate takes over only after it has itself watched the Lease stand
still for its whole duration (no clock of another machine is read); a holder whose renewals failed for `GIVE_UP_SECONDS`, which
is less, has ended. The API's resourceVersion decides between two candidates. A holder that stops in an orderly way releases.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Final

import aiohttp
import prometheus_client
from wisp_api import names

from wisp_operator.api import LEASES, Api, ApiError, Object

NAME: Final = "wisp-operator"
DURATION_SECONDS: Final = 10
GIVE_UP_SECONDS: Final = 7
RETRY_SECONDS: Final = 2
_FAILURES: Final = (ApiError, OSError, TimeoutError, aiohttp.ClientError)
"""A conflict is one of them: the next read tells who holds it."""
_active = prometheus_client.Gauge("wisp_operator_active", "1 while this process holds the Lease")
_log = logging.getLogger(__name__)


class Lease:
    """The Lease, seen by one process."""

    def __init__(self, api: Api, namespace: str, identity: str) -> None:
        """`identity` is unique: two processes with the same would both hold it."""
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._live: Object | None = None
        self._seen = time.monotonic()

    async def acquire(self) -> None:
        """Return when this process holds the Lease."""
        while True:
            try:
                if await self._take():
                    break
            except _FAILURES as error:
                _log.warning("the Lease could not be read or written: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        _active.set(1)
        _log.info("this operator is active")

    async def keep(self) -> None:
        """Renew for ever; return when the Lease is lost, on which the process must end at once."""
        renewed = time.monotonic()
        while (left := GIVE_UP_SECONDS - (time.monotonic() - renewed)) > 0:
            started = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    if not await self._take():
                        break
                    renewed = started
            except _FAILURES as error:
                _log.warning("the Lease could not be renewed: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        _log.error("the Lease is lost")

    async def release(self) -> None:
        """Let another take over at once."""
        if self._live and self._live["spec"].get("holderIdentity") == self._identity:
            self._live["spec"]["holderIdentity"] = ""
            try:
                await self._api.replace(LEASES, self._namespace, self._live)
            except _FAILURES as error:
                _log.warning("the Lease could not be released: %s", error)

    async def _take(self) -> bool:
        """Take or renew the Lease; False where another holds it."""
        live = await self._api.get(LEASES, self._namespace, NAME)
        if live is None:
            self._live = await self._api.create(LEASES, self._namespace, self._make(None))
            return True
        if self._live is None or live["metadata"]["resourceVersion"] != self._live["metadata"]["resourceVersion"]:
            self._seen = time.monotonic()
        self._live = live
        holder = live["spec"].get("holderIdentity")
        if holder and holder != self._identity and time.monotonic() - self._seen < DURATION_SECONDS:
            return False
        self._live = await self._api.replace(LEASES, self._namespace, self._make(live))
        return True

    def _make(self, live: Object | None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(live["spec"]) if live else {"leaseTransitions": 0}
        if spec.get("holderIdentity") != self._identity:
            spec |= {
                "holderIdentity": self._identity,
                "acquireTime": now,
                "leaseTransitions": spec.get("leaseTransitions", 0) + 1,
            }
        spec |= {"renewTime": now, "leaseDurationSeconds": DURATION_SECONDS}
        metadata = (
            live["metadata"] if live else {"name": NAME, "namespace": self._namespace, "labels": dict(names.LABELS)}
        )
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
