"""Handlers of the ``cloudevent`` and ``http`` forms, and how ``auto`` tells the forms apart."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
from wisp_runtime.errors import InitError
from wisp_runtime.signatures import find_signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

DESCRIBE = """
from cloudevents.core.v1.event import CloudEvent

def handler(event: CloudEvent):
    return {
        "class": type(event).__module__, "id": event.get_id(), "subject": event.get_subject(),
        "time": event.get_time() and event.get_time().isoformat(), "data": event.get_data(),
        "extension": event.get_extension("sequence"),
    }
"""


def test_cloudevent_handler_gets_the_sdk_object(serve: Callable[..., FunctionProcess]) -> None:
    """The event is the SDK's, with decoded attributes, a real time, and parsed data."""
    answer = serve(DESCRIBE).event([1, {"a": 2}], time="2026-11-20T10:00:00.5Z", sequence="07", subject="a%20b")
    assert answer.json == {
        "class": "cloudevents.core.v1.event",
        "id": "1",
        "subject": "a b",
        "time": "2026-11-20T10:00:00.500000+00:00",
        "data": [1, {"a": 2}],
        "extension": "07",
    }


def test_no_time_is_invented(serve: Callable[..., FunctionProcess]) -> None:
    """An event without a time has none, although the SDK would put the present there."""
    assert serve(DESCRIBE).event({}).json["time"] is None


def test_structured_event_with_headers_is_structured(serve: Callable[..., FunctionProcess]) -> None:
    """The content type decides the mode, whatever ce- headers say; base64 data becomes bytes."""
    code = "def handler(event):\n    return [event.get_id(), repr(event.get_data())]\n"
    event = {"specversion": "1.0", "id": "in", "source": "/s", "type": "t", "data_base64": "AP8="}
    headers = {"content-type": "application/cloudevents+json", "ce-id": "out", "ce-specversion": "1.0"}
    assert serve(code).request("/", json.dumps(event), headers).json == ["in", "b'\\x00\\xff'"]


def test_older_sdk_class(serve: Callable[..., FunctionProcess]) -> None:
    """A handler annotated with the SDK's 1.x class gets that class."""
    code = """
from cloudevents.v1.http import CloudEvent

def handler(event: CloudEvent):
    return [event["id"], event.data, "time" in event]
"""
    assert serve(code, PYTHONWARNINGS="ignore").event({"a": 1}).json == ["1", {"a": 1}, False]


def test_cloudevent_results(serve: Callable[..., FunctionProcess]) -> None:
    """None is 204, a CloudEvent comes back in binary mode, another value is JSON."""
    code = """
from cloudevents.core.v1.event import CloudEvent

def handler(event):
    kind = event.get_data()
    if kind == "none":
        return None
    if kind == "event":
        return CloudEvent({"type": "reply", "source": "/fn", "id": "r 1", "subject": "ø"}, [1, "x"])
    return {"kind": kind}
"""
    function = serve(code)
    answer = function.event("none")
    assert (answer.status, answer.body, answer.headers["wisp-request-id"]) == (204, b"", "1")
    assert "content-length" not in answer.headers
    answer = function.event("event")
    assert (answer.status, answer.json) == (200, [1, "x"])
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.headers[f"ce-{name}"] for name in ("specversion", "type", "id", "subject")} == {
        "specversion": "1.0",
        "type": "reply",
        "id": "r%201",
        "subject": "%C3%B8",
    }
    assert function.event("other").json == {"kind": "other"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "said"),
    [
        ({}, "{}", 400, "send the ce-specversion"),
        ({"content-type": "application/cloudevents-batch+json"}, "[]", 415, "signature lambda"),
        ({"ce-id": "1"}, "{}", 400, "'specversion' is missing"),
        (
            {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "/", "ce-type": "t", "ce-time": "noon"},
            "{}",
            400,
            "'time' must be",
        ),
    ],
)
def test_cloudevent_handler_refuses(
    serve: Callable[..., FunctionProcess], headers: dict[str, str], body: str, status: int, said: str
) -> None:
    """What isn't one valid CloudEvent is refused with a sentence that tells the cure."""
    answer = serve("def handler(event):\n    return 1\n").request("/", body, headers)
    assert answer.status == status
    assert said in answer.json["errorMessage"]


