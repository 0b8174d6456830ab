"""What a runtime responds, as frames to the front.

Invariant: each invocation gets exactly one RESULT, ERROR, or START ... END, whatever the runtime sends; nothing of a
stream is kept but the head of one that begins with a prelude.
"""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, Any

from wisp_runtime.errors import BadRequestError
from wisp_runtime.frames import CHUNK, END, ERROR, RESULT, START
from wisp_runtime.values import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Frame = tuple[int, dict[str, Any], bytes]
    Send = Callable[[int, dict[str, Any], bytes], None]

PRELUDE_TYPE = "application/vnd.awslambda.http-integration-response"
MAX_PRELUDE = 256 * 1024  # bytes
_DELIMITER = bytes(8)
_PLAIN_TYPES = ("", "application/octet-stream", "application/json")
TRUNCATED = {
    "errorType": "Runtime.TruncatedResponse",
    "errorMessage": "The runtime's connection ended before its response did",
}


def buffered(body: bytes, content_type: str) -> Frame:
    """Make the frame of a whole response: a JSON value, or, as AWS Lambda does too, whatever bytes the runtime gave."""
    try:
        parse_json(body, "The response")
    except BadRequestError:
        fields = [["content-type", content_type or "application/octet-stream"]]
        return RESULT, {"status": 200, "headers": fields}, body
    return RESULT, {}, body


def too_large(size: int, most: int) -> Frame:
    """Make the frame of a response that is longer than it may be."""
    message = f"Response payload size ({size} bytes) exceeded maximum allowed payload size ({most} bytes)."
    return failed("Function.ResponseSizeTooLarge", message)


def failed(error_type: str, message: str) -> Frame:
    """Make an ERROR frame."""
    return ERROR, {"errorType": error_type, "errorMessage": message}, b""


def error_document(body: bytes, header: str | None) -> dict[str, Any]:
    """Read the error that a runtime or a trailer describes: errorType, errorMessage, stackTrace.

    What has another form than AWS asks for is the message, so that nothing the runtime said is lost.
    """
    try:
        found = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        found = body.decode("utf-8", "replace")
    if not isinstance(found, dict):
        found = {"errorMessage": found}
    stack = found.get("stackTrace", found.get("trace"))  # Node.js' client calls it trace
    return {
        "errorType": _text(found.get("errorType") or header or "Runtime.UnknownReason"),
        "errorMessage": _text(found.get("errorMessage", "")),
        "stackTrace": [_text(line) for line in stack] if isinstance(stack, list) else [],
    }


def _text(value: Any) -> str:
    """Make a valid Unicode text of any JSON value."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


class Streamed:
    """A response that is passed on while it comes.

    START waits for its first bytes, so that a handler that fails before it has written gets its caller an error.
    """

    def __init__(self, send: Send, content_type: str) -> None:
        """Begin; nothing is sent yet."""
        self._send = send
        self._prelude = bytearray() if content_type.partition(";")[0].strip().lower() == PRELUDE_TYPE else None
        self._head: dict[str, Any] = {}
        if content_type.lower() not in (*_PLAIN_TYPES, PRELUDE_TYPE):
            self._head = {"status": 200, "headers": [["content-type", content_type]]}
        self._started = self._ended = False

    def receive(self, data: bytes) -> None:
        """Pass more of it on."""
        if self._ended:
            return
        if self._prelude is None:
            self._pass(data)
            return
        self._prelude += data
        prelude, delimiter, rest = bytes(self._prelude).partition(_DELIMITER)
        if delimiter:
            self._prelude = None
            try:
                self._head = read_prelude(prelude)
            except ValueError as error:
                self._fail({"errorType": "Runtime.InvalidResponse", "errorMessage": str(error)})
                return
            self._pass(rest)
        elif len(prelude) > MAX_PRELUDE:
            message = f"the response's prelude doesn't end within {MAX_PRELUDE} bytes"
            self._fail({"errorType": "Runtime.InvalidResponse", "errorMessage": message})

    def finish(self, trailers: Mapping[str, str]) -> None:
        """End it, with the error that its trailers tell if there is one."""
        if self._ended:
            return
        error_type = trailers.get("lambda-runtime-function-error-type")
        if error_type:
            try:
                body = binascii.a2b_base64(trailers.get("lambda-runtime-function-error-body", ""))
            except binascii.Error:
                body = b""
            self._fail(error_document(body, error_type))
        elif self._prelude is not None:
            self._fail(TRUNCATED)
        else:
            self._pass(b"")
            self._end({})

    def break_off(self) -> None:
        """End it because the runtime's connection has ended."""
        if not self._ended:
            self._fail(TRUNCATED)

    def drop(self) -> None:
        """Send nothing more: it was answered otherwise."""
        self._ended = True

    @property
    def started(self) -> bool:
        """Whether its caller has some of it."""
        return self._started

    def _pass(self, data: bytes) -> None:
        if self._started:
            if data:
                self._send(CHUNK, {}, data)
        else:
            self._started = True
            self._send(START, self._head, data)

    def _fail(self, error: dict[str, Any]) -> None:
        self._prelude = None
        if self._started:
            self._end(error)
        else:
            self._ended = True
            self._send(ERROR, error, b"")

    def _end(self, head: dict[str, Any]) -> None:
        self._ended = True
        self._send(END, head, b"")


def read_prelude(data: bytes) -> dict[str, Any]:
    """Read ``{"statusCode", "headers", "cookies"}`` as a START's head.

    Raises:
        ValueError: It isn't that; the message says what is wrong.
    """
    try:
        prelude = json.loads(data)
    except (ValueError, RecursionError):
        prelude = None
    if not isinstance(prelude, dict):
        raise ValueError("the response's prelude is not a JSON object")  # noqa: TRY004 - one error for all
    status = prelude.get("statusCode", 200)
    headers, cookies = prelude.get("headers") or {}, prelude.get("cookies") or []
    several = prelude.get("multiValueHeaders") or {}
    if not isinstance(status, int) or not isinstance(headers, dict) or not isinstance(cookies, list):
        message = "the response's prelude must be {statusCode: number, headers: object, cookies: list}"
        raise ValueError(message)  # noqa: TRY004 - as above
    fields = [[name, _text(value)] for name, value in headers.items()]
    if isinstance(several, dict):
        fields += [[name, _text(value)] for name, values in several.items() for value in values]
    fields += [["set-cookie", _text(cookie)] for cookie in cookies]
    return {"status": status, "headers": fields}
