"""Handlers of the ``lambda`` form: what event they get and what becomes of their result."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

ECHO = "def handler(event, context):\n    return event\n"
EVAL = "def handler(event, context):\n    return eval(event)\n"


def test_invoke_passes_the_json_body_and_returns_json(serve: Callable[..., FunctionProcess]) -> None:
    """With wisp-event-format lambda the body is the event, the result the body, and the mark is there."""
    answer = serve(ECHO).invoke({"name": "Blåbær", "n": [1, None, True]})
    assert (answer.status, answer.json) == (200, {"name": "Blåbær", "n": [1, None, True]})
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["wisp-request-id"]) == 36
    assert "wisp-function-error" not in answer.headers


def test_none_is_null_as_from_lambda(serve: Callable[..., FunctionProcess]) -> None:
    """A handler that returns nothing answers 200 with null."""
    answer = serve("def handler(event, context):\n    pass\n").event({})
    assert (answer.status, answer.body) == (200, b"null")


def test_cloudevent_becomes_its_json_format(serve: Callable[..., FunctionProcess]) -> None:
    """A binary CloudEvent reaches the handler as the dict of the structured mode, percent-decoded."""
    answer = serve(ECHO).event({"new": {"id": 7}}, id="a-1", subject="caf%C3%A9%20%22x%22", sequence="0001")
    assert answer.json == {
        "specversion": "1.0",
        "id": "a-1",
        "source": "/tests",
        "type": "test",
        "subject": 'café "x"',
        "sequence": "0001",
        "datacontenttype": "application/json",
        "data": {"new": {"id": 7}},
    }
    assert answer.headers["wisp-request-id"] == "a-1"


@pytest.mark.parametrize(
    ("content_type", "body", "wanted"),
    [
        ("text/plain; charset=utf-8", b"caf\xc3\xa9", {"data": "café"}),
        ("application/vnd.x+json", b"[1]", {"data": [1]}),
        ("image/png", b"\x89PNG", {"data_base64": base64.b64encode(b"\x89PNG").decode()}),
        ("application/json", b"", {}),
        ("", b'{"a":1}', {"data": {"a": 1}}),
    ],
)
def test_data_by_content_type(
    serve: Callable[..., FunctionProcess], content_type: str, body: bytes, wanted: dict[str, Any]
) -> None:
    """A binary event's body becomes data as the JSON format writes it: value, text or base64."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    answer = serve(ECHO).request("/", body, headers | ({"content-type": content_type} if content_type else {}))
    event = answer.json
    assert {key: event[key] for key in event if key.startswith("data") and key != "datacontenttype"} == wanted


def test_structured_event_and_batch(serve: Callable[..., FunctionProcess]) -> None:
    """A structured event arrives as sent, even beside ce- headers; a batch arrives as a list."""
    function = serve(ECHO)
    event = {"specversion": "1.0", "id": "ø 1", "source": "/s", "type": "t", "data": {"a": 1}}
    headers = {"content-type": "application/cloudevents+json; charset=utf-8", "ce-id": "other"}
    answer = function.request("/", json.dumps(event), headers)
    assert answer.json == event
    assert answer.headers["wisp-request-id"] == "%C3%B8%201"
    batch = [event, event | {"id": "2", "subject": None}]
    answer = function.request("/", json.dumps(batch), {"content-type": "application/cloudevents-batch+json"})
    assert answer.json == [event, event | {"id": "2"}]


GOOD = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": None}, "'id' is missing"),
        ({"id": ""}, "'id' must be"),
        ({"source": None}, "'source' is missing"),
        ({"type": None}, "'type' is missing"),
        ({"specversion": "0.3"}, "'specversion' must be 1.0, not '0.3'"),
        ({"specversion": None}, "'specversion' is missing"),
        ({"subject": "%FF%FE"}, "'subject' is not valid UTF-8"),
        ({"bad_name": "x"}, "'bad_name' must have a name"),
        ({"data": "x"}, "'data' is reserved"),
    ],
)
def test_invalid_binary_event_names_the_attribute(
    serve: Callable[..., FunctionProcess], change: dict[str, str | None], named: str
) -> None:
    """An invalid event is the caller's fault: 400 with the mark and the attribute's name, never a call."""
    headers = {f"ce-{key}": value for key, value in (GOOD | change).items() if value is not None}
    answer = serve(ECHO).request("/", b"{}", headers | {"content-type": "application/json"})
    assert answer.status == 400
    assert answer.json["errorType"] == "InvalidCloudEvent"
    assert named in answer.json["errorMessage"]
    assert answer.headers["wisp-request-id"]
    assert "wisp-function-error" not in answer.headers