def test_http_request(serve: Callable[..., FunctionProcess]) -> None:
    """The request has what a Starlette request has."""
    code = """
def handler(request):
    return {
        "method": request.method, "path": request.path, "url": str(request.url), "query": request.url.query,
        "q": request.query_params.getlist("q"), "header": request.headers["X-Thing"], "json": request.json(),
        "text": request.text(), "bytes": len(request.body()), "cookies": request.cookies, "id": request.request_id,
    }
"""
    function = serve(code)
    headers = {"x-thing": "1", "cookie": "a=1; b=2", "wisp-request-id": "r", "host": "fn.example"}
    assert function.request("/a%20b?q=1&q=%C3%B8", '{"x": 1}', headers).json == {
        "method": "POST",
        "path": "/a b",
        "url": "http://fn.example/a%20b?q=1&q=%C3%B8",
        "query": "q=1&q=%C3%B8",
        "q": ["1", "ø"],
        "header": "1",
        "json": {"x": 1},
        "text": '{"x": 1}',
        "bytes": 8,
        "cookies": {"a": "1", "b": "2"},
        "id": "r",
    }


def test_asynchronous_http_handler_awaits_the_body(serve: Callable[..., FunctionProcess]) -> None:
    """In an async handler json() is awaited, as in Starlette."""
    code = "async def handler(request):\n    return (await request.json())['a']\n"
    assert serve(code).request("/", '{"a": [1]}').json == [1]


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ("'hei'", 200, "text/plain; charset=utf-8", b"hei"),
        ("b'\\0'", 200, "application/octet-stream", b"\0"),
        ("{'a': 1}", 200, "application/json", b'{"a":1}'),
        ("None", 204, None, b""),
        ("('gone', 410)", 410, "text/plain; charset=utf-8", b"gone"),
        ("('x', 200, {'Content-Type': 'text/html'})", 200, "text/html", b"x"),
        ("Response('<p>', 404, {'X-A': 'b'}, 'text/html')", 404, "text/html", b"<p>"),
        ("('x', 200, {'A': 'b\\n'})", 500, "application/json", None),
        ("('x', 1000)", 500, "application/json", None),
        ("object()", 500, "application/json", None),
    ],
)
def test_http_results(
    serve: Callable[..., FunctionProcess], result: str, status: int, content_type: str | None, body: bytes | None
) -> None:
    """A result becomes the response that users of Starlette and Flask expect."""
    code = f"from wisp_runtime import Response\ndef handler(request):\n    return {result}\n"
    answer = serve(code).request("/")
    assert (answer.status, answer.headers.get("content-type")) == (status, content_type)
    assert body is None or answer.body == body
    assert answer.headers["wisp-request-id"]


def _lambda(event: Any, context: Any) -> None: ...
def _defaulted(event: Any, context: Any = None) -> None: ...
def _event(event: Any) -> None: ...
def _request(request: Any) -> None: ...
def _annotated(anything: CloudEvent) -> None: ...  # type: ignore[name-defined] # noqa: F821 - a text here
def _annotated_request(x: starlette.requests.Request) -> None: ...  # type: ignore[name-defined] # noqa: F821
def _any(*args: Any) -> None: ...
def _three(a: Any, b: Any, c: Any) -> None: ...
def _other(x: Any) -> None: ...
def _none() -> None: ...
def _keyword(event: Any, *, must: Any) -> None: ...


@functools.wraps(_event)
def _decorated(*args: Any, **kwargs: Any) -> None:
    return _event(*args, **kwargs)


class _Instance:
    def __call__(self, event: Any, context: Any) -> None: ...

    def method(self, request: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "wanted"),
    [
        (_lambda, "lambda"),
        (_defaulted, "lambda"),
        (_any, "lambda"),
        (_Instance(), "lambda"),
        (functools.partial(_three, 1), "lambda"),
        (_event, "cloudevent"),
        (_annotated, "cloudevent"),
        (_decorated, "cloudevent"),
        (_request, "http"),
        (_annotated_request, "http"),
        (_Instance().method, "http"),
        (_three, None),
        (_other, None),
        (_none, None),
        (_keyword, None),
    ],
)
def test_auto_signature(handler: Callable[..., Any], wanted: str | None) -> None:
    """The rule of ``auto`` finds the form, or refuses with the way out."""
    if wanted is None:
        with pytest.raises(InitError, match=r"set spec\.signature"):
            find_signature(handler, "auto", "app.handler")
    else:
        assert find_signature(handler, "auto", "app.handler") == wanted


@pytest.mark.parametrize(("handler", "wanted"), [(_event, "lambda"), (_lambda, "http"), (_none, "cloudevent")])
def test_wrong_arity_is_refused(handler: Callable[..., Any], wanted: str) -> None:
    """A handler that can't be called in the form its Function names is refused at start."""
    with pytest.raises(InitError, match="can't be called as handler"):
        find_signature(handler, wanted, "app.handler")
