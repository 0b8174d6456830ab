"""The Runtime API, ``/2018-06-01/runtime``: invocations go out as answers to ``next``, responses come in.

Invariant: an invocation is with at most one poll at a time and answered once. A runtime that asks for the next one without
having answered gets the same one again, as in AWS Lambda; one that answers what it wasn't asked gets 400 or 403. In another
container it has been started anew, and what its predecessor had fails.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from wisp_runtime.bridge import responses
from wisp_runtime.bridge.events import make_event
from wisp_runtime.errors import BadRequestError
from wisp_runtime.frames import END, ERROR

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.bridge.server import Exchange
    from wisp_runtime.bridge.settings import Settings

PREFIX = "/2018-06-01/runtime/"
# A runtime's states, by AWS' names.
_STARTED, _INIT_ERROR, _READY = "Started", "InitError", "Ready"
_RESPONSE, _ERROR, _SENT = "InvocationResponse", "InvocationErrorResponse", "RuntimeResponseSentState"
_ERROR_TYPE = "lambda-runtime-function-error-type"
_MODE = "lambda-runtime-function-response-mode"


class Lifecycle(Protocol):
    """What the API tells the process."""

    def send(self, kind: int, number: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Write a frame to the front, after what was printed before."""

    def runtime_polls(self) -> None:
        """The runtime asks for its next invocation."""

    def runtime_left(self) -> None:
        """The runtime no longer waits for the invocation that it asked for."""

    def may_run(self) -> bool:
        """Whether the next invocation may begin."""

    def init_failed(self, error: dict[str, Any]) -> None:
        """The runtime can't be made ready."""

    def began(self, invocation: Invocation) -> None:
        """An invocation is on its way to the runtime."""

    def done(self, invocation: Invocation, error_type: str | None) -> None:
        """An invocation is answered."""


class Invocation:
    """An event that the front gave us.

    Attributes:
        number: The front's.
        id: The request id.
        head: The INVOKE frame's.
        event: What the runtime gets.
        state: ``Ready`` until its answer begins to come.
        stream: Its streamed response, while there is one.
        exchange: The request that carries it.
        started: ``time.monotonic()`` when the runtime got it; 0 before.
    """

    __slots__ = ("event", "exchange", "head", "id", "number", "started", "state", "stream")

    def __init__(self, number: int, head: dict[str, Any], event: bytes) -> None:
        """Take it over."""
        self.number = number
        self.id: str = head["id"]
        self.head = head
        self.event = event
        self.state = _READY
        self.stream: responses.Streamed | None = None
        self.exchange: Exchange | None = None
        self.started = 0.0


