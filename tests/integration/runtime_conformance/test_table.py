"""One table for every language: a request, and the status, headers, body and log lines that must come of it."""

from __future__ import annotations

import base64
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from integration.runtime_conformance.conftest import CLIENTS, LANGUAGES
from unit.runtime.conftest import in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unit.runtime.conftest import Answer, FunctionProcess

    Serve = Callable[..., FunctionProcess]

INVOKE = {"wisp-event-format": "lambda", "content-type": "application/json"}
EVENT = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/s", "ce-type": "t"}
JSON = {"content-type": "application/json"}
ERROR = JSON | {"wisp-function-error": "Unhandled"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STRUCTURED = {"specversion": "1.0", "id": "s-1", "source": "/s", "type": "t", "data": {"a": 1}}
STRUCTURED_TYPE = {"content-type": "application/cloudevents+json"}
BATCH_TYPE = {"content-type": "application/cloudevents-batch+json"}


@dataclass(frozen=True)
class Row:
    """A request and what must come of it.

    Attributes:
        handler: the function of functions.py and functions.mjs.
        body: None is a GET.
        wanted: the response's body: bytes, or a JSON value; of an object each given key, ... standing for whatever is not empty.
        fields: headers that the response must have; None: must not.
        log: (level, part of the message) of the lines that must come in this order between START and END.
        env: settings of the function.
    """

    handler: str
    status: int
    wanted: Any
    body: bytes | None = b"null"
    headers: Mapping[str, str] = field(default_factory=lambda: INVOKE)
    path: str = "/"
    method: str = ""
    fields: Mapping[str, str | None] = field(default_factory=dict)
    log: tuple[tuple[str, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name the row where a test is listed."""
        return f"{self.handler}-{self.status}-{self.path}-{(self.body or b'')[:20].decode('latin-1')}"


def error(error_type: Any, message: Any) -> dict[str, Any]:
    """Make the document of an error."""
    return {"errorType": error_type, "errorMessage": message, "requestId": ...}


REFUSED = error("Refused", "nø") | {"stackTrace": ...}
EXIT = "Runtime exited with"
TABLE = [
    # Lambda: invocations.
    Row("echo", 200, {"a": "ø", "n": [1, None]}, '{"a":"ø","n":[1,null]}'.encode(), fields=JSON | {"wisp-function-error": None}),
    Row("echo", 200, b"null"),
    Row("echo", 400, error("InvalidJson", ...), b"{nope", fields=JSON | {"wisp-function-error": None}),
    Row("echo", 400, error("InvalidJson", ...), b"\xff", fields=JSON | {"wisp-function-error": None}),
    Row("fails", 500, REFUSED, fields=ERROR, log=(("INFO", "about to fail"), ("ERROR", "Refused: nø"))),
    Row("cycle", 500, error("Runtime.MarshalError", ...), fields=ERROR, log=(("ERROR", "Unable to marshal response"),)),
    Row("size", 200, b'"xxx"', b"3"),
    Row("size", 500, error("Function.ResponseSizeTooLarge", ...), b"7000000", fields=ERROR),
    Row("sleeps", 504, error("Sandbox.Timedout", ...), b"20", fields=JSON | {"wisp-function-error": "Timeout"},
        env={"WISP_TIMEOUT_SECONDS": "2"}, log=(("ERROR", "Task timed out after 2.00 seconds"),)),
    Row("sleeps", 200, b'"slept"', b"0", env={"WISP_TIMEOUT_SECONDS": "2"}),
    Row("exits", 500, error("Runtime.ExitError", ...), b"3", fields=ERROR, log=(("ERROR", f"{EXIT} error: exit status 3"),)),
    Row("exits", 500, error("Runtime.ExitError", ...), b"0", fields=ERROR, log=(("ERROR", f"{EXIT}out providing a reason"),)),
    Row("crashes", 500, error("Runtime.ExitError", ...), fields=ERROR, log=(("ERROR", f"{EXIT} error: signal: segmentation"),)),
    Row("logs", 200, b"null", log=(("INFO", "one line"), ("INFO", "unfinished"))),
    Row("about", 200, {
        "id": "mine", "function": "hello", "version": "hello-00001", "memory": "128", "client": {"k": 1}, "left": True,
        "arn": "arn:wisp:lambda:::function:tests:hello", "log": ["/wisp/tests/hello", "hello-00001"], "folder": True,
        "xray": "Root=1-0af76519-16cd43dd8448eb211c80319c", "handler": "functions.about",
    }, headers=INVOKE | {
        "wisp-request-id": "mine", "traceparent": TRACE,
        "x-amz-client-context": base64.b64encode(b'{"custom":{"k":1}}').decode(),
    }, fields={"wisp-request-id": "mine"}, env={"WISP_TIMEOUT_SECONDS": "5", "WISP_MEMORY_MB": "128"}),
    # Lambda: CloudEvents, batches and HTTP.
    Row("echo", 200, {"specversion": "1.0", "id": "e-1", "data": {"a": 1}}, b'{"a":1}', EVENT | JSON,
        fields={"wisp-request-id": "e-1"}),
    Row("echo", 200, {"data": "ø"}, "ø".encode(), EVENT | {"content-type": "text/plain"}),
    Row("echo", 200, {"data_base64": "AP8="}, b"\x00\xff", EVENT | {"content-type": "image/png"}),
    Row("echo", 200, STRUCTURED, json.dumps(STRUCTURED).encode(), {"content-type": "application/cloudevents+json"}),
    Row("echo", 200, [STRUCTURED], json.dumps([STRUCTURED]).encode(),
        {"content-type": "application/cloudevents-batch+json"}),
    Row("echo", 400, error("InvalidCloudEvent", ...), b"{}", EVENT | {"ce-id": ""}),
    Row("echo", 400, error("InvalidCloudEvent", ...), b"{}", EVENT | {"ce-subject": "%FF"}),
    Row("echo", 200, {"data_base64": "/w=="}, b"\xff", EVENT | {"content-type": "text/plain; charset=utf-8"}),
    Row("echo", 400, error("InvalidCloudEvent", ...), json.dumps(STRUCTURED | {"id": None}).encode(), STRUCTURED_TYPE),
    Row("echo", 400, error(..., ...), b'{"specversion":"1.0","id":"\xff","source":"/s","type":"t"}', STRUCTURED_TYPE),
    Row("echo", 400, error("InvalidCloudEvent", ...), json.dumps([STRUCTURED, {}]).encode(), BATCH_TYPE),
    Row("echo", 400, error(..., ...), b'[{"id":"\xff"}]', BATCH_TYPE),
    Row("echo", 200, {"rawPath": "/a%20b", "rawQueryString": "q=1", "queryStringParameters": {"q": "1"}}, None, {},
        "/a%20b?q=1"),
    Row("url", 201, "hø".encode(), None, {}, fields={"x-a": "1", "content-type": "text/plain", "set-cookie": "a=1, b=2"}),
    Row("broken_url", 500, error("Runtime.InvalidResponse", ...), None, {}, fields=ERROR),
    # Streams.
    Row("streams", 200, b"abc", fields={"content-type": "application/octet-stream", "transfer-encoding": "chunked"}),
    # CloudEvents to a function that takes one.
    Row("on_event", 200, {"a": 1}, b'{"a":1}', EVENT | JSON, fields=JSON),
    Row("on_event", 204, b"", b"", EVENT),
    Row("on_event", 200, {"n": 1}, b'"reply"', EVENT | JSON, fields=JSON | {
        "ce-id": "r-1", "ce-source": "/reply", "ce-type": "reply", "ce-specversion": "1.0", "ce-subject": "%C3%B8",
    }),
    Row("on_event", 400, error("InvalidCloudEvent", ...), b"{}", JSON),
    Row("on_event", 400, error("InvalidJson", ...), b"{", EVENT | JSON),
    Row("on_event_fails", 500, REFUSED, b"{}", EVENT | JSON, fields=ERROR),
    # HTTP.
    Row("respond", 200, {"method": "PUT", "query": "a=%201", "body": "bødy", "x": "1"}, "bødy".encode(), {"x-a": "1"},
        "/x?a=%201", "PUT"),
    Row("respond", 202, b"made", None, {}, "/status", fields={"x-a": "1", "content-type": "text/plain"}),
    Row("respond", 200, "tøxt".encode(), None, {}, "/text", fields={"content-type": "text/plain; charset=utf-8"}),
    Row("respond", 200, {"n": [1, None]}, None, {}, "/json", fields=JSON),
    Row("respond", 200, b"\x00\xff", None, {}, "/bytes", fields={"content-type": "application/octet-stream"}),
    Row("respond", 204, b"", None, {}, "/nothing"),
    Row("respond", 500, REFUSED, None, {}, "/fails", fields=ERROR),
    Row("respond", 200, b"", None, {}, "/json", "HEAD", fields=JSON),
]  # fmt: skip


NOT_THERE = (
    ("awslambdaric", "streams"),  # by a generator
    ("aws-lambda-ric", "cycle"),  # by callback, and
    ("aws-lambda-ric", "size"),  # by context.succeed: AWS took both away
)
NO_LAMBDA = ("on_event", "on_event_fails", "respond")
RUNS = [(language, row) for language in LANGUAGES for row in TABLE] + [
    (client, row)
    for client in CLIENTS
    for row in TABLE
    if row.handler not in NO_LAMBDA and (client, row.handler) not in NOT_THERE
]


@pytest.mark.parametrize(("language", "row"), RUNS, ids=str)
def test_row(serve: Serve, language: str, row: Row) -> None:
    """The same request has the same answer and the same log, whatever runs the function: our workers, or AWS' clients unmodified."""
    function = serve(language, row.handler, **row.env)

    def ask() -> Answer:
        return function.request(row.path, row.body, dict(row.headers), row.method or None)

    answer = ask() if row.status == 504 else in_time(ask)
    assert answer.status == row.status, answer.body
    assert_matches(answer.body, row.wanted)
    answer.headers["set-cookie"] = ", ".join(answer.message.get_all("set-cookie") or [])
    assert {name: answer.headers.get(name) for name in row.fields} == dict(row.fields)
    request_id = answer.headers["wisp-request-id"]
    assert request_id
    if row.log:
        end = function.log(lambda line: line.get("requestId") == request_id and line.get("type") == "platform.report")
        lines = [line for line in function.lines if line.get("requestId") == request_id]
        assert lines[-1] == end
        assert [line.get("type") for line in lines[-2:]] == ["platform.end", "platform.report"]
        assert lines[0]["type"] == "platform.start"
        said = [(line["level"], line["message"]) for line in lines[1:-2] if not logged_by_client(language, line)]
        assert len(said) == len(row.log), said
        for (level, message), (wanted_level, part) in zip(said, row.log, strict=True):
            assert level == wanted_level
            assert part in message


def logged_by_client(language: str, line: Mapping[str, Any]) -> bool:
    """Whether a line is the report that AWS' clients print of an error, besides telling the Runtime API."""
    return language in CLIENTS and any(mark in line["message"] for mark in ("[ERROR]", "\tERROR\t"))


def assert_matches(body: bytes, wanted: Any) -> None:
    """Check a body against a row's."""
    if isinstance(wanted, bytes):
        assert body == wanted
    elif isinstance(wanted, dict):
        got = json.loads(body)
        assert all(got.get(key) for key, value in wanted.items() if value is ...), got
        assert {key: got.get(key) for key, value in wanted.items() if value is not ...} == {
            key: value for key, value in wanted.items() if value is not ...
        }
    else:
        assert json.loads(body) == wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_stream_breaks_off(serve: Serve, language: str) -> None:
    """A stream that fails after its first byte ends without the end of its body, and the error is in the log."""
    function = serve(language, "streams")
    connection = function.connect()
    connection.request("POST", "/", b'"break"', INVOKE)
    answer = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    connection.close()
    assert caught.value.partial == b"ab"
    function.log(lambda line: line["level"] == "ERROR" and line["message"] == "Refused: broken")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tail_of_the_log(serve: Serve, language: str) -> None:
    """A caller that asks for it gets the end of its invocation's log, in base64."""
    answer = serve(language, "logs").request("/", b"null", INVOKE | {"x-amz-log-type": "Tail", "traceparent": TRACE})
    lines = [json.loads(line) for line in base64.b64decode(answer.headers["x-amz-log-result"]).splitlines()]
    assert [line["message"].split(" ")[0] for line in lines] == ["START", "one", "unfinished", "END", "REPORT"]
    assert {line["trace"] for line in lines} == {answer.headers["traceparent"]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_crash_costs_its_own_event_only(serve: Serve, language: str) -> None:
    """Events that wait behind one that ends its worker run in the next worker, and none is given to the dying one."""
    function = serve(language, "strays")
    with ThreadPoolExecutor(8) as pool:
        ends = [n % 4 == 0 for n in range(40)]
        answers = list(pool.map(lambda end: function.request("/", json.dumps(end).encode(), INVOKE), ends))
    assert [answer.status for answer in answers] == [500 if end else 200 for end in ends]


TRACED = [
    ("traced", b"null", INVOKE),
    ("traced", None, {}),
    ("traced", b"{}", EVENT | JSON),
    ("shows_trace", b"{}", JSON),
    ("on_event", b'"reply"', EVENT | JSON),
]


@pytest.mark.parametrize(("handler", "body", "headers"), TRACED)
@pytest.mark.parametrize("given", [TRACE, "", "00-nonsense-01"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_trace(
    serve: Serve, language: str, given: str, handler: str, body: bytes | None, headers: dict[str, str]
) -> None:
    """The caller's trace goes on, or one begins, with the invocation's own span: to the handler, the log and the reply."""
    function = serve(language, handler)
    answer = function.request("/", body, headers | {"tracestate": "a=1"} | ({"traceparent": given} if given else {}))
    trace = answer.headers["traceparent"]
    version, trace_id, span, flags = trace.split("-")
    follows = given == TRACE
    assert (version, len(trace_id), len(span), flags) == ("00", 32, 16, "01" if follows else "03")
    assert (trace_id == TRACE.split("-")[1]) == follows
    assert span != TRACE.split("-")[2]
    state = "a=1" if follows else None
    if handler == "on_event":
        assert (answer.headers["ce-traceparent"], answer.headers.get("ce-tracestate")) == (trace, state)
        return
    seen = answer.json
    if "context" in seen:
        assert seen["context"] == {"traceparent": trace} | ({"tracestate": state} if state else {})
        assert seen["xray"] == f"Root=1-{trace_id[:8]}-{trace_id[8:]};Parent={span};Sampled=1"
    if body is None or handler == "shows_trace":
        assert seen["headers"] == [trace, state]
    function.log(lambda line: line["message"] == "traced" and line["trace"] == trace)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_trace_of_an_event(serve: Serve, language: str) -> None:
    """An event's own trace counts where the request names none, in binary and in structured mode."""
    function = serve(language, "traced")
    binary = function.request("/", b"{}", EVENT | JSON | {"ce-traceparent": TRACE, "ce-tracestate": "b=2"})
    structured = STRUCTURED | {"traceparent": TRACE, "tracestate": "b=2"}
    whole = function.request("/", json.dumps(structured), {"content-type": "application/cloudevents+json"})
    for answer in (binary, whole):
        assert answer.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
        assert answer.json["context"] == {"traceparent": answer.headers["traceparent"], "tracestate": "b=2"}


START = [
    ("import nope", "import 'nope';", "Runtime.ImportModuleError: Unable to import module 'app': "),
    ("other = 1", "export const other = 1;", "Runtime.HandlerNotFound: Handler 'handler' "),
    ("handler = 5", "export const handler = 5;", "Runtime.HandlerNotFound: Handler 'handler' of module 'app' is "),
    ("def handler(:", "export const handler = (:", "Runtime.UserCodeSyntaxError: Syntax error in module 'app': "),
    (
        "raise TypeError('a')",
        "throw new TypeError('a');",
        "Runtime.ImportModuleError: Unable to import module 'app': TypeError: a",
    ),
    ("import sys; sys.exit(3)", "process.exit(3);", "Runtime.ExitError: Module 'app' called "),
    (
        "import time; time.sleep(60)",
        "await new Promise((r) => setTimeout(r, 60000));",
        "Runtime.InitTimeout: Module 'app' was not imported within 0.5 seconds",
    ),
    ("while True: pass", "for (;;);", "Runtime.InitTimeout: "),
]


@pytest.mark.parametrize(("python", "nodejs", "wanted"), START)
@pytest.mark.parametrize("language", LANGUAGES)
def test_start(start: Serve, language: str, python: str, nodejs: str, wanted: str) -> None:
    """What keeps a function from starting ends the process, and stands in the log and in the termination message."""
    limit = {"WISP_INIT_TIMEOUT_SECONDS": "0.5"} if wanted.startswith("Runtime.InitTimeout") else {}
    function = start(language, nodejs if language == "nodejs" else python, **limit)
    assert function.exit_status() == 1
    assert function.termination_log.read_text().startswith(wanted)
    assert any(line["level"] == "ERROR" and line["message"].startswith(wanted) for line in function.lines)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_such_module(start: Serve, language: str) -> None:
    """A handler whose file isn't there is named, too."""
    function = start(language, "", WISP_HANDLER="nowhere.handler")
    assert function.exit_status() == 1
    assert function.termination_log.read_text().startswith(
        "Runtime.ImportModuleError: Unable to import module 'nowhere'"
    )
