"""One request on its way to a worker and back: what the function is told, and what the caller gets.

Invariant: a call is answered exactly once, through ``Call.answer`` or ``Call.start`` to ``Call.finish``, and every answer
carries ``wisp-request-id``: the mark by which the router knows that the function's runtime, and no proxy on the way,
gave it. A caller's fault is 4xx, a function's error 500 and a timeout 504 with ``wisp-function-error``.
"""

from __future__ import annotations

import time

from wisp_runtime import function_url, journal
from wisp_runtime.cloudevent import (
    BATCH,
    STRUCTURED,
    can_be_told,
    is_binary,
    percent_encode,
    read_batch,
    read_binary,
    read_structured,
)
from wisp_runtime.counting import check_values
from wisp_runtime.encoding import make_encoder, quote, write_json
from wisp_runtime.errors import BadRequestError
from wisp_runtime.frames import INVOKE, MAX_HEAD, pack_text
from wisp_runtime.http1 import HttpRequest, Reply
from wisp_runtime.identity import REQUEST_ID, find_id, sane
from wisp_runtime.results import make_reply
from wisp_runtime.trace import HEADERS as TRACE_HEADERS
from wisp_runtime.trace import Trace, begin_trace
from wisp_runtime.values import depth, encode_json, media_type, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.connection import Connection
    from wisp_runtime.websocket_connection import WebSocketConnection
    from wisp_runtime.workers import Worker

JSON_FORM = {"form": "json"}  # of nearly all
FUNCTION_ERROR = "wisp-function-error"
EVENT_FORMAT = "wisp-event-format"
CLAIMS = "wisp-jwt-claims"
MAX_DEPTH = 100  # of a caller's JSON in a frame's head: each worker, in whatever language, can read it
_encode = make_encoder(ascii_only=True)