@pytest.mark.parametrize(
    ("content_type", "body", "status", "said"),
    [
        ("application/cloudevents+json", b"{", 400, "not valid JSON"),
        ("application/cloudevents+json", b"[]", 400, "is a JSON object"),
        ("application/cloudevents+json", json.dumps(GOOD | {"id": 5}).encode(), 400, "'id' must be"),
        ("application/cloudevents+json", json.dumps(GOOD | {"ext": {}}).encode(), 400, "'ext' must be"),
        ("application/cloudevents+xml", b"<x/>", 415, "application/cloudevents+json"),
        ("application/cloudevents-batch+json", b"{}", 400, "array of events"),
        ("application/cloudevents-batch+json", json.dumps([GOOD, {}]).encode(), 400, "Event 1 of the batch"),
    ],
)
def test_invalid_structured_events(
    serve: Callable[..., FunctionProcess], content_type: str, body: bytes, status: int, said: str
) -> None:
    """A structured event or batch that isn't valid is refused with what is wrong."""
    answer = serve(ECHO).request("/", body, {"content-type": content_type})
    assert answer.status == status
    assert said in answer.json["errorMessage"]


def test_invoke_refuses_what_is_not_json(serve: Callable[..., FunctionProcess]) -> None:
    """A body that isn't JSON can't be an event."""
    answer = serve(ECHO).request("/", b"{nope", {"wisp-event-format": "lambda"})
    assert (answer.status, answer.json["errorType"]) == (400, "InvalidJson")


def test_context(serve: Callable[..., FunctionProcess]) -> None:
    """The context says what Lambda's says."""
    code = """
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    names = ["aws_request_id", "function_name", "function_version", "memory_limit_in_mb", "invoked_function_arn",
             "log_group_name", "log_stream_name", "client_context"]
    return {name: getattr(context, name) for name in names} | {"left": 30_000 < left <= 60_000}
"""
    function = serve(code, WISP_TIMEOUT_SECONDS="60", WISP_MEMORY_MB="128")
    assert function.invoke({}, **{"wisp-request-id": "mine"}).json == {
        "aws_request_id": "mine",
        "function_name": "hello",
        "function_version": "hello-00001",
        "memory_limit_in_mb": "128",
        "invoked_function_arn": "arn:wisp:lambda:::function:tests:hello",
        "log_group_name": "/wisp/tests/hello",
        "log_stream_name": "hello-00001",
        "client_context": None,
        "left": True,
    }


@pytest.mark.parametrize(
    ("result", "error_type"),
    [
        ("{1, 2}", "Runtime.MarshalError"),
        ("b'x'", "Runtime.MarshalError"),
        ("float('nan')", "Runtime.MarshalError"),
        ("'\\ud800'", "Runtime.MarshalError"),
        ("'x' * (7 << 20)", "Function.ResponseSizeTooLarge"),
        ("1 / 0", "ZeroDivisionError"),
        ("__import__('sys').exit(3)", "Runtime.ExitError"),
        ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
    ],
)
def test_function_errors(serve: Callable[..., FunctionProcess], result: str, error_type: str) -> None:
    """Whatever a handler raises or returns, the caller gets 500 with the error, and the process serves on."""
    function = serve(EVAL)
    answer = function.invoke(result, **{"wisp-request-id": "r-1"})
    assert answer.status == 500
    assert answer.headers["wisp-function-error"] == "Unhandled"
    assert answer.headers["wisp-request-id"] == "r-1"
    assert answer.json["errorType"] == error_type
    assert answer.json["requestId"] == "r-1"
    line = function.log(lambda line: line.get("errorType") == error_type)
    assert (line["level"], line["requestId"]) == ("ERROR", "r-1")
    assert function.invoke("1 + 1").json == 2


def test_stack_trace_is_the_users(serve: Callable[..., FunctionProcess]) -> None:
    """The stack trace has the user's frames and none of the runtime's."""
    code = "def helper():\n    raise KeyError('x')\n\ndef handler(event, context):\n    return helper()\n"
    stack = serve(code).invoke({}).json["stackTrace"]
    assert len(stack) == 2
    assert 'app.py", line 5, in handler' in stack[0]
    assert "raise KeyError('x')" in stack[1]


