"""An issuer's public keys, from where it publishes them.

Invariant: whoever asks never waits for the network; a thread fetches. The last good keys stay while the issuer is away. An
unknown key has it asked again at most every ``UNKNOWN_SECONDS``, whatever callers send; known ones are looked at again
every ``STALE_SECONDS``, so that a withdrawn key goes. What is read is bounded in size and time, redirects are not followed.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.request import HTTPRedirectHandler, Request, build_opener

from wisp_runtime.auth.tokens import read_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.auth.tokens import Key

UNKNOWN_SECONDS = 30.0
STALE_SECONDS = 300.0
FETCH_SECONDS = 5.0
MAX_BYTES = 1 << 20
DISCOVERY = "/.well-known/openid-configuration"


class KeySource:
    """Where one issuer's keys come from.

    Attributes:
        keys: The last good ones.
        fetching: Whether a thread asks just now; it calls ``done`` afterwards.
        problem: Why the last try failed, empty if it did not.
    """

    def __init__(self, issuer: str, url: str, done: Callable[[KeySource], None]) -> None:
        """Fetch from ``url``, or from where the issuer's discovery document says."""
        self.issuer = issuer
        self.url = url
        self.keys: list[Key] = []
        self.fetching = False
        self.problem = ""
        self._done = done
        self._tried = -UNKNOWN_SECONDS

    def refresh(self, seconds: float) -> None:
        """Begin to fetch, unless that was tried less than so many seconds ago."""
        if self.fetching or time.monotonic() - self._tried < seconds:
            return
        self.fetching = True
        threading.Thread(target=self._fetch, daemon=True).start()

    def _fetch(self) -> None:
        keys: list[Key] = []
        try:
            keys = read_keys(fetch(self._find_url()))
            problem = "" if keys else "there is no key of a kind that is used here"
        except Exception as error:  # noqa: BLE001 - urllib and http.client fail in many ways
            problem = str(error) or type(error).__name__
        self.keys = keys or self.keys
        self.problem = problem
        self._tried = time.monotonic()
        self.fetching = False
        self._done(self)

    def _find_url(self) -> str:
        if self.url:
            return self.url
        document = fetch(self.issuer.rstrip("/") + DISCOVERY)
        if document.get("issuer") != self.issuer:
            raise ValueError(f"the discovery document is of another issuer: {document.get('issuer')!r:.200}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith(("https://", self.issuer[: self.issuer.find("//") + 2])):
            raise ValueError(f"the discovery document's jwks_uri can't be used: {url!r:.200}")
        return url


class _StayHere(HTTPRedirectHandler):
    """Follows no redirect: its target was not what the Function trusts."""

    def redirect_request(self, *arguments: Any) -> None:
        """Don't."""


def fetch(url: str) -> dict[str, Any]:
    """Get a JSON object.

    Raises:
        OSError: It can't be had.
        ValueError: It is too long, too slow, or no JSON object.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url:.200} is no address to fetch from")
    request = Request(url, headers={"accept": "application/json", "user-agent": "wisp"})  # noqa: S310 - see above
    until = time.monotonic() + 2 * FETCH_SECONDS
    data = b""
    with build_opener(_StayHere).open(request, timeout=FETCH_SECONDS) as answer:
        while part := answer.read1(65536):
            data += part
            if len(data) > MAX_BYTES or time.monotonic() > until:
                raise ValueError(f"{url:.200} sends more than {MAX_BYTES} bytes, or for too long")
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError(f"{url:.200} sends no JSON object")  # noqa: TRY004 - not a fault of ours
    return document