class Call:
    """An invocation as the front sees it.

    Attributes:
        id: The event's id, the caller's request id, or a fresh one, in this order.
        trace: Its W3C ``traceparent``.
        trace_state: The ``tracestate`` that belongs to that, or empty.
        xray: The same for AWS's X-Ray.
        head: What INVOKE's head has because of the event's form.
        body: INVOKE's body.
        worker: Who runs it; None while it waits, and again when it is closed.
        number: Its number at that worker.
        given: When it was sent to the worker, on the monotonic clock.
        begun: When the worker began it, on the same clock; 0 as long as it waits there.
        deadline: When its time is over.
        due_ms: The same in milliseconds since 1970, for the worker; 0 where that finds out by itself.
        streaming: Whether its answer has begun.
        quiet: Whether there was nothing left to read of the log when it was answered.
    """

    __slots__ = (
        "_accept", "_is_url", "_tail", "_took", "about", "begun", "body", "connection", "deadline", "due_ms", "ended", "given", "head", "id",
        "number", "quiet", "request", "streaming", "trace", "trace_state", "worker", "xray",
    )  # fmt: skip

    def __init__(self, connection: Connection, request: HttpRequest) -> None:
        """Give a request its id."""
        fields = request.fields
        self.connection: Connection | WebSocketConnection = connection
        self.request = request
        self._follow(begin_trace(request, sane(fields["x-amzn-trace-id"]) if "x-amzn-trace-id" in fields else ""))
        self.id = find_id(fields)
        self.head: dict[str, Any] = {}
        self.body = b""
        self.worker: Worker | None = None
        self.number = self.due_ms = 0
        self.given = self.begun = self.ended = self.deadline = 0.0
        self.streaming = self.quiet = False
        self._took = 0.0
        self._is_url = False
        self.about: tuple[str, str] | None = None  # as ``journal`` has written it at its start
        self._accept = ""  # what a WebSocket's handshake is to be answered with
        self._tail: list[bytes] | None = [] if fields.get("x-amz-log-type") == "Tail" else None

    def _follow(self, trace: Trace) -> None:
        self.trace, self.trace_state, self.xray = trace.parent, trace.state, trace.xray

    @property
    def duration_ms(self) -> float:
        """How long it took, in milliseconds."""
        return round((self.ended - self.begun) * 1000, 2)

    def take_times(self, microseconds: Any, *, waits: Any) -> None:
        """Take the worker's word on how long it took, and whether it waits for its log to be read."""
        if isinstance(microseconds, int):
            self._took = microseconds / 1e6
        self.quiet = not waits

    def end(self) -> None:
        """Take note that it has ended; the worker knows best how long ago it began, within reason."""
        self.ended = time.monotonic()
        if self._took:
            self.begun = max(self.given, self.ended - self._took)

    # The way there.

    def prepare(self, signature: str) -> None:
        """Make the frame's head and body for a function of this signature.

        Raises:
            BadRequestError: The request can't become an event for it.
        """
        request = self.request
        if signature == "lambda" and request.fields.get(EVENT_FORMAT) == "lambda":
            self.head, self.body = JSON_FORM, request.body
        elif signature in ("http", "asgi"):
            if signature == "asgi" and request.asks_for_websocket:
                from wisp_runtime.handshake import accept_handshake  # noqa: PLC0415 - for functions that are asked to

                self._accept = accept_handshake(request)
                request.keep_alive = False  # if it is answered in HTTP: its caller won't speak that again
            self._hand_on_trace()
            self.head = {
                "form": "websocket" if self._accept else "http",
                "method": request.method,
                "target": request.target,
                "version": request.version,
                "headers": request.headers,
                "peer": request.peer,
            }
            self.body = request.body
            if request.jwt is not None:
                self.head["jwt"] = request.jwt
                self.head["headers"] = [*request.headers, (CLAIMS, write_json(request.jwt["claims"]))]
        else:
            self._read_event(request, signature)
        if "x-amz-client-context" in request.fields:
            self.head = {**self.head, "clientContext": _client_context(request.fields["x-amz-client-context"])}
        request.body = b""

    def _read_event(self, request: HttpRequest, signature: str) -> None:
        """Find out what the request is: an event as it stands, a CloudEvent, a batch, or a function URL's request."""
        fields = request.fields
        self.head = JSON_FORM
        self.body = request.body
        content_type = fields.get("content-type", "")
        mode = media_type(content_type)
        if mode in (STRUCTURED, BATCH) or (not mode and is_binary(fields)):  # these are parsed here
            check_values(request.body)
        if mode == STRUCTURED:
            self._read_structured(request)
        elif mode == BATCH:
            if signature != "lambda":
                message = "This handler takes one CloudEvent at a time; batches go to handlers of signature lambda"
                raise BadRequestError("UnsupportedMediaType", message, 415)
            self.body = read_batch(request.body)
        elif mode.startswith("application/cloudevents"):
            message = f"CloudEvents are read in JSON format ({STRUCTURED}) or binary mode, not {mode}"
            raise BadRequestError("UnsupportedMediaType", message, 415)
        elif is_binary(fields):
            attributes, kind = read_binary(request, content_type, mode)
            self.head = {"form": "cloudevent", "attributes": attributes}
            if kind:
                self.head["data"] = kind
        elif signature == "lambda":
            self._is_url = True
            self._hand_on_trace()
            self.body = encode_json(function_url.make_event(request, self.id, mode, fields.get("host", "")))
        else:
            message = (
                "This handler takes CloudEvents: send the ce-specversion, ce-id, ce-source and ce-type headers, "
                "or the event as application/cloudevents+json"
            )
            raise BadRequestError("InvalidCloudEvent", message)

    def _read_structured(self, request: HttpRequest) -> None:
        """Take an event's id, and its trace where the headers name none."""
        event, self.body = read_structured(request.body)
        if can_be_told(event["id"]):
            self.id = event["id"]
        if "traceparent" in event and "traceparent" not in request.fields:
            given = sane(request.fields.get("x-amzn-trace-id", ""))
            self._follow(Trace(str(event["traceparent"]), str(event.get("tracestate") or ""), given))

    def _hand_on_trace(self) -> None:
        """Put it into the request's headers in place of the caller's, as each hop does."""
        request = self.request
        if "traceparent" in request.fields or "tracestate" in request.fields:
            request.headers = [pair for pair in request.headers if pair[0] not in TRACE_HEADERS]
        ours = [("traceparent", self.trace), *([("tracestate", self.trace_state)] if self.trace_state else [])]
        request.headers.extend(ours)

    def frame(self, number: int) -> bytes:
        """Return its frame.

        Raises:
            BadRequestError: None can be made of it.
        """
        due = f',"deadline":{self.due_ms}' if self.due_ms else ""
        state = f',"tracestate":{quote(self.trace_state)}' if self.trace_state else ""
        rest = f',"id":{quote(self.id)},"trace":"{self.trace}"{state},"xray":{quote(self.xray)}{due}}}'
        text = f"{self._form()}{rest}"
        if len(text) > MAX_HEAD:
            raise _unsendable(f"without its body it is longer than {MAX_HEAD} bytes")
        return pack_text(INVOKE, number, text, self.body)

    def _form(self) -> str:
        """Return the beginning of its frame's head: what its form has."""
        head = self.head
        if head is JSON_FORM:
            return '{"form":"json"'
        try:
            return _encode(head)[:-1]
        except (ValueError, RecursionError) as error:
            raise _unsendable(str(error)) from None

    # The way back.

    def make_reply(self, head: dict[str, Any], body: bytes, signature: str) -> Reply:
        """Make the reply of a result.

        Raises:
            InvalidResultError: It can't be sent.
        """
        if self._is_url and not head:
            return function_url.make_reply(body)
        if "attributes" in head and "traceparent" not in head["attributes"]:
            head["attributes"]["traceparent"] = self.trace
            if self.trace_state:
                head["attributes"]["tracestate"] = self.trace_state
        return make_reply(head, body, signature)

    @property
    def takes_value(self) -> bool:
        """Whether the answer is a handler's JSON value as it is, and nothing is to be told beside it."""
        request = self.request
        return not self._is_url and self._tail is None and request.keep_alive and request.method == "POST"

    def answer(self, reply: Reply) -> None:
        """Answer the caller, if it is still there."""
        self._mark(reply)
        if self._tail is not None:
            reply.headers.append(("x-amz-log-result", _base64(b"".join(self._tail)[-journal.TAIL_BYTES :])))
        self.connection.answer(reply)

    def start(self, reply: Reply) -> None:
        """Begin to answer with a stream."""
        self.streaming = True
        self._mark(reply)
        self.connection.start(reply)

    def refuse(self, error: BadRequestError) -> None:
        """Answer that the caller sent what the handler can't take."""
        message = f"Refused with {error.status}: {error.message}"
        self.keep(journal.emit("WARNING", message, self.id, self.trace, errorType=error.error_type))
        document = {"errorType": error.error_type, "errorMessage": error.message, "requestId": self.id}
        self.answer(_document(error.status, document, *error.headers))

    def read_log(self, worker: Worker) -> None:
        """Log what its worker has written for it; where nothing was left unread, what the pipe holds is the next one's."""
        if self.quiet:
            worker.log.finish()
        else:
            worker.log.read()

    def log_error(self, error: dict[str, Any]) -> None:
        """Log the function's error, behind what the code has written before it: errorType, errorMessage, stackTrace."""
        if self.worker is not None:
            self.read_log(self.worker)
        error_type, message = str(error.get("errorType", "Error")), str(error.get("errorMessage", ""))
        fields = {"errorType": error_type, "stackTrace": error.get("stackTrace") or []}
        self.keep(journal.emit("ERROR", f"{error_type}: {message}", self.id, self.trace, **fields))

    def fail(self, error: dict[str, Any], status: int = 500, mark: str = "Unhandled") -> None:
        """Answer with the function's error."""
        document = {
            "errorType": str(error.get("errorType", "Error")),
            "errorMessage": str(error.get("errorMessage", "")),
            "requestId": self.id,
            "stackTrace": error.get("stackTrace") or [],
        }
        self.answer(_document(status, document, (FUNCTION_ERROR, mark)))

    def keep(self, line: bytes) -> None:
        """Keep a log line for a caller that asked for the log's tail."""
        if self._tail is not None:
            self._tail.append(line)
            if len(self._tail) > 64:  # noqa: PLR2004 - now and then
                self._tail = [b"".join(self._tail)[-journal.TAIL_BYTES :]]

    # A WebSocket's.

    def switch(self, head: dict[str, Any], max_message: int) -> None:
        """Make the caller's connection a WebSocket, as START says with status 101.

        Raises:
            InvalidResultError: Its headers can't be sent, or the caller asked for no WebSocket.
        """
        from wisp_runtime.handshake import make_reply  # noqa: PLC0415 - for functions that are asked to
        from wisp_runtime.websocket_connection import WebSocketConnection  # noqa: PLC0415

        reply = make_reply(self._accept, head)
        self._mark(reply)
        self.streaming = True
        if self.connection.call is self:  # else the caller has gone
            http: Any = self.connection  # as it is until now
            self.connection = WebSocketConnection(http, self, reply, max_message)

    def leave(self) -> bool:
        """Tell both sides of a WebSocket that its time is over; false if it is none, or they know."""
        return self._accept != "" and self.streaming and self.connection.go_away("The function's time is over")

    # The connection calls these.

    def resume(self) -> None:
        """Go on streaming: the caller has read what was buffered."""
        if self.worker is not None:
            self.worker.resume(self)

    def caller_left(self) -> None:
        """Let the worker know, if it can do anything about it; what waits is not run."""
        if self.worker is not None:
            self.worker.caller_left(self)
        else:
            self.connection.front.function.withdraw(self)

    def _mark(self, reply: Reply) -> None:
        reply.headers += [(REQUEST_ID, percent_encode(self.id)), ("traceparent", self.trace)]


def _document(status: int, document: dict[str, Any], *headers: tuple[str, str]) -> Reply:
    return Reply(status, [("content-type", "application/json"), *headers], write_json(document).encode())


def _base64(data: bytes) -> str:
    from binascii import b2a_base64  # noqa: PLC0415 - for callers that want it

    return b2a_base64(data, newline=False).decode()


def _unsendable(problem: str) -> BadRequestError:
    message = f"The request can't be handed to the function: {problem}"
    return BadRequestError("InvalidRequestContentException", message)


def _client_context(text: str) -> Any:
    """Read what a caller says of itself."""
    from binascii import a2b_base64  # noqa: PLC0415 - for callers that send it

    try:
        value = parse_json(a2b_base64(text, strict_mode=True), "X-Amz-Client-Context")
    except (ValueError, BadRequestError):
        value = None
    if not isinstance(value, dict):
        message = "X-Amz-Client-Context must be a JSON object in base64"
        raise BadRequestError("InvalidRequestContentException", message)
    if depth(value) > MAX_DEPTH:
        raise _unsendable(f"its client context is nested deeper than {MAX_DEPTH}")
    return value


def deadline_ms(left: float) -> int:
    """Return the time in so many seconds as a frame has it."""
    return int((time.time() + left) * 1000)
