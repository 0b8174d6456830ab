"""Node.js handlers of the forms http (the web's and Node's style) and cloudevent."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker import CHUNK, END, ERROR, RESULT, START

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.worker import Frame, WorkerProcess

    Run = Callable[..., WorkerProcess]

TEXT = "text/plain; charset=utf-8"
# handler, wanted status, headers, body
RESPONSES: list[tuple[str, int, list[list[str]], bytes]] = [
    ("(request) => new Response('hi', { status: 201, headers: { 'x-a': '1' } })", 201,
     [["content-type", "text/plain;charset=UTF-8"], ["x-a", "1"]], b"hi"),
    ("async (request) => Response.json({ m: request.method, u: request.url, b: await request.text() })", 200,
     [["content-type", "application/json"]], b'{"m":"POST","u":"http://hello.example/p%20q?a=1","b":"body"}'),
    ("(request) => new Response(null, { status: 304 })", 304, [], b""),
    ("(request, context) => context.awsRequestId", 200, [["content-type", TEXT]], b"r-1"),
    ("(request) => ({ h: request.headers.get('X-Twice') })", 200, [["content-type", "application/json"]],
     b'{"h":"1, 2"}'),
    ("(request) => new Uint8Array([1, 2])", 200, [["content-type", "application/octet-stream"]], b"\x01\x02"),
    ("(request) => {}", 204, [], b""),
    ("(request) => new Response('', { headers: [['set-cookie', 'a'], ['set-cookie', 'b']] })", 200,
     [["content-type", "text/plain;charset=UTF-8"], ["set-cookie", "a"], ["set-cookie", "b"]], b""),
    ("{ fetch(request) { return new Response(new URL(request.url).pathname) } }", 200,
     [["content-type", "text/plain;charset=UTF-8"]], b"/p%20q"),
    ("(req, res) => { res.writeHead(202, { 'Set-Cookie': ['a', 'b'] }); res.end(req.url + req.headers['x-twice']) }",
     202, [["set-cookie", "a"], ["set-cookie", "b"]], b"/p%20q?a=11, 2"),
    ("async (req, res) => { let all = ''; for await (const part of req) all += part; res.end(req.method + all) }", 200,
     [], b"POSTbody"),
    ("(req, res) => { res.setHeader('x-from', req.socket.remoteAddress); res.end() }", 200,
     [["x-from", "10.0.0.9"]], b""),
    ("function (req, res) { res.sendDate = false; res.statusCode = 204; res.end() }", 204, [], b""),
]  # fmt: skip


def ask(worker: WorkerProcess, method: str = "POST", body: bytes = b"body") -> Frame:
    """Make the request of the table."""
    headers = [["host", "hello.example"], ["x-twice", "1"], ["x-twice", "2"], ["content-length", str(len(body))]]
    head: dict[str, Any] = {"form": "http", "method": method, "target": "/p%20q?a=1", "version": "1.1"}
    return worker.call(body, **head, headers=headers, peer="10.0.0.9", id="r-1")


def whole(worker: WorkerProcess, frame: Frame) -> tuple[dict[str, Any], bytes]:
    """Head and body of an answer, streamed or not."""
    parts = [frame]
    while parts[0].kind == START and parts[-1].kind != END:
        parts.append(worker.receive())
    return parts[0].head, b"".join(part.body for part in parts)


@pytest.mark.parametrize(("handler", "status", "headers", "body"), RESPONSES)
def test_response(run: Run, handler: str, status: int, headers: list[list[str]], body: bytes) -> None:
    """What a handler returns or writes is the response: status, headers, body, on every request."""
    worker = run(f"export const handler = {handler};")
    for _ in range(2):
        frame = ask(worker)
        assert frame.kind == RESULT
        got = [pair for pair in frame.head["headers"] if pair[0] != "date"]
        assert (frame.head["status"], got, frame.body) == (status, headers, body)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH"])
@pytest.mark.parametrize("handler", ["(request) => new Response(request.method)", "(req, res) => res.end(req.method)"])
def test_methods(run: Run, handler: str, method: str) -> None:
    """Each method reaches the handler, with a body where it has no meaning too."""
    frame = ask(run(f"export const handler = {handler};"), method)
    assert (frame.kind, frame.head["status"]) == (RESULT, 200)


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        ("(request) => { throw new TypeError('web') }", "TypeError", "web"),
        ("async (request) => { throw new TypeError('web') }", "TypeError", "web"),
        ("(request) => new Promise(() => {})", "Runtime.NodeJsExit", "never settled"),
        ("(request) => 1n", "Runtime.MarshalError", "Unable to marshal"),
        ("async (request) => { const r = new Response('x'); await r.text(); return r }", "Runtime.InvalidResponse", ""),
        ("(req, res) => { throw new TypeError('node') }", "TypeError", "node"),
        ("async (req, res) => { throw new TypeError('node') }", "TypeError", "node"),
        ("(req, res) => {}", "Runtime.NodeJsExit", "never settled"),
        ("(req, res) => res.destroy()", "Runtime.InvalidResponse", "without a response"),
    ],
)
def test_errors(run: Run, handler: str, error_type: str, message: str) -> None:
    """A handler that throws or never answers is the function's error, and the next request is served."""
    worker = run(f"export const handler = {handler};")
    for _ in range(2):
        frame = ask(worker)
        assert (frame.kind, frame.head["errorType"]) == (ERROR, error_type)
        assert message in frame.head["errorMessage"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_what_a_request_can_not_be(run: Run, method: str) -> None:
    """A method that the web's Request refuses is the caller's fault."""
    frame = ask(run("export const handler = (request) => 1;"), method)
    assert (frame.kind, frame.head["fault"]) == (ERROR, "request")


STREAMS = [
    """(request) => new Response(new ReadableStream({
  async pull(controller) {
    if ((this.n = (this.n ?? 0) + 1) > 3) return BREAK ? controller.error(new Error("broke")) : controller.close();
    await new Promise((r) => setTimeout(r, 5));
    controller.enqueue(new TextEncoder().encode(`${this.n}`));
  } }), { status: 203 })""",
    """async (req, res) => {
  res.statusCode = 203;
  for (const n of "123") { res.write(n); await new Promise((r) => setTimeout(r, 5)); }
  BREAK ? res.destroy() : res.end();
}""",
]


@pytest.mark.parametrize("handler", STREAMS)
def test_streams(run: Run, handler: str) -> None:
    """A response that comes bit by bit leaves bit by bit, and one that breaks off is told so."""
    worker = run(f"export const handler = {handler.replace('BREAK', 'false')};")
    first = ask(worker)
    assert (first.kind, first.head["status"], first.body) == (START, 203, b"1")
    assert [worker.receive().kind for _ in range(2)] == [CHUNK, CHUNK]
    last = worker.receive()
    assert (last.kind, last.head) == (END, {})
    worker = run(f"export const handler = {handler.replace('BREAK', 'true')};")
    frames = [ask(worker)]
    while frames[-1].kind != END:
        frames.append(worker.receive())
    assert "errorType" in frames[-1].head


EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "x", "extra": "e"}


