"""Lambda handlers in the Node.js worker: what they are given, and the one frame that answers each invocation."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.node import RUNTIME
from fixtures.worker import CHUNK, DEADLINE, END, ERROR, PAUSE, RESULT, RESUME, START

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.worker import WorkerProcess

    Run = Callable[..., WorkerProcess]

ECHO = "export const handler = async (event) => event;"
ANSWERS: list[tuple[str, Any]] = [
    ("async (event) => ({ got: event })", {"got": {"a": "ø"}}),
    ("(event, context) => Promise.resolve(event.a)", "ø"),
    ("(event) => event.a", "ø"),
    ("async () => undefined", None),
    ("async () => ({ n: NaN, u: undefined, d: new Date(0) })", {"n": None, "d": "1970-01-01T00:00:00.000Z"}),
    ("(event, context, callback) => { setTimeout(() => callback(null, 1), 5) }", 1),
    ("(event, context, callback) => { callback(null, 1); callback(null, 2); context.succeed(3) }", 3),
    ("(event, context, callback) => { context.succeed(3); callback(null, 1) }", 3),
    ("(event, context, callback) => { callback(null, 1); setTimeout(() => console.log('later'), 5) }", 1),
    ("(event, context) => { setTimeout(() => context.done(null, 4), 5) }", 4),
    ("(event, context) => { context.succeed('s') }", "s"),
    ("(event, context) => { setTimeout(() => {}, 5) }", None),
    ("(event, context, callback) => {}", None),
    ("async function (event, context, callback) { callback(null, 1); return 2 }", 2),
]
ERRORS: list[tuple[str, str, str]] = [
    ("async () => { throw new TypeError('bad ø') }", "TypeError", "bad ø"),
    ("() => { throw new RangeError('sync') }", "RangeError", "sync"),
    ("async () => { class MyError extends Error { name = 'MyError' }; throw new MyError('mine') }", "MyError", "mine"),
    ("async () => { throw 'a text' }", "string", "a text"),
    ("async () => { throw Object.create(null) }", "handled", "no readable name"),
    ("(event, context, callback) => callback(new Error('called back'))", "Error", "called back"),
    ("(event, context, callback) => { callback('text') }", "string", "text"),
    ("(event, context) => context.fail('failed')", "string", "failed"),
    ("(event, context) => context.fail()", "string", "handled"),
    ("(event, context) => context.done(new Error('done'))", "Error", "done"),
    ("async () => { const a = {}; a.a = a; return a }", "Runtime.MarshalError", "Unable to marshal response: "),
    ("async () => 10n", "Runtime.MarshalError", "Unable to marshal response: "),
    ("async () => { await new Promise(() => {}) }", "Runtime.NodeJsExit", "never settled"),
    ("async () => { throw new Error('lone \\ud800') }", "Error", "lone \ufffd"),
]


@pytest.mark.parametrize(("handler", "wanted"), ANSWERS)
def test_result(run: Run, handler: str, wanted: Any) -> None:
    """Whichever way a handler answers, its first answer is the invocation's result, and the next one is served."""
    worker = run(f"export const handler = {handler};")
    for _ in range(2):
        frame = worker.call('{"a":"ø"}')
        assert (frame.kind, frame.head, frame.json) == (RESULT, {}, wanted)


@pytest.mark.parametrize(("handler", "error_type", "message"), ERRORS)
def test_error(run: Run, handler: str, error_type: str, message: str) -> None:
    """Whatever a handler throws is the function's error, under the name that Lambda gives it, and the next event is served."""
    worker = run(f"export const handler = {handler};")
    for _ in range(2):
        frame = worker.call()
        assert (frame.kind, frame.head["errorType"]) == (ERROR, error_type)
        assert message in frame.head["errorMessage"]
        assert "fault" not in frame.head


