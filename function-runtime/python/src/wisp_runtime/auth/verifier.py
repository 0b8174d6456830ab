"""The process that checks tokens: cryptography, and the network where keys are fetched.

It is a fork of the front and no part of it, so that neither the front nor a worker ever holds these libraries: a function
brings its own version of ``cryptography``, which can't be loaded twice in a process.

Invariant: every CHECK is answered by one VERDICT, at once or when the keys that it waits for have been fetched or not.
Nothing of a token is told but what its issuer has signed, and nothing of it is logged.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from wisp_runtime.auth.issuers import DeniedError, Issuer, read_issuers, scopes_of
from wisp_runtime.auth.tokens import Key, Token, read_keys
from wisp_runtime.frames import CHECK, NOTE, RELOAD, VERDICT, Channel
from wisp_runtime.values import depth

if TYPE_CHECKING:
    import _socket as socket

    from wisp_runtime.auth.key_source import KeySource


MAX_DEPTH = 100  # as of what else is handed to workers in a frame's head


def serve(sock: socket.socket, issuers: bytes) -> NoReturn:
    """Answer until the front has gone."""
    gc.freeze()
    gc.enable()
    channel = Channel(sock)
    verifier = Verifier(channel, issuers)
    while (frame := channel.receive()) is not None:
        kind, number, _, body = frame
        if kind == CHECK:
            verifier.check(number, body.decode("latin-1"))
        elif kind == RELOAD:
            verifier.load(body)
    os._exit(0)


class Verifier:
    """The issuers with their keys, and the tokens that wait for some."""

    def __init__(self, channel: Channel, issuers: bytes) -> None:
        """Take the file of issuers, which the front has found right."""
        self._channel = channel
        self._lock = threading.Lock()  # a thread that has fetched keys judges, too
        self._issuers: dict[str, Issuer] = {}
        self._inline: dict[str, list[Key]] = {}
        self._sources: dict[str, KeySource] = {}
        self._waiting: dict[KeySource, list[tuple[int, Token, Issuer]]] = {}
        self.load(issuers)

    def load(self, issuers: bytes) -> None:
        """Go by this file from now on; keys already fetched stay."""
        with self._lock:
            self._issuers = {one.issuer: one for one in read_issuers(issuers)}
            self._inline = {name: read_keys(one.keys) for name, one in self._issuers.items() if one.keys is not None}
            self._sources = {name: self._source(one) for name, one in self._issuers.items() if one.keys is None}
        for source in self._sources.values():
            source.refresh(0 if not source.keys else float("inf"))

    def _source(self, issuer: Issuer) -> KeySource:
        known = self._sources.get(issuer.issuer)
        if known is not None and known.url == issuer.url:
            return known
        from wisp_runtime.auth.key_source import KeySource  # noqa: PLC0415 - with it comes urllib

        return KeySource(issuer.issuer, issuer.url, self._fetched)

    def check(self, number: int, text: str) -> None:
        """Judge a token, or let it wait for its issuer's keys."""
        with self._lock:
            try:
                token = Token(text)
                name = token.claims.get("iss")
                issuer = self._issuers.get(name) if isinstance(name, str) else None
                if issuer is None:
                    raise DeniedError("The token's issuer (iss) is not trusted by this function")  # noqa: TRY301
                source = self._sources.get(issuer.issuer)
                if source is None:
                    self._judge(number, token, issuer, self._inline[issuer.issuer])
                elif token.signed_by(source.keys) is None and self._must_wait(source):
                    self._waiting.setdefault(source, []).append((number, token, issuer))
                else:
                    self._judge_by(number, token, issuer, source)
            except DeniedError as denied:
                self._deny(number, denied)

    def _must_wait(self, source: KeySource) -> bool:
        """Whether the keys are being fetched, as those of a token with an unknown one are from time to time."""
        from wisp_runtime.auth.key_source import UNKNOWN_SECONDS  # noqa: PLC0415

        source.refresh(UNKNOWN_SECONDS)
        return source.fetching

    def _judge_by(self, number: int, token: Token, issuer: Issuer, source: KeySource) -> None:
        """Judge by the keys that a source has, and see that they don't grow old."""
        from wisp_runtime.auth.key_source import STALE_SECONDS  # noqa: PLC0415

        try:
            if source.problem and token.signed_by(source.keys) is None:
                message = "The keys of the token's issuer can't be fetched now: try again"
                raise DeniedError(message, 503, "temporarily_unavailable")  # noqa: TRY301
            self._judge(number, token, issuer, source.keys)
        except DeniedError as denied:
            self._deny(number, denied)
        source.refresh(STALE_SECONDS)

    def _judge(self, number: int, token: Token, issuer: Issuer, keys: list[Key]) -> None:
        signed = token.signed_by(keys)
        if signed is None:
            raise DeniedError("The token is signed with a key that its issuer does not have (kid, alg)")
        if not signed:
            raise DeniedError("The token's signature is wrong")
        told: dict[str, Any] = {"status": 200, "until": issuer.admit(token.claims, time.time())}
        if issuer.claims and depth(token.claims) > MAX_DEPTH:
            raise DeniedError(f"The token's claims are nested deeper than {MAX_DEPTH}")
        if issuer.claims:
            told["jwt"] = {"claims": token.claims, "scopes": scopes_of(token.claims)}
        self._channel.send(VERDICT, number, told)

    def _deny(self, number: int, denied: DeniedError) -> None:
        told = {"status": denied.status, "error": denied.error, "message": denied.message}
        self._channel.send(VERDICT, number, told)

    def _fetched(self, source: KeySource) -> None:
        """Judge what waited; called by the thread that has fetched, or failed to."""
        with self._lock:
            if source.problem:
                message = f"The keys of {source.issuer} can't be fetched: {source.problem}"
                self._channel.send(NOTE, 0, {"message": message[:1000]})
            for number, token, issuer in self._waiting.pop(source, []):
                self._judge_by(number, token, issuer, source)
