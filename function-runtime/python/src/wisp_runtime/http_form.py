"""The ``http`` form: ``handler(request)`` with a request and response that feel like Starlette's.

In an asynchronous handler ``body``, ``json`` and ``text`` are awaited, as in Starlette; in a plain one they are called.
The result: a ``Response`` (ours or Starlette's), ``(body, status)`` or ``(body, status, headers)`` as in Flask, or a body:
a text is text/plain, bytes are application/octet-stream, None is 204, anything else is JSON.
"""

from __future__ import annotations

import json

from wisp_runtime.errors import InvalidResultError
from wisp_runtime.values import encode_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from wisp_runtime.invocation import Answer, Decode, Encode, Invocation


class MultiDict:
    """Read-only mapping whose keys may have several values; the last one counts, ``getlist`` has all."""

    def __init__(self, pairs: list[tuple[str, str]], last: dict[str, str] | None = None) -> None:
        """Take the pairs in order; headers also bring the dict of them, with keys in lower case."""
        self._pairs = pairs
        self._fold = last is not None
        self._last = dict(pairs) if last is None else last

    def _key(self, key: str) -> str:
        return key.lower() if self._fold else key

    def __getitem__(self, key: str) -> str:
        """Return a key's last value."""
        return self._last[self._key(key)]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key's last value, or the default."""
        return self._last.get(self._key(key), default)

    def getlist(self, key: str) -> list[str]:
        """Return all values of a key, in order."""
        wanted = self._key(key)
        return [value for name, value in self._pairs if name == wanted]

    def keys(self) -> Any:
        """Return the distinct keys."""
        return self._last.keys()

    def values(self) -> Any:
        """Return the last value of each key."""
        return self._last.values()

    def items(self) -> Any:
        """Return each key with its last value."""
        return self._last.items()

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all pairs, in order."""
        return list(self._pairs)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key is there."""
        return isinstance(key, str) and self._key(key) in self._last

    def __iter__(self) -> Iterator[str]:
        """Iterate over the distinct keys."""
        return iter(self._last)

    def __len__(self) -> int:
        """Count the distinct keys."""
        return len(self._last)

    def __repr__(self) -> str:
        """Show the pairs."""
        return f"{type(self).__name__}({self._pairs!r})"


class URL:
    """A request's URL in its parts; ``str(url)`` is the whole."""

    def __init__(self, scheme: str, netloc: str, target: str) -> None:
        """Split the target."""
        self.scheme = scheme
        self.netloc = netloc
        self.path, _, self.query = target.partition("?")
        self.hostname = netloc.rpartition(":")[0] or netloc

    def __str__(self) -> str:
        """Return the URL as a browser would show it."""
        return f"{self.scheme}://{self.netloc}{self.path}" + (f"?{self.query}" if self.query else "")

    def __repr__(self) -> str:
        """Show the URL."""
        return f"URL({str(self)!r})"