def test_asynchronous_handler(serve: Callable[..., FunctionProcess]) -> None:
    """An async handler runs to its end in one event loop that outlives the event."""
    code = """
import asyncio
loops = set()
async def handler(event, context):
    await asyncio.sleep(0.001)
    loops.add(id(asyncio.get_running_loop()))
    return [event, len(loops)]
"""
    function = serve(code)
    assert [function.invoke(n).json for n in range(3)] == [[0, 1], [1, 1], [2, 1]]


def test_function_url_event(serve: Callable[..., FunctionProcess]) -> None:
    """Plain HTTP becomes API Gateway's payload 2.0."""
    headers = {"content-type": "application/json", "cookie": "a=1; b=2", "X-Multi": "x", "user-agent": "tests"}
    answer = serve(ECHO).request("/p%20q/r?x=1&y=a%20b&x=2&z=", b'{"k": 1}', headers, "PUT")
    event = answer.json
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/p%20q/r"
    assert event["rawQueryString"] == "x=1&y=a%20b&x=2&z="
    assert event["queryStringParameters"] == {"x": "1,2", "y": "a b", "z": ""}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["x-multi"] == "x"
    assert "cookie" not in event["headers"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"k": 1}', False)
    http = event["requestContext"]["http"]
    assert http == {
        "method": "PUT",
        "path": "/p%20q/r",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    }
    assert event["requestContext"]["requestId"] == answer.headers["wisp-request-id"]


def test_function_url_binary_body_is_base64(serve: Callable[..., FunctionProcess]) -> None:
    """A body that isn't known to be text is base64; without body and query the keys are absent."""
    function = serve(ECHO)
    event = function.request("/", b"\x00\xff", {"content-type": "application/octet-stream"}).json
    assert (event["body"], event["isBase64Encoded"]) == ("AP8=", True)
    event = function.request("/").json
    assert not {"body", "cookies", "queryStringParameters"} & event.keys()


def test_function_url_response(serve: Callable[..., FunctionProcess]) -> None:
    """A result with statusCode is the response itself."""
    code = """
def handler(event, context):
    return {"statusCode": 201, "headers": {"X-A": "b", "Content-Type": "image/png", "Wisp-Request-Id": "forged"},
            "cookies": ["a=1", "b=2; Secure"], "body": "AP8=", "isBase64Encoded": True}
"""
    answer = serve(code).request("/", headers={"x-request-id": "true-id"})
    assert (answer.status, answer.body) == (201, b"\x00\xff")
    assert (answer.headers["x-a"], answer.headers["content-type"]) == ("b", "image/png")
    assert answer.message.get_all("set-cookie") == ["a=1", "b=2; Secure"]
    assert answer.message.get_all("wisp-request-id") == ["true-id"]


@pytest.mark.parametrize(
    ("result", "body"),
    [('"Hello"', b'"Hello"'), ('{"a": 1}', b'{"a":1}'), ("None", b"null"), ("[1]", b"[1]")],
)
def test_function_url_plain_value(serve: Callable[..., FunctionProcess], result: str, body: bytes) -> None:
    """A result without statusCode is 200 with the value as JSON."""
    answer = serve(f"def handler(event, context):\n    return {result}\n").request("/")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, "application/json")


@pytest.mark.parametrize(
    "result",
    [
        '{"statusCode": 99}',
        '{"statusCode": "x"}',
        '{"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}',
        '{"statusCode": 200, "headers": {"a b": "c"}}',
        '{"statusCode": 200, "headers": []or[1]}',
        '{"statusCode": 200, "body": "%%%", "isBase64Encoded": True}',
    ],
)
def test_invalid_function_url_response(serve: Callable[..., FunctionProcess], result: str) -> None:
    """A response that can't be sent is the function's error; nothing of it reaches the wire."""
    answer = serve(f"def handler(event, context):\n    return {result}\n").request("/")
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.InvalidResponse")


def test_insane_request_ids_are_replaced(serve: Callable[..., FunctionProcess]) -> None:
    """A caller's id is taken only where it can stand in headers and logs."""
    function = serve(ECHO)
    for bad in ("a b", "x" * 300, ""):
        assert len(function.invoke({}, **{"wisp-request-id": bad}).headers["wisp-request-id"]) == 36