def test_stack_is_the_users(run: Run) -> None:
    """A stack trace has the user's frames, and neither Node's nor the worker's, also where an error is logged."""
    worker = run("""
function inner() { throw new Error("deep"); }
export const handler = async (event) => {
  if (event) console.error(new Error("logged"));
  await null;
  inner();
};
""")
    trace = worker.call("true").head["stackTrace"]
    assert [line.split(" (")[0] for line in trace] == ["    at inner", "    at handler"]
    assert all("app.mjs:" in line and "file:" not in line for line in trace)
    logged = worker.lines()[0]
    assert (logged["errorType"], logged["errorMessage"]) == ("Error", "logged")
    assert str(RUNTIME) not in json.dumps(logged)
    assert "node:internal" not in json.dumps(logged)


def test_the_first_frame_ends_before_an_uncaught_error_of_the_same_turn(run: Run) -> None:
    """A rejection that nobody handles is this invocation's error even if the handler has returned, and ends the worker."""
    worker = run("""
export const handler = async (event) => { Promise.reject(new Error("lost")); return 1; };
""")
    frame = worker.call()
    assert (frame.kind, frame.head["errorType"]) == (ERROR, "Runtime.UnhandledPromiseRejection")
    assert frame.head["errorMessage"] == "Error: lost"
    assert worker.end() == 128


def test_uncaught_exception(run: Run) -> None:
    """An exception that nobody catches is the error of the invocation that runs, and ends the worker."""
    worker = run("""
export const handler = (event, context, callback) => { setTimeout(() => { throw new TypeError("late"); }, 1); };
""")
    frame = worker.call()
    assert (frame.kind, frame.head["errorType"], frame.head["errorMessage"]) == (ERROR, "TypeError", "late")
    assert len(frame.head["stackTrace"]) == 1
    assert frame.head["ends"] is True, "the front must give it nothing more"
    assert worker.end() == 129


def test_callback_waits_for_the_event_loop(run: Run) -> None:
    """A callback's result waits for what the handler has begun, unless it says that it need not."""
    worker = run("""
export const handler = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event.wait;
  const timer = setTimeout(() => { globalThis.seen = (globalThis.seen ?? 0) + 1; }, event.ms);
  callback(null, { get seen() { return globalThis.seen ?? 0 } });
  if (!event.wait) timer.unref();
};
""")
    assert worker.call('{"wait":true,"ms":30}').json == {"seen": 1}
    assert worker.call('{"wait":false,"ms":600000}').json == {"seen": 1}


def test_context(run: Run) -> None:
    """The context says what Lambda's says."""
    worker = run("""
export const handler = async (event, context) => ({
  ...context, left: context.getRemainingTimeInMillis(), trace: process.env._X_AMZN_TRACE_ID ?? null,
});
""")
    given: dict[str, Any] = {
        "id": "mine",
        "deadline": int(time.time() * 1000) + 60_000,
        "clientContext": {"custom": 1},
        "xray": "Root=1",
    }
    told = worker.call(**given).json
    assert 1000 < told.pop("left") <= 60_000
    assert told == {
        "callbackWaitsForEmptyEventLoop": True,
        "functionName": "hello",
        "functionVersion": "hello-00001",
        "memoryLimitInMB": "128",
        "logGroupName": "/wisp/tests/hello",
        "logStreamName": "hello-00001",
        "invokedFunctionArn": "arn:wisp:lambda:::function:tests:hello",
        "awsRequestId": "mine",
        "clientContext": {"custom": 1},
        "xRayTraceId": "Root=1",
        "trace": "Root=1",
    }
    assert worker.call().json["trace"] is None
    assert worker.call(deadline=1).json["left"] == 0


EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


@pytest.mark.parametrize(
    ("data", "body", "wanted"),
    [
        (None, b"", {}),
        ("json", b'{"a":1}', {"data": {"a": 1}}),
        ("text", "ø".encode(), {"data": "ø"}),
        ("bytes", b"\x89P", {"data_base64": base64.b64encode(b"\x89P").decode()}),
    ],
)
def test_cloudevent_in_its_json_format(run: Run, data: str | None, body: bytes, wanted: dict[str, Any]) -> None:
    """A CloudEvent reaches a Lambda handler as the object of its JSON format."""
    head = {"data": data} if data else {}
    assert run(ECHO).call(body, form="cloudevent", attributes=EVENT, **head).json == EVENT | wanted


