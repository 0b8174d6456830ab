"""Who calls: a Kubernetes ServiceAccount, by a token that the cluster signed for the ingest.

The Kubernetes API is never asked. The operator copies the cluster's public keys into the log (`source.TokenKeys`); a token is good by
signature, issuer, audience and time alone. So one that was made for a pod is good until it expires, an hour at most by default,
although the pod or the ServiceAccount is gone.

Invariant: no caller without a valid signature of one of the cluster's keys, by that key's own algorithm. Tokens found good are remembered
until they expire or the keys change.
"""

import asyncio
import logging
import time
from typing import Final, NamedTuple

import jwt
import msgspec
from nats.js import JetStreamContext
from wisp_api import names
from wisp_api.source import TokenKeys

from wisp_events.ingest.door import Headers, header
from wisp_events.router import bucket
from wisp_events.web import Refusal

logger = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 10.0
UNKNOWN_SECONDS: Final = 1.0
"""How often at most the keys are read again for a token that none of them signed."""
_REMEMBERED: Final = 4096
_TOKEN_BYTES: Final = 8192
_SKEW_SECONDS: Final = 10
_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"})
_SUBJECT: Final = "system:serviceaccount:"
_SEND: Final = "send `Authorization: Bearer TOKEN`, as from `kubectl create token NAME --audience "
_HINT: Final = f"{_SEND}{names.AUDIENCE}`"


class Caller(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str
    pod: str = ""
    """The pod that the token was made for; empty where it was made for none."""

    def allowed(self, grants: list[str]) -> bool:
        """Whether one of the grants, `namespace/name` or `namespace/*`, is for it."""
        return f"{self.namespace}/{self.name}" in grants or f"{self.namespace}/*" in grants


class Tokens:
    """Tells callers by their tokens."""

    def __init__(self, js: JetStreamContext) -> None:
        """No key is read yet."""
        self._js = js
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._revision = 0
        self._read_at = -REFRESH_SECONDS
        self._reading = asyncio.Lock()
        self._good: dict[tuple[str, str], tuple[Caller, float]] = {}
        """By audience and token."""

    async def caller(self, headers: Headers, audience: str = names.AUDIENCE) -> Caller:
        """Who sent a request, with a token for this audience. `wisp-authorization` is for those behind a proxy that keeps `authorization` to itself.

        Raises:
            Refusal: nobody that the cluster vouches for.
        """
        given = header(headers, b"wisp-authorization") or header(headers, b"authorization")
        scheme, _, rest = given.partition(b" ")
        if scheme.lower() != b"bearer" or not rest.strip():
            raise _unauthorized(f"who calls? {_SEND}{audience}`")
        if len(rest) > _TOKEN_BYTES:
            raise _unauthorized(f"the token is longer than {_TOKEN_BYTES} bytes")
        token = rest.strip().decode(errors="replace")
        await self._refresh(REFRESH_SECONDS)
        known = self._good.get((audience, token))
        if known and time.time() < known[1]:
            return known[0]
        found, expires = self._check(token, await self._key(token), audience)
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good[audience, token] = found, expires
        return found

    async def _key(self, token: str) -> jwt.PyJWK:
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
        except jwt.InvalidTokenError as error:
            raise _unauthorized(f"the token is no JSON Web Token ({error}): {_HINT}") from None
        if kid not in self._keys:
            await self._refresh(UNKNOWN_SECONDS)
        if not self._keys:
            raise Refusal(503, "the cluster's keys are not known here yet: the operator brings them", retry_after="3")
        if kid not in self._keys:
            raise _unauthorized(f"no key of this cluster signed the token: {_HINT}")
        return self._keys[kid]

    def _check(self, token: str, key: jwt.PyJWK, audience: str) -> tuple[Caller, float]:
        """The token's ServiceAccount, and until when it is good."""
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=audience,
                issuer=self._issuer,
                leeway=_SKEW_SECONDS,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.InvalidAudienceError:
            raise _unauthorized(
                f"the token was not made for the ingest, its audience is not {audience}: {_SEND}{audience}`"
            ) from None
        except jwt.ExpiredSignatureError:
            raise _unauthorized("the token has expired: read the mounted file again, or make another") from None
        except jwt.InvalidTokenError as error:
            raise _unauthorized(f"the token is not valid ({error}): {_HINT}") from None
        subject = str(claims["sub"])
        namespace, _, name = subject.removeprefix(_SUBJECT).partition(":")
        if not subject.startswith(_SUBJECT) or not namespace or not name:
            raise _unauthorized(f"the token is of {subject}, which is no ServiceAccount: {_HINT}")
        bound = claims.get("kubernetes.io")
        pod = bound.get("pod") if isinstance(bound, dict) else None
        return Caller(namespace, name, str(pod.get("name", "")) if isinstance(pod, dict) else ""), float(claims["exp"])

    async def _refresh(self, after: float) -> None:
        """Read the keys again if the last time is this long ago; while the log is away those that are known stay."""
        if time.monotonic() - self._read_at < after:
            return
        async with self._reading:
            if time.monotonic() - self._read_at < after:
                return
            try:
                entry = await bucket.read(self._js, names.KV_SOURCES, names.TOKEN_KEYS)
            except bucket.LOG_ERRORS as error:
                if not self._keys:
                    raise Refusal(503, f"the event log is away: {error}", retry_after="3") from error
                return
            self._read_at = time.monotonic()
            if entry and entry.value and entry.revision != self._revision:
                self._take(entry.value)
                self._revision = entry.revision

    def _take(self, value: bytes) -> None:
        try:
            found = msgspec.json.decode(value, type=TokenKeys)
            usable = jwt.PyJWKSet.from_json(bytes(found.jwks).decode()).keys
        except (msgspec.DecodeError, jwt.PyJWTError) as error:
            logger.warning("the cluster's keys can't be read, those known stay: %s", error)
            return
        self._issuer = found.issuer
        self._keys = {key.key_id or "": key for key in usable if key.algorithm_name in _ALGORITHMS}
        self._good.clear()


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, message, www_authenticate="Bearer")
