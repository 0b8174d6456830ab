"""The router's tokens: short-lived, one for each Function that asks for one, signed with the platform's key.

Invariant: a token that is handed out holds for at least `RENEW_SECONDS` more, longer than a delivery may wait for a pod; a key
that was rotated is used within `LOOK_SECONDS`. Signing costs nothing per event: tokens are kept.
"""

import base64
import json
import logging
import os
import time
from pathlib import Path
from typing import Final

import nacl.signing
from wisp_api import caller

LIFE_SECONDS: Final = 1800
RENEW_SECONDS: Final = 900
LOOK_SECONDS: Final = 10
_KEY: Final = Path("/etc/wisp/caller") / caller.CURRENT
logger = logging.getLogger(__name__)


class Signer:
    """The key, read from a file that the kubelet refreshes, and the tokens signed with it."""

    def __init__(self, key: Path | None = None) -> None:
        """Read nothing yet; the file is WISP_CALLER_KEY's unless given."""
        self._path = key or Path(os.environ.get("WISP_CALLER_KEY", _KEY))
        self._text = ""
        self._looked = 0.0
        self._key: nacl.signing.SigningKey | None = None
        self._headers: dict[str, tuple[float, bytes]] = {}

    def header(self, audience: str) -> bytes:
        """The header line with a token for this audience; empty, and logged, while there is no key."""
        now = time.time()
        if abs(now - self._looked) > LOOK_SECONDS:
            self._looked = now
            self._look()
        if self._key is None:
            return b""
        renewed, line = self._headers.get(audience, (0.0, b""))
        if renewed <= now:
            line = b"authorization: Bearer " + sign(self._key, audience, int(now)) + b"\r\n"
            self._headers = {name: held for name, held in self._headers.items() if held[0] > now}
            self._headers[audience] = now + LIFE_SECONDS - RENEW_SECONDS, line
        return line

    def _look(self) -> None:
        """Take the key anew where it has changed; the one before stays where the new one can't be read."""
        try:
            text = self._path.read_text().strip()
            if text != self._text:
                self._key = nacl.signing.SigningKey(bytes.fromhex(text))
                self._text, self._headers = text, {}
        except (OSError, ValueError) as error:  # whose texts might tell of the key
            logger.warning(
                "the key that deliveries are signed with can't be read at %s: %s", self._path, type(error).__name__
            )


def sign(key: nacl.signing.SigningKey, audience: str, now: int) -> bytes:
    """A token for an audience (RFC 7519, EdDSA)."""
    header = {"alg": "EdDSA", "typ": "JWT", "kid": caller.key_id(bytes(key.verify_key))}
    claims = {"iss": caller.ISSUER, "sub": "router", "aud": audience, "iat": now, "exp": now + LIFE_SECONDS}
    signed = b".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    return signed + b"." + _encode(key.sign(signed).signature)


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