@pytest.mark.parametrize("body", [b"{nope", b"", b"\xff", b"[1,]"])
def test_body_that_is_not_json(run: Run, body: bytes) -> None:
    """An event that isn't JSON is the caller's fault, and never reaches the handler."""
    frame = run(ECHO).call(body)
    assert (frame.kind, frame.head["fault"], frame.head["errorType"]) == (ERROR, "request", "InvalidJson")


def test_large_events_and_results(run: Run) -> None:
    """An event and a result of several MiB pass in many pieces, and small ones behind them."""
    worker = run(ECHO)
    text = json.dumps("ø" * 3_000_000, ensure_ascii=False)
    assert worker.call(text).body == text.encode()
    assert worker.call("1").json == 1


STREAM = """
export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
  const out = event.prelude ? awslambda.HttpResponseStream.from(stream, event.prelude) : stream;
  if (event.type) out.setContentType(event.type);
  if (event.early) throw new Error("early");
  for (const part of event.parts) { out.write(part); await new Promise((r) => setTimeout(r, 1)); }
  if (event.late) throw new Error("late");
  if (!event.open) out.end();
});
"""


@pytest.mark.parametrize(
    ("event", "head", "body"),
    [
        ({"parts": ["a", "b", "c"]}, {}, b"abc"),
        ({"parts": [{"n": 1}]}, {}, b'{"n":1}'),
        ({"parts": [], "type": "text/plain"}, {"status": 200, "headers": [["content-type", "text/plain"]]}, b""),
        (
            {"parts": ["x"], "prelude": {"statusCode": 201, "headers": {"x-a": "1"}, "cookies": ["c=1", "d=2"]}},
            {"status": 201, "headers": [["x-a", "1"], ["set-cookie", "c=1"], ["set-cookie", "d=2"]]},
            b"x",
        ),
    ],
)
def test_response_streaming(run: Run, event: dict[str, Any], head: dict[str, Any], body: bytes) -> None:
    """What a streaming handler writes leaves piece by piece, its head first, and ends with it."""
    worker = run(STREAM)
    for _ in range(2):
        frames = [worker.call(json.dumps(event))]
        while frames[-1].kind not in (END, ERROR):
            frames.append(worker.receive())
        assert [frame.kind for frame in frames[1:-1]] == [CHUNK] * max(0, len(event["parts"]) - 1)
        assert (frames[0].kind, frames[0].head, frames[-1].kind, frames[-1].head) == (START, head, END, {})
        assert b"".join(frame.body for frame in frames) == body


def test_response_streaming_fails(run: Run) -> None:
    """An error before the first byte is an ordinary one; later the stream breaks off, as it does when it is not ended."""
    worker = run(STREAM)
    assert worker.call('{"early":1}').head["errorMessage"] == "early"
    assert worker.call('{"parts":["a"],"late":1}').kind == START
    frame = worker.receive()
    assert (frame.kind, frame.head["errorMessage"]) == (END, "late")
    assert worker.call('{"parts":["a"],"open":1}').kind == START
    frame = worker.receive()
    assert (frame.kind, frame.head["errorMessage"]) == (END, "Response stream is not finished.")


def test_a_paused_stream_waits(run: Run, tmp_path: Path) -> None:
    """After PAUSE no piece is sent until RESUME; the writer is held by its own write."""
    worker = run("""
import { existsSync } from "node:fs";
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const write = (text) => new Promise((resolve) => stream.write(text, resolve));
  await write("a");
  while (!existsSync(event)) await new Promise((resolve) => setTimeout(resolve, 10));
  for (let n = 0; n < 2; n++) await new Promise((resolve) => setImmediate(resolve));  // what the socket holds is read
  await write("b");
  for (let n = 0; n < 5; n++) await write("c");
  stream.end();
});
""")
    gate = tmp_path / "gate"
    number = worker.invoke(json.dumps(str(gate)))
    assert worker.receive().kind == START
    worker.send(PAUSE, number)
    gate.touch()
    assert worker.receive().body == b"b"  # this one was on its way
    worker.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        worker.receive()
    worker.socket.settimeout(DEADLINE)
    worker.send(RESUME, number)
    rest = [worker.receive() for _ in range(6)]
    assert (b"".join(frame.body for frame in rest), rest[-1].kind) == (b"ccccc", END)