class BaseRequest:
    """What both kinds of request share.

    Attributes:
        method: Upper-case method.
        headers: Headers, whatever the case of the key.
        client: The caller's IP address.
        request_id: The id under which this request is logged.
        claims: What the caller's token says, verified; empty where the Function's ``auth`` is not ``jwt``.
        scopes: The token's scopes.
    """

    def __init__(self, invocation: Invocation) -> None:
        """Wrap an invocation's request."""
        head = invocation.head
        self.method: str = head["method"]
        self.headers = MultiDict(head["headers"], dict(head["headers"]))
        self.client: str = head["peer"]
        jwt = head.get("jwt") or {}
        self.claims: dict[str, Any] = jwt.get("claims", {})
        self.scopes: list[str] = jwt.get("scopes", [])
        self.request_id = invocation.request_id
        self._target: str = head["target"]
        self._body = invocation.body

    @property
    def url(self) -> URL:
        """The URL, with ``path`` and ``query`` percent-encoded."""
        return URL(self.headers.get("x-forwarded-proto", "http"), self.headers.get("host", ""), self._target)

    @property
    def path(self) -> str:
        """The decoded path."""
        from urllib.parse import unquote  # noqa: PLC0415 - 4 ms at start

        return unquote(self._target.partition("?")[0])

    @property
    def query_params(self) -> MultiDict:
        """Decoded query parameters."""
        from urllib.parse import parse_qsl  # noqa: PLC0415 - 4 ms at start

        return MultiDict(parse_qsl(self.url.query, keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        """The request's cookies by name."""
        pairs = (part.partition("=") for line in self.headers.getlist("cookie") for part in line.split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}

    def _text(self) -> str:
        charset = self.headers.get("content-type", "").lower().partition("charset=")[2].partition(";")[0].strip('" ')
        return self._body.decode(charset or "utf-8")


class Request(BaseRequest):
    """The request of a plain handler."""

    def body(self) -> bytes:
        """Return the whole body."""
        return self._body

    def json(self) -> Any:
        """Return the body parsed as JSON; raises ValueError if it is none."""
        return json.loads(self._body)

    def text(self) -> str:
        """Return the body as text, by the charset of its content type or UTF-8."""
        return self._text()


class AsyncRequest(BaseRequest):
    """The request of an asynchronous handler: the same, awaited."""

    async def body(self) -> bytes:
        """Return the whole body."""
        return self._body

    async def json(self) -> Any:
        """Return the body parsed as JSON; raises ValueError if it is none."""
        return json.loads(self._body)

    async def text(self) -> str:
        """Return the body as text, by the charset of its content type or UTF-8."""
        return self._text()


class Response:
    """A response: content, status and headers."""

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        """Take a text, bytes or a value to be JSON; ``media_type`` overrides the type that follows from it."""
        self.content = content
        self.status_code = status_code
        self.headers = dict(headers or {})
        self.media_type = media_type


def make_decode(*, asynchronous: bool) -> Decode:
    """Prepare the form for a plain or an asynchronous handler."""
    request_class = AsyncRequest if asynchronous else Request

    def decode(invocation: Invocation) -> tuple[tuple[Any, ...], Encode]:
        return (request_class(invocation),), encode

    return decode


def encode(result: Any) -> Answer:
    """Make the answer of a handler's result.

    Raises:
        InvalidResultError: The content has no form on the wire.
    """
    if isinstance(result, Response):
        return _answer(result.content, result.status_code, result.headers, result.media_type)
    if hasattr(result, "status_code") and hasattr(result, "raw_headers"):  # Starlette's, FastAPI's
        return _starlette_answer(result)
    if isinstance(result, tuple):
        content, status, headers = (*result, 200, {})[:3] if len(result) == 1 else (*result, {})[:3]
        return _answer(content, status, headers, None)
    return _answer(result, 204 if result is None else 200, {}, None)


def _answer(content: Any, status: Any, headers: Any, media_type: str | None) -> Answer:
    """Make an answer of content, adding the content type that follows from it unless one is given."""
    body, chunks = b"", None
    if isinstance(content, str):
        body, implied = content.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    elif isinstance(content, bytes | bytearray | memoryview):
        body, implied = bytes(content), "application/octet-stream"
    elif content is None:
        implied = ""
    elif hasattr(content, "__anext__") or hasattr(content, "__next__"):  # a generator: streamed as it comes
        chunks, implied = content, "application/octet-stream"
    else:
        body, implied = encode_json(content), "application/json"
    fields = [(str(name), value) for name, value in dict(headers or {}).items()]
    wanted = media_type or implied
    if wanted and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("content-type", wanted))
    return {"status": _jsonable(status), "headers": [(name, _jsonable(value)) for name, value in fields]}, body, chunks


def _starlette_answer(result: Any) -> Answer:
    """Make an answer of Starlette's response, whole or streaming."""
    body = getattr(result, "body", None)
    chunks = None if isinstance(body, bytes | memoryview) else getattr(result, "body_iterator", None)
    if body is None and chunks is None:
        raise InvalidResultError("Runtime.InvalidResponse", f"A {type(result).__name__} can't be sent: it has no body")
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in result.raw_headers]
    return {"status": result.status_code, "headers": fields}, bytes(body or b""), chunks


def _jsonable(value: Any) -> Any:
    """Return what the front is to check: a number as it is, anything else as its text."""
    return value if isinstance(value, int) else str(value)
