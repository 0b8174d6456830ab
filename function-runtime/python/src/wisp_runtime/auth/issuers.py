"""Whose tokens are taken: the file that the operator writes, as values.

Invariant: what ``read_issuers`` returns can be used as it stands; a file that says anything unclear is refused as a whole,
so that a mistake in it admits nobody.

The file: ``{"issuers": [...]}``, each with ``issuer`` and ``audiences``, and its public keys: ``keys`` (a JWK set), or
``jwksUrl``, or neither, then ``issuer`` itself says where they are (OpenID Connect discovery). ``callers``: the subjects
that are admitted, one that ends in ':' stands for all that begin so; absent: all. ``scopes``: what a token must have
of. ``claims``: whether the function is told what the token says.
"""

from __future__ import annotations

import json
from typing import Any

SKEW_SECONDS = 60.0
MAX_SCOPE = 256  # scopes of one token that are told


class IssuersError(Exception):
    """Raised when the file can't be used; the message says why."""


class DeniedError(Exception):
    """Raised when a token is not taken: the status, RFC 6750's error code and a sentence."""

    def __init__(self, message: str, status: int = 401, error: str = "invalid_token") -> None:
        """Say what is wrong, never with words of the token."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.error = error


class Issuer:
    """One issuer, and which of its tokens are taken."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Read its entry.

        Raises:
            IssuersError: It is none.
        """
        self.issuer = _text(given, "issuer")
        self.audiences = _texts(given, "audiences") or []
        self.keys: dict[str, Any] | None = given.get("keys")
        self.url = _text(given, "jwksUrl") if "jwksUrl" in given else ""
        self.callers = _texts(given, "callers")
        self.scopes = _texts(given, "scopes") or []
        self.claims = given.get("claims") is True
        if not self.audiences:
            raise IssuersError(f"issuer {self.issuer}: audiences is empty")
        if self.keys is not None and not isinstance(self.keys, dict):
            raise IssuersError(f"issuer {self.issuer}: keys is no JWK set")

    def admit(self, claims: dict[str, Any], now: float) -> float:
        """Check what a token says whose signature is right; return until when it holds.

        Raises:
            DeniedError: It is not taken.
        """
        until = self._check_time(claims, now)
        audience = claims.get("aud", claims.get("client_id") if self.claims else None)  # as Amazon Cognito has it
        meant = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(one, str) and one in self.audiences for one in meant):
            raise DeniedError(f"The token is for somebody else: its audience (aud) must be {_any_of(self.audiences)}")
        subject = claims.get("sub")
        if self.callers is not None and not (isinstance(subject, str) and self._is_caller(subject)):
            message = "The token is good, but its subject may not call this function: see auth.callers of the Function"
            raise DeniedError(message, 403, "insufficient_scope")
        if not set(self.scopes) <= set(scopes_of(claims)):
            message = f"The token is good, but lacks a scope: this function asks for {' '.join(self.scopes)}"
            raise DeniedError(message, 403, "insufficient_scope")
        return until

    def _check_time(self, claims: dict[str, Any], now: float) -> float:
        expires = _time(claims, "exp")
        if expires is None:
            raise DeniedError("The token has no end: it needs exp")
        if expires + SKEW_SECONDS <= now:
            raise DeniedError("The token has expired")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and begins - SKEW_SECONDS > now:
                raise DeniedError(f"The token is not valid yet: see its {name}, and this machine's clock")
        return expires + SKEW_SECONDS

    def _is_caller(self, subject: str) -> bool:
        callers = self.callers or []
        return any(subject == one or (one.endswith(":") and subject.startswith(one)) for one in callers)


def read_issuers(text: bytes | str) -> list[Issuer]:
    """Read the file.

    Raises:
        IssuersError: It can't be used.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IssuersError(f"no JSON: {error}") from None
    listed = document.get("issuers") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise IssuersError("no list of issuers")
    issuers = [Issuer(one) for one in listed]
    if len({one.issuer for one in issuers}) < len(issuers):
        raise IssuersError("an issuer is there twice")
    return issuers


def scopes_of(claims: dict[str, Any]) -> list[str]:
    """Return the token's scopes: of ``scope`` (RFC 8693) or ``scp``, words of a text or a list."""
    given = claims.get("scope", claims.get("scp"))
    listed = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return [scope for scope in listed if isinstance(scope, str)][:MAX_SCOPE]


def _time(claims: dict[str, Any], name: str) -> float | None:
    """Return a claim that is a time (RFC 7519, NumericDate), None where it is absent."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:  # noqa: PLR2004 - no date
        raise DeniedError(f"The token's {name} is no time")
    return float(value)


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise IssuersError(f"{name} is {value!r:.100}, not a text")
    return value


def _texts(given: dict[str, Any], name: str) -> list[str] | None:
    value = given.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) and one for one in value)):
        raise IssuersError(f"{name} is {value!r:.100}, not a list of texts")
    return value


def _any_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
