"""The gate between front and function: a request passes with a token that an issuer of the Function has signed.

Invariant: no request reaches the function before its token was found good, by the file of issuers as it is now, and none of
the gate's own headers do: what a caller forges of them is dropped, and a token of the platform or of the cluster is taken
off. Nor does an event that its caller has made as a whole, where the function is told what tokens say: the claims in it
would be the caller's own words. The gate holds no library of cryptography and never waits: a process of its own checks (``verifier``), and what that
has found good is remembered for up to ``REMEMBER_SECONDS``. While the verifier is away callers get 503, never a pass.

A refusal is RFC 6750's: 401 or 403 with ``WWW-Authenticate``, whose realm tells the router that the runtime gave it and not
the function's code.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from wisp_runtime import journal
from wisp_runtime.auth.issuers import IssuersError, read_issuers
from wisp_runtime.calls import CLAIMS, EVENT_FORMAT, Call
from wisp_runtime.children import how_it_ended
from wisp_runtime.errors import BadRequestError, InitError
from wisp_runtime.frames import CHECK, NOTE, RELOAD, VERDICT
from wisp_runtime.http1 import error_reply
from wisp_runtime.spawning import fork_verifier

if TYPE_CHECKING:
    from wisp_runtime.connection import Connection
    from wisp_runtime.function import Function
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Worker

REALM = "wisp"
TOKEN = "wisp-authorization"  # noqa: S105 - a header: for callers behind a proxy that takes Authorization for itself
MAX_TOKEN = 16 * 1024
REMEMBER_SECONDS = 300.0
REMEMBER_BYTES = 2 << 20  # of tokens; what is kept of each is about as long again
LOOK_SECONDS = 1.0  # how often the file is looked at, while requests come
CHECK_SECONDS = 5.0  # for keys to be fetched; what comes later serves the next call
SWEEP_SECONDS = 1.0
_QUOTABLE = frozenset(map(chr, range(0x20, 0x7F))) - {'"', "\\"}  # RFC 6750, section 3
_MESSAGES = {
    "": "This function asks for a token: send Authorization: Bearer ... (auth of the Function says whose)",
    "invalid_request": "Send one token: Authorization or Wisp-Authorization, once, of at most 16 KiB",
}


_OWN_EVENT = (
    "Only the platform brings this function its events as they stand, for they tell whose they are: leave out "
    f"{EVENT_FORMAT}, and the body is the event's"
)


class Grant:
    """What was found of a good token: until when it holds, and what the function is told of it."""

    __slots__ = ("jwt", "until")

    def __init__(self, told: dict[str, Any]) -> None:
        """Take the verifier's word."""
        self.until = min(told["until"], time.time() + REMEMBER_SECONDS)
        self.jwt: dict[str, Any] | None = told.get("jwt")


class Waiting:
    """A request whose token is being checked."""

    __slots__ = ("_gate", "connection", "request", "token", "until", "version")

    def __init__(self, gate: Gate, connection: Connection, request: HttpRequest, token: str, version: int) -> None:
        """Hold them together; ``version``: of the issuers by which it is checked."""
        self._gate = gate
        self.connection = connection
        self.request = request
        self.token = token
        self.version = version
        self.until = time.monotonic() + CHECK_SECONDS

    def settle(self, told: dict[str, Any]) -> None:
        """Go on as the verifier says, if the caller is still there."""
        if self.connection.request is self.request:
            self._gate.settle(self, told)

    def failed(self, error: Exception) -> None:
        """End its connection, after a fault of ours."""
        self.connection.failed(error)


