"""The operator's side of the code store: does it hold an archive, and away with what nothing refers to.

Invariant: nothing that a revision names is ever deleted. The operator is the only one that makes a reference and the only one that
deletes, and it does either under the namespace's lock: `adopt` looks that the archive is there and then writes the Service that names
it; `collect` reads every reference and then deletes. So an archive that is deleted was named by nothing when the lock was
taken, and one that is named afterwards was there. An operator that lost its Lease ends at once, seconds before another begins.
What people upload is named after it was stored: the store itself keeps it for the retention from the last time that they asked for it.
"""

import asyncio
import logging
from collections import defaultdict

import aiohttp
import msgspec
from wisp_api import names
from wisp_api.code import MANAGE, SECRET, StoredPage, capability

from wisp_operator.api import FUNCTIONS, KNATIVE_SERVICES, REVISIONS, SECRETS, Api, ApiError
from wisp_operator.code_objects import make_secret, used_digests

_log = logging.getLogger(__name__)
_SECONDS = 10.0
_LONGEST_PAUSE = 3600.0
_YOUNGER = 409


class StoreError(Exception):
    """Raised when the store does not answer as it should."""


class CodeStore:
    """A connection to the store."""

    def __init__(self, url: str, key: str) -> None:
        """`key` is what capabilities are made of."""
        self._url = f"{url}/v1/code"
        self._key = key
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By namespace; see the module."""
        self._equipped: set[str] = set()
        self._headers = {"authorization": f"Bearer {capability(key, MANAGE)}"}
        self._session: aiohttp.ClientSession | None = None

    async def equip(self, api: Api, namespace: str) -> None:
        """Write a namespace's capabilities, once a process: they can't be read, and writing the same changes nothing.

        Raises:
            ApiError: refused.
        """
        async with self.locks[namespace]:
            if namespace not in self._equipped:
                await api.put(SECRETS, make_secret(namespace, self._key))
                self._equipped.add(namespace)

    async def strip(self, api: Api, namespace: str) -> None:
        """Take a namespace's capabilities away; to be called under its lock.

        Raises:
            ApiError: refused.
        """
        self.forget(namespace)
        await api.delete(SECRETS, namespace, SECRET)

    def forget(self, namespace: str) -> None:
        """Have its capabilities written anew when they are needed next: someone may have changed them."""
        self._equipped.discard(namespace)

    async def lacks(self, namespace: str, digests: set[str]) -> set[str]:
        """Those of the archives that are not there.

        Raises:
            StoreError: the store can't tell.
        """
        return {one for one in digests if await self._status("HEAD", f"/{namespace}/{one}", {200, 404}) != 200}  # noqa: PLR2004 - HTTP's OK

    async def delete(self, namespace: str, sha256: str, older: float) -> bool:
        """Delete an archive that was stored, or asked for by who uploads, longer ago than this; whether it is gone.

        Raises:
            StoreError: it could not be done.
        """
        status = await self._status("DELETE", f"/{namespace}/{sha256}?older={int(older)}", {204, _YOUNGER})
        return status != _YOUNGER

    async def ages(self) -> dict[str, dict[str, float]]:
        """How many seconds ago each archive was stored, by namespace.

        Raises:
            StoreError: the store can't tell.
        """
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        after = ""
        while True:
            page = await self._page(after)
            for one in page.archives:
                found[one.namespace][one.sha256] = one.age_seconds
            if not page.next:
                return found
            after = page.next

    async def _page(self, after: str) -> StoredPage:
        try:
            async with self._open().get(self._url, params={"after": after}) as answer:
                answer.raise_for_status()
                return msgspec.json.decode(await answer.read(), type=StoredPage)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise StoreError(f"the code store does not answer: {error!r}") from None

    async def _status(self, method: str, path: str, expected: set[int]) -> int:
        try:
            async with self._open().request(method, self._url + path) as answer:
                if answer.status in expected:
                    return answer.status
                raise StoreError(f"the code store answers {answer.status}: {(await answer.text())[:300]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StoreError(f"the code store does not answer: {error!r}") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(_SECONDS))
        return self._session


async def references(api: Api, namespace: str) -> set[str]:
    """Every archive that something of a namespace names, by its digest: a Revision, a Service, or a Function's memory of its last fetch.

    Of a Function whose archives are being fetched or built it is their keys, or requirements: no digest, but not nothing.

    Raises:
        ApiError: the API can't tell.
    """
    used: set[str] = set()
    for service in await api.list(KNATIVE_SERVICES, namespace, names.FUNCTION_LABEL):
        used |= used_digests(service["spec"]["template"]["spec"])
    for revision in await api.list(REVISIONS, namespace, names.FUNCTION_LABEL):
        used |= used_digests(revision["spec"])
    for function in await api.list(FUNCTIONS, namespace):
        used |= {one["sha256"] for one in function.get("status", {}).get("archives", [])}
        if built := function.get("status", {}).get("requirements"):
            used.add(built["sha256"])
        used |= set(function["spec"].get("requirements", []))
        if stored := function["spec"]["code"].get("stored"):
            used.add(stored["sha256"])
        used |= {
            one["key"] for one in [function["spec"]["code"].get("zip"), *function["spec"].get("layers", [])] if one
        }
    return used


async def collect(api: Api, store: CodeStore, retention: float) -> None:
    """Delete the archives that are older than the retention and that nothing refers to; after the last one the namespace's capabilities.

    Raises:
        StoreError, ApiError: it could not be done to the end.
    """
    for namespace, ages in (await store.ages()).items():
        async with store.locks[namespace]:
            used = await references(api, namespace)
            for sha256 in sorted({one for one, age in ages.items() if age > retention} - used):
                if await store.delete(namespace, sha256, retention):
                    _log.info("code %s of namespace %s was collected: nothing refers to it", sha256, namespace)
                    del ages[sha256]
            if not used and not ages:
                await store.strip(api, namespace)


async def keep_collecting(api: Api, store: CodeStore, retention: float) -> None:
    """Collect again and again, until cancelled; that it can't be done, and that it can again, is told of once."""
    pause = min(max(retention / 10, 1), _LONGEST_PAUSE)
    failing = False
    while True:
        await asyncio.sleep(pause)
        try:
            await collect(api, store, retention)
        except (StoreError, ApiError, OSError) as error:
            if not failing:
                _log.warning("unused code could not be collected: %s; tried again, told of when it is done", error)
            failing = True
        else:
            if failing:
                _log.info("unused code is collected again")
            failing = False