class RuntimeApi:
    """The invocations that are open, and the polls that wait for one."""

    def __init__(self, settings: Settings, process: Lifecycle) -> None:
        """Serve a runtime that hasn't polled yet."""
        self._settings = settings
        self._process = process
        self._state = _STARTED
        self._waiting: deque[Exchange] = deque()
        self._queue: deque[Invocation] = deque()
        self._running: dict[str, Invocation] = {}
        self._sent = ""  # the id that was answered last

    # The front's side.

    def invoke(self, number: int, head: dict[str, Any], body: bytes) -> None:
        """Take an INVOKE frame."""
        try:
            event = make_event(head, body)
        except BadRequestError as error:
            fault = {"errorType": error.error_type, "errorMessage": error.message, "fault": "request"}
            self._process.send(ERROR, number, fault)
            return
        self._queue.append(Invocation(number, head, event))
        self.dispatch()

    def fail_all(self, error: dict[str, Any]) -> None:
        """Answer what is open with an error, and say that the worker ends."""
        for invocation in (*self._queue, *self._running.values()):
            message = f"RequestId: {invocation.id} {error['errorMessage']}"
            self._abandon(invocation, error | {"errorMessage": message, "ends": True})

    def _abandon(self, invocation: Invocation, error: dict[str, Any]) -> None:
        """Answer in the runtime's place; what it still says is taken and dropped."""
        self._running.pop(invocation.id, None)
        if invocation in self._queue:
            self._queue.remove(invocation)
        started = invocation.stream is not None and invocation.stream.started
        if invocation.stream is not None and invocation.exchange is not None:
            invocation.stream.drop()
            invocation.exchange.resume()
        self._process.send(END if started else ERROR, invocation.number, error)
        self._process.done(invocation, error["errorType"])

    def pause(self, number: int, *, paused: bool) -> None:
        """Read a streamed response no further, or again."""
        for invocation in self._running.values():
            if invocation.number == number and invocation.stream is not None and invocation.exchange is not None:
                (invocation.exchange.pause if paused else invocation.exchange.resume)()

    @property
    def stranded(self) -> bool:
        """Whether invocations wait that the runtime never got, and none that it got is unanswered."""
        return bool(self._queue) and not self._running

    @property
    def attended(self) -> bool:
        """Whether the runtime waits for an invocation, or has one."""
        return bool(self._waiting or self._running)

    def dispatch(self) -> None:
        """Give what waits to who waits, if it may run."""
        while self._queue and self._waiting and self._process.may_run():
            invocation = self._queue.popleft()
            self._running[invocation.id] = invocation
            self._sent = ""
            self._process.began(invocation)
            self._deliver(invocation, self._waiting.popleft())

    def _deliver(self, invocation: Invocation, exchange: Exchange) -> None:
        head = invocation.head
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(head["deadline"]),
            "Lambda-Runtime-Invoked-Function-Arn": self._settings.arn,
        }
        if "xray" in head:
            headers["Lambda-Runtime-Trace-Id"] = head["xray"]
        if "clientContext" in head:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(head["clientContext"], separators=(",", ":"))
        exchange.answer_bytes(200, invocation.event, headers)

    # The runtime's side.

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of a request: ``next``, ``init/error``, ``<id>/response``, ``<id>/error``."""
        route = exchange.path.removeprefix(PREFIX)
        wanted = "GET" if route == "invocation/next" else "POST"
        place, _, action = route.removeprefix("invocation/").rpartition("/")
        exchange.limit = self._settings.max_body
        if route == "invocation/next":
            complete: Callable[[Exchange], None] = self._next
        elif route == "init/error":
            complete = self._init_error
        elif route.startswith("invocation/") and place and action in ("response", "error"):
            self._begin_answer(exchange, place, _RESPONSE if action == "response" else _ERROR)
            complete = exchange.complete
        else:
            return
        exchange.complete = complete if exchange.method == wanted else _wrong_method

    def _next(self, exchange: Exchange) -> None:
        current = next(iter(self._running.values()), None)
        if current is not None and self._settings.external:
            message = f"RequestId: {current.id} Error: Runtime exited without providing a reason"
            self._abandon(current, {"errorType": "Runtime.ExitError", "errorMessage": message})
            current = None
        if self._state == _INIT_ERROR or (current is not None and current.state != _READY):
            self._forbid(exchange, current.state if current else self._state, _READY)
            return
        if current is not None:
            self._deliver(current, exchange)
            return
        self._waiting.append(exchange)
        exchange.broken = self._left
        self._state = _READY
        self._process.runtime_polls()
        self.dispatch()

    def _left(self, exchange: Exchange) -> None:
        self._waiting.remove(exchange)
        if self._settings.external:
            self._process.runtime_left()

    def _init_error(self, exchange: Exchange) -> None:
        if self._state != _STARTED and not self._settings.external:
            self._forbid(exchange, self._state, _INIT_ERROR)
            return
        self._state = _INIT_ERROR
        exchange.accept()
        self._process.init_failed(responses.error_document(bytes(exchange.body), exchange.headers.get(_ERROR_TYPE)))

    def _begin_answer(self, exchange: Exchange, place: str, state: str) -> None:
        """Find the invocation that is answered, and take its answer as it comes if it is streamed."""
        invocation = self._running.get(place)
        if invocation is None or invocation.state != _READY:
            exchange.limit = 0
            exchange.complete = lambda exchange: self._refuse_answer(exchange, place, state)
            return
        invocation.state = state
        invocation.exchange = exchange
        mode = exchange.headers.get(_MODE, "") if state == _RESPONSE else ""
        if mode == "streaming":
            self._begin_stream(exchange, invocation)
        else:
            exchange.broken = lambda _: self._truncated(invocation)
            exchange.complete = lambda exchange: self._answer(exchange, invocation, mode)

    def _begin_stream(self, exchange: Exchange, invocation: Invocation) -> None:
        def send(kind: int, head: dict[str, Any], body: bytes) -> None:
            if kind in (END, ERROR):
                self._close(invocation, head.get("errorType"))
            self._process.send(kind, invocation.number, head, body)

        def complete(exchange: Exchange) -> None:
            stream.finish(exchange.headers)
            exchange.accept()

        stream = invocation.stream = responses.Streamed(send, exchange.headers.get("content-type", ""))
        exchange.receive = stream.receive
        exchange.broken = lambda _: stream.break_off()
        exchange.complete = complete

    def _answer(self, exchange: Exchange, invocation: Invocation, mode: str) -> None:
        """Pass a whole response or error on."""
        kind, head, body = self._make_answer(exchange, invocation, mode)
        if self._close(invocation, head["errorType"] if kind == ERROR else None):
            self._process.send(kind, invocation.number, head, body)
        if mode:
            exchange.refuse(400, "InvalidFunctionResponseMode", "Invalid function response mode")
        elif kind == ERROR and invocation.state == _RESPONSE:
            message = f"Exceeded maximum allowed payload size ({self._settings.max_body} bytes)."
            exchange.refuse(413, "RequestEntityTooLarge", message)
        else:
            exchange.accept()

    def _make_answer(self, exchange: Exchange, invocation: Invocation, mode: str) -> responses.Frame:
        if invocation.state == _ERROR:
            return ERROR, responses.error_document(bytes(exchange.body), exchange.headers.get(_ERROR_TYPE)), b""
        if mode:
            message = f"The runtime sent the response mode {mode!r}; there is only streaming"
            return responses.failed("Runtime.InvalidResponseModeHeader", message)
        if exchange.size > self._settings.max_body:
            return responses.too_large(exchange.size, self._settings.max_body)
        return responses.buffered(bytes(exchange.body), exchange.headers.get("content-type", ""))

    def _truncated(self, invocation: Invocation) -> None:
        """Answer for a runtime whose connection ended within its response."""
        if self._close(invocation, responses.TRUNCATED["errorType"]):
            self._process.send(ERROR, invocation.number, responses.TRUNCATED)

    def _close(self, invocation: Invocation, error_type: str | None) -> bool:
        """Forget an invocation that is answered; false if it had been cancelled before."""
        if self._running.pop(invocation.id, None) is None:
            return False
        self._sent = invocation.id
        invocation.exchange, invocation.event = None, b""  # a circle of megabytes would wait long for the collector
        self._process.done(invocation, error_type)
        return True

    def _refuse_answer(self, exchange: Exchange, place: str, state: str) -> None:
        """Refuse an answer to what isn't running, or, of a runtime that we can't restart, take and drop it."""
        invocation = self._running.get(place)
        if invocation is not None or place == self._sent:
            self._forbid(exchange, invocation.state if invocation else _SENT, state)
        elif self._settings.external:
            exchange.accept()  # its time was over; a refusal would end a runtime that is ready for the next
        else:
            exchange.refuse(400, "InvalidRequestID", "Invalid request ID")

    def _forbid(self, exchange: Exchange, state: str, wanted: str) -> None:
        message = (
            f"State transition from {state} to {wanted} failed for runtime. Error: State transition is not allowed"
        )
        exchange.refuse(403, "InvalidStateTransition", message)


def _wrong_method(exchange: Exchange) -> None:
    exchange.refuse(405, "MethodNotAllowed", f"{exchange.method} is not served here")