class Gate:
    """What the front takes for the function, and the function behind it."""

    def __init__(self, loop: Loop, function: Function, settings: Settings) -> None:
        """Guard a function.

        Raises:
            InitError: The file of issuers can't be used.
        """
        self.settings = settings
        self._loop = loop
        self._function = function
        self._verifier: Worker | None = None
        self._waiting: dict[int, Waiting] = {}
        self._number = 0
        self._sweeping = False
        self._grants: dict[str, Grant] = {}  # oldest first
        self._remembered = 0
        self._issuers, self._mark, self._version = b"", (0, 0), 0
        self._looked = time.monotonic()
        try:
            self._read()
        except (OSError, IssuersError) as error:
            text = f"WISP_AUTH_FILE {settings.auth_file} can't be used: {error}"
            raise InitError("Runtime.InvalidConfiguration", text) from None

    def start(self) -> None:
        """Have the verifier ready when the first request comes."""
        self._verifier = fork_verifier(self._loop, self, self.settings, self._issuers)
        self._function.processes.adopt(self._verifier)

    # What the front calls.

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Let a request pass, refuse it, or have its token checked first."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        token, error = find_token(request)
        if not token:
            self._refuse(connection, request, 400 if error == "invalid_request" else 401, error, _MESSAGES[error])
            return
        grant = self._grants.get(token)
        if grant is not None and grant.until > time.time():
            self._admit(connection, request, grant)
        else:
            self._check(Waiting(self, connection, request, token, self._version))

    def withdraw(self, call: Call) -> None:
        """Pass it on."""
        self._function.withdraw(call)

    # The verifier.

    def _check(self, waiting: Waiting) -> None:
        if self._verifier is None:
            try:
                self.start()
            except OSError as error:
                journal.emit("ERROR", f"The process that checks tokens can't be started: {error}")
                _put_off(waiting)
                return
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._waiting[number] = waiting
        if self._verifier is not None:
            self._verifier.send(CHECK, number, {}, waiting.token.encode("latin-1"))
        if not self._sweeping:
            self._sweeping = True
            self._loop.after(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Give up what has waited too long."""
        now = time.monotonic()
        for number in [number for number, one in self._waiting.items() if one.until <= now]:
            self._loop.guard(self._waiting.pop(number).settle, {"status": 503})
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.after(SWEEP_SECONDS, self._sweep)

    def on_frame(self, worker: Worker, kind: int, number: int, head: dict[str, Any], body: bytes) -> None:
        """Take what the verifier says."""
        del worker, body
        if kind == NOTE:
            journal.emit("WARNING", head["message"])
        elif kind == VERDICT and (waiting := self._waiting.pop(number, None)) is not None:
            self._loop.guard(waiting.settle, head)

    def on_end(self, worker: Worker) -> None:
        """Do without it until the next token is to be checked; who waits tries again."""
        if worker is not self._verifier:
            return
        self._verifier = self._function.processes.verifier = None
        journal.emit("ERROR", f"The process that checks tokens has ended and is started anew: {how_it_ended(worker)}")
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            self._loop.guard(one.settle, {"status": 503})

    def settle(self, waiting: Waiting, told: dict[str, Any]) -> None:
        """Let a request pass whose token was found good, or refuse it."""
        connection, request = waiting.connection, waiting.request
        if told["status"] == 503:  # noqa: PLR2004 - nobody could say
            _put_off(waiting, told.get("message", ""))
        elif told["status"] != 200:  # noqa: PLR2004 - not good
            self._refuse(connection, request, told["status"], told["error"], told["message"])
        else:
            grant = Grant(told)
            if waiting.version == self._version:
                self._remember(waiting.token, grant)
            self._admit(connection, request, grant)

    def _remember(self, token: str, grant: Grant) -> None:
        if self._grants.pop(token, None) is None:
            self._remembered += len(token)
        self._grants[token] = grant
        while self._remembered > REMEMBER_BYTES:
            oldest = next(iter(self._grants))
            del self._grants[oldest]
            self._remembered -= len(oldest)

    # What becomes of a request.

    def _admit(self, connection: Connection, request: HttpRequest, grant: Grant) -> None:
        """Pass it on without what is not the function's, unless it is an event that its caller may not make."""
        if grant.jwt is not None and EVENT_FORMAT in request.fields:
            self._refuse(connection, request, 403, "insufficient_scope", _OWN_EVENT)
            return
        dropped = {TOKEN, CLAIMS}
        if grant.jwt is None and TOKEN not in request.fields:
            dropped.add("authorization")
        request.headers = [field for field in request.headers if field[0] not in dropped]
        request.fields = dict(request.headers)
        request.jwt = grant.jwt
        self._function.submit(connection, request)

    def _refuse(self, connection: Connection, request: HttpRequest, status: int, error: str, message: str) -> None:
        challenge = f'Bearer realm="{REALM}"'
        if error:
            text = "".join(letter if letter in _QUOTABLE else "'" for letter in message)
            challenge += f', error="{error}", error_description="{text}"'
        request.keep_alive = request.keep_alive and not request.upgrade  # what follows a handshake may be frames
        call = connection.call = Call(connection, request)
        error_type = {400: "InvalidRequest", 403: "Forbidden"}.get(status, "Unauthorized")
        call.refuse(BadRequestError(error_type, message, status, ("www-authenticate", challenge)))

    # The file of issuers.

    def _look(self) -> None:
        """Take the file anew if it has changed; one that can't be used changes nothing."""
        self._looked = time.monotonic()
        try:
            status = os.stat(self.settings.auth_file)  # noqa: PTH116 - pathlib costs 10 ms at start
            if (status.st_ino, status.st_mtime_ns) == self._mark:
                return
            self._read()
        except (OSError, IssuersError) as error:
            text = f"{self.settings.auth_file} can't be used, callers are judged by what it said before: {error}"
            journal.emit("ERROR", text)
            return
        self._grants, self._remembered = {}, 0
        if self._verifier is not None:
            self._verifier.send(RELOAD, 0, {}, self._issuers)

    def _read(self) -> None:
        with open(self.settings.auth_file, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            text = file.read()
        self._mark = status.st_ino, status.st_mtime_ns
        read_issuers(text)
        self._issuers = text
        self._version += 1


def find_token(request: HttpRequest) -> tuple[str, str]:
    """Return the request's bearer token, or RFC 6750's error, empty where there is no token at all."""
    fields = request.fields
    name = TOKEN if TOKEN in fields else "authorization"
    scheme, _, token = fields.get(name, "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return "", ""
    if len(token) > MAX_TOKEN or sum(header == name for header, _ in request.headers) > 1:
        return "", "invalid_request"
    return token.strip(), ""


def _put_off(waiting: Waiting, message: str = "") -> None:
    """Ask the caller to try again; without the mark of an answer that is the function's own."""
    if waiting.connection.request is waiting.request:
        waiting.request.keep_alive = waiting.request.keep_alive and not waiting.request.upgrade
        text = message or "The token could not be checked now: try again"
        waiting.connection.answer(error_reply(503, "ServiceUnavailable", text, [("retry-after", "5")]))
