"""One run of the handler: request id, deadline, arguments, result, and every way it can fail, as a ``Reply``.

Invariant: ``run`` returns a reply whatever the handler does, and every reply carries ``wisp-request-id``: the mark by
which the router knows that the function's runtime, and no proxy on the way, gave the answer. A caller's fault is 4xx, a
function's error 500 and a timeout 504 with ``wisp-function-error``. A handler can't set or forge these headers.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from wisp_runtime import logs
from wisp_runtime.cloudevent import percent_decode, percent_encode
from wisp_runtime.errors import BadRequestError, function_error
from wisp_runtime.http1 import HttpRequest, Reply
from wisp_runtime.results import limited

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from wisp_runtime.settings import Settings

    Encode = Callable[[Any], Reply]
    Decode = Callable[["Invocation"], tuple[tuple[Any, ...], Encode]]

REQUEST_ID = "wisp-request-id"
FUNCTION_ERROR = "wisp-function-error"
_MAX_ID = 256
_TRACEPARENT_LENGTH = 55


class Function:
    """A handler with its form: what the front runs."""

    def __init__(self, handler: Callable[..., Any], decode: Decode, settings: Settings) -> None:
        """Take the handler and its form's ``decode``: invocation to arguments and the result's encoder."""
        self.handler = handler
        self.decode = decode
        self.settings = settings
        self.loop: asyncio.AbstractEventLoop | None = None

    def begin(self, request: HttpRequest) -> Invocation:
        """Give a request its id and its time."""
        return Invocation(self, request)

    def prepare_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the handler's coroutines; between events it stands still."""
        if self.loop is None:
            import asyncio  # noqa: PLC0415 - 40 ms and 10 MiB that a synchronous handler doesn't pay

            self.loop = asyncio.new_event_loop()
        return self.loop


class Invocation:
    """One event on its way through the handler.

    Attributes:
        request: The request.
        request_id: The event's ``ce-id``, the caller's request id, or a fresh one, in this order.
        trace: The request's W3C ``traceparent``, or empty.
        deadline: When its time is over, on the monotonic clock.
        expired: Whether its caller has been told that the time is over.
    """

    __slots__ = ("_function", "_task", "deadline", "expired", "request", "request_id", "trace")

    def __init__(self, function: Function, request: HttpRequest) -> None:
        """Begin: from now on the handler's time runs."""
        self._function = function
        self._task: asyncio.Task[Any] | None = None
        self.request = request
        self.expired = False
        self.deadline = time.monotonic() + function.settings.timeout
        fields = request.fields
        trace = fields.get("traceparent", "")
        self.trace = trace if len(trace) >= _TRACEPARENT_LENGTH and _is_sane(trace) else ""
        self.request_id = _given_id(fields) or new_id()

    @property
    def settings(self) -> Settings:
        """The process's configuration."""
        return self._function.settings

    def identify(self, event_id: str) -> None:
        """Take the id that stands inside the event as the request's."""
        self.request_id = event_id
        logs.current.request_id = event_id

    def run(self) -> Reply:
        """Run the handler and return its reply, or its error's."""
        function = self._function
        logs.begin_invocation(self.request_id, self.trace)
        try:
            arguments, encode = function.decode(self)
            result = function.handler(*arguments)
            if type(result) is CoroutineType:
                result = self._complete(result)
            reply = limited(encode(result), function.settings.max_body)
        except BadRequestError as error:
            document = {"errorType": error.error_type, "errorMessage": error.message, "requestId": self.request_id}
            logs.emit("WARNING", f"Refused with {error.status}: {error.message}", errorType=error.error_type)
            reply = _error(error.status, document)
        except BaseException as error:  # noqa: BLE001 - SystemExit and all: the next event must find the process alive
            reply = self._failed(error)
        logs.end_invocation()
        reply.headers.append((REQUEST_ID, percent_encode(self.request_id)))
        return reply

    def timed_out(self) -> Reply:
        """Make and log the reply for a handler that is still running when its time is over."""
        self.expired = True
        message = f"{self.request_id} Task timed out after {self.settings.timeout:.2f} seconds"
        logs.emit("ERROR", message, errorType="Sandbox.Timedout")
        document = {"errorType": "Sandbox.Timedout", "errorMessage": message, "requestId": self.request_id}
        reply = _error(504, document, [(FUNCTION_ERROR, "Timeout")])
        reply.headers.append((REQUEST_ID, percent_encode(self.request_id)))
        return reply

    def cancel(self) -> bool:
        """Ask a running coroutine to end, from another thread; false if the handler is none."""
        task, loop = self._task, self._function.loop
        if task is None or loop is None:
            return False
        loop.call_soon_threadsafe(task.cancel)
        return True

    def _complete(self, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        """Run an asynchronous handler to its end."""
        loop = self._function.prepare_loop()
        self._task = loop.create_task(coroutine)
        return loop.run_until_complete(self._task)

    def _failed(self, error: BaseException) -> Reply:
        """Log a function's error and make its reply."""
        document = function_error(error, self.request_id)
        if not self.expired:  # its cancellation is no news
            error_type = document["errorType"]
            message = f"{error_type}: {document['errorMessage']}"
            logs.emit("ERROR", message, errorType=error_type, stackTrace=document["stackTrace"])
        return _error(500, document, [(FUNCTION_ERROR, "Unhandled")])


def _error(status: int, document: dict[str, Any], headers: list[tuple[str, str]] | None = None) -> Reply:
    return Reply(status, [("content-type", "application/json"), *(headers or [])], json.dumps(document).encode())


def _is_sane(identifier: str) -> bool:
    """Whether a caller's id can stand in headers and logs as it is."""
    return (
        0 < len(identifier) <= _MAX_ID and identifier.isascii() and identifier.isprintable() and " " not in identifier
    )


def _given_id(fields: dict[str, str]) -> str:
    """Return the id that the request brings: the event's, or else the caller's if it is sane."""
    event_id = fields.get("ce-id", "")
    if event_id:
        event_id = percent_decode(event_id) or ""
    if event_id:
        return event_id
    for name in (REQUEST_ID, "x-request-id"):
        given = fields.get(name, "")
        if given and _is_sane(given):
            return given
    return ""


def _make_prefix() -> str:
    """Draw the part of our ids that is this process's: 74 random bits in the form of a UUID of version 4."""
    text = os.urandom(10).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) % 4]}{text[17:20]}-"


_prefix = _make_prefix()
_numbers = count(int.from_bytes(os.urandom(5), "big"))


def new_id() -> str:
    """Make an id that is unique: the process's own prefix and a number; a random one each time would cost 1 us."""
    return f"{_prefix}{next(_numbers):012x}"