def event(worker: WorkerProcess, body: bytes = b"", **head: Any) -> Frame:
    """Send a CloudEvent of form cloudevent."""
    return worker.call(body, form="cloudevent", attributes=EVENT, **head)


@pytest.mark.parametrize(
    ("body", "head", "wanted"),
    [
        (b'{"a":1}', {"data": "json"}, {"data": {"a": 1}}),
        ("ø".encode(), {"data": "text"}, {"data": "ø"}),
        (b"\x00\xff", {"data": "bytes"}, {"data_base64": "AP8="}),
        (b"", {}, {}),
    ],
)
def test_event(run: Run, body: bytes, head: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The event's attributes are properties, its data is read, and its JSON is the JSON format."""
    worker = run("""
export const handler = (ce) => ({ id: ce.id, extra: ce.extra, kind: ce.data?.constructor.name, text: `${ce}`, ce });
""")
    got = event(worker, body, **head).json
    assert (got["id"], got["extra"], got["ce"], json.loads(got["text"])) == ("1", "e", EVENT | wanted, EVENT | wanted)
    structured = EVENT | wanted
    assert worker.call(json.dumps(structured), form="json").json["ce"] == structured


def test_base64_of_json_is_read(run: Run) -> None:
    """Data in base64 is read by its content type, and what isn't base64 is the caller's fault."""
    worker = run("export const handler = (ce) => ce.data;")
    given = EVENT | {"datacontenttype": "application/json", "data_base64": base64.b64encode(b'{"a":1}').decode()}
    assert worker.call(json.dumps(given)).json == {"a": 1}
    frame = worker.call(json.dumps(given | {"data_base64": "?"}))
    assert (frame.kind, frame.head["fault"], frame.head["errorType"]) == (ERROR, "request", "InvalidCloudEvent")


REPLY = "specversion: '1.0', id: 'r', source: '/r', type: 'reply'"
ATTRIBUTES = {"specversion": "1.0", "id": "r", "source": "/r", "type": "reply"}


@pytest.mark.parametrize(
    ("result", "head", "body"),
    [
        ("undefined", {}, b"null"),
        ("5", {}, b"5"),
        (
            f"({{ {REPLY}, data: {{ a: 1 }} }})",
            {"attributes": ATTRIBUTES, "contentType": "application/json"},
            b'{"a":1}',
        ),
        (
            f"({{ {REPLY}, datacontenttype: 'text/plain', n: 5, b: true, data: 'ø' }})",
            {"attributes": ATTRIBUTES | {"n": "5", "b": "true"}, "contentType": "text/plain"},
            "ø".encode(),
        ),
        (
            f"({{ {REPLY}, data_base64: 'AP8=' }})",
            {"attributes": ATTRIBUTES, "contentType": "application/octet-stream"},
            b"\x00\xff",
        ),
        (
            "ce.cloneWith({ type: 'reply', id: 'r', source: '/r', subject: undefined, extra: undefined })",
            {"attributes": ATTRIBUTES, "contentType": ""},
            b"",
        ),
    ],
)
def test_reply(run: Run, result: str, head: dict[str, Any], body: bytes) -> None:
    """A CloudEvent that a handler returns is sent as one, anything else as a value."""
    frame = event(run(f"export const handler = async (ce) => {result};"))
    assert (frame.kind, frame.head, frame.body) == (RESULT, head, body)
