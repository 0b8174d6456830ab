"""Bring a function's archive into the platform's own code store, before the manifest that names it is applied.

The ingest gives a ticket for this one archive to who shows a token of the namespace's ServiceAccount `default`, made for nothing else; with
it the bytes go to the store, both through the API server's proxy. Invariant: when this returns, the store has the archive and keeps it for
hours, so that the manifest may name it; and what it has already is not sent again.
"""

import json
import time
import urllib.request
from typing import Final, NamedTuple

from wisp_api import caller, names

from wisp import output
from wisp.cluster import Cluster
from wisp.door import explain
from wisp.errors import CommandError, RefusedError, UnreachableError

_INGEST: Final = "wisp-ingest:8080"
_STORE: Final = "wisp-store:8080"
_ACCOUNT: Final = "default"
_SECONDS: Final = 60
"""Without a byte in either direction."""
_LINE_SECONDS: Final = 600
"""The same of an upload: the store takes so many at once, the others wait in line."""
_PATIENCE_SECONDS: Final = 120
"""From the first time that it was told to come again, however long that attempt took."""
_ATTEMPTS: Final = 3
"""At least: a slow line is cut off for those who wait after as long as that."""
_PAUSE_SECONDS: Final = 2
_OK: Final = 200
_CREATED: Final = 201
_NOT_FOUND: Final = 404
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})


class _Said(NamedTuple):
    """An answer of a service."""

    status: int
    body: bytes
    service: str


class _Door(NamedTuple):
    """A service of the platform behind the API server, and the token for it."""

    cluster: Cluster
    system: str
    service: str
    token: str

    def ask(self, method: str, path: str, data: bytes = b"", seconds: float = _SECONDS) -> _Said:
        """The answer, unless the service is busy; raises BusyError, UnreachableError."""
        headers = {caller.HEADER: f"Bearer {self.token}", "Content-Type": "application/zip"}
        request = urllib.request.Request(f"http://{self.service}", data, headers, method=method)
        with self.cluster.proxy(self.system, self.service, request, path, seconds) as answer:
            said = _Said(answer.status, answer.read(), self.service)
        if said.status in _BUSY:
            told = " ".join(said.body.decode(errors="replace").split())[:300]
            raise BusyError(f"{self.service} answers {said.status}: {told}")
        return said


class BusyError(Exception):
    """Raised when it may do to try again."""


def bring(cluster: Cluster, sha256: str, data: bytes, system: str) -> bool:
    """Store an archive, unless it is there; whether it was sent. `system` is the platform's namespace.

    Raises:
        CommandError: it is not stored.
    """
    attempts, deadline, told = 0, 0.0, ""
    while True:
        attempts += 1
        try:
            return _try(cluster, sha256, data, system)
        except BusyError as busy:
            deadline = deadline or time.monotonic() + _PATIENCE_SECONDS
            if attempts >= _ATTEMPTS and time.monotonic() > deadline:
                raise CommandError(f"the code can't be uploaded now: {busy}") from None
            if str(busy) != told:
                output.tell(f"the code is not uploaded yet: {busy}; trying again")
            told = str(busy)
        time.sleep(_PAUSE_SECONDS)


def _try(cluster: Cluster, sha256: str, data: bytes, system: str) -> bool:
    """Raises as `bring`, and BusyError."""
    place = f"/v1/code/{cluster.namespace}/{sha256}"
    store = _Door(cluster, system, _STORE, _ticket(cluster, sha256, system))
    there = store.ask("POST", place)
    if there.status == _OK:
        return False
    if there.status != _NOT_FOUND or there.body:  # the API server's own 404 has a body
        raise _refused(there, system)
    output.tell(f"code {sha256[:12]} goes to the code store, {len(data) / (1 << 20):.1f} MiB")
    try:
        sent = store.ask("PUT", place, data, _LINE_SECONDS)
    except UnreachableError as error:
        raise BusyError(str(error)) from None
    if sent.status != _CREATED:
        raise _refused(sent, system)
    return True


def _ticket(cluster: Cluster, sha256: str, system: str) -> str:
    try:
        token = cluster.token(_ACCOUNT, names.CODE_AUDIENCE)
    except RefusedError as error:
        raise CommandError(
            f"no token for ServiceAccount {_ACCOUNT} of {cluster.namespace}, in whose name code is uploaded; it asks for the right to create "
            f"serviceaccounts/token, which Kubernetes' role edit has: {error}"
        ) from None
    path = f"/v1/namespaces/{cluster.namespace}/archives/{sha256}"
    said = _Door(cluster, system, _INGEST, token).ask("POST", path)
    if said.status != _OK:
        raise _refused(said, system)
    ticket: str = json.loads(said.body)["ticket"]
    return ticket


def _refused(said: _Said, system: str) -> CommandError:
    told = explain(said.status, said.body, said.service.partition(":")[0], system)
    return CommandError(f"the code is not uploaded: {told}")
