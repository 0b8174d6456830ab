"""aws-lambda-ric, AWS' client for Node.js, unmodified, behind the bridge."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.installed import cached
from fixtures.node import node
from fixtures.worker import CHUNK, END, ERROR, FAILED, RESULT, START

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unit.runtime_api.conftest import Bridge

VERSION = "4.0.2"
APP = """
export const handler = async (event, context) => {
    if (event === "context") {
        return {id: context.awsRequestId, arn: context.invokedFunctionArn, name: context.functionName,
                custom: context.clientContext?.custom ?? null, left: context.getRemainingTimeInMillis()}
    }
    if (event === "throw") throw new TypeError("no")
    if (event === "print") console.log("said")
    if (event === "exit") process.exit(6)
    return {event}
}
export const stream = awslambda.streamifyResponse(async (event, out) => {
    if (event === "early") throw new RangeError("before")
    const text = awslambda.HttpResponseStream.from(out, {statusCode: 201, headers: {"x-a": "1"}, cookies: ["c=2"]})
    text.write("first,")
    if (event === "late") throw new RangeError("after")
    for (let part = 0; part < 100; part++) text.write("x".repeat(100_000))
    text.end()
    await text.finished?.()
})
"""


def client() -> Path:
    """The client's entry, built at first use: that needs npm, cmake and a C++ compiler."""
    return cached(f"aws-lambda-ric-{VERSION}", _build_client) / "node_modules/aws-lambda-ric/index.mjs"


def _build_client(folder: Path) -> None:
    package = {
        "private": True,
        "dependencies": {"aws-lambda-ric": VERSION},
        "allowScripts": {"aws-lambda-ric": True},
    }
    (folder / "package.json").write_text(json.dumps(package))
    made = subprocess.run(
        ["npm", "install", "--foreground-scripts"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    assert (folder / "node_modules/aws-lambda-ric/rapid-client.node").exists(), made.stderr[-2000:]


@pytest.fixture
def function(bridge: Callable[..., Bridge]) -> Callable[..., Bridge]:
    """Start a function of aws-lambda-ric."""

    def start(app: str = APP, handler: str = "app.handler") -> Bridge:
        bootstrap = f"#!/bin/sh\nexec {node()} {client()} $_HANDLER\n"
        env = {"_HANDLER": handler, "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}
        return bridge(bootstrap, files={"app.mjs": app}, **env)

    return start


def test_events_and_results(function: Callable[..., Bridge]) -> None:
    """Any JSON goes in and out, and the context is the invocation's."""
    worker = function()
    worker.ready()
    event: Any
    for event in ({"a": [1, None, "ø"]}, "text", None, "x" * 1_000_000):
        assert worker.result(event) == {"event": event}
    found = worker.result("context", id="one", clientContext={"custom": {"k": "v"}})
    assert 0 < found.pop("left") <= 30_000
    arn = "arn:wisp:lambda:::function:tests:hello"
    assert found == {"id": "one", "arn": arn, "name": "hello", "custom": {"k": "v"}}


def test_errors(function: Callable[..., Bridge]) -> None:
    """What the handler throws is the invocation's error, and the next event runs."""
    worker = function()
    worker.ready()
    frame = worker.call('"throw"')
    assert (frame.kind, frame.head["errorType"], frame.head["errorMessage"]) == (ERROR, "TypeError", "no")
    assert "app.mjs" in frame.head["stackTrace"][1]
    assert worker.call("1").kind == RESULT
    worker.invoke('"exit"')
    assert worker.end() == 6


def test_a_handler_that_can_not_be_imported(function: Callable[..., Bridge]) -> None:
    """The start fails with the client's error."""
    worker = function("syntax error here")
    frame = worker.receive()
    assert (frame.kind, frame.head["errorType"]) == (FAILED, "Runtime.UserCodeSyntaxError")
    assert worker.end() == 1


def test_a_streamed_response(function: Callable[..., Bridge]) -> None:
    """Ten megabytes behind a prelude: status, headers and cookies in START, all bytes in order, none kept back."""
    worker = function(handler="app.stream")
    worker.ready()
    frames = worker.answer(worker.invoke("1"))
    assert frames[0].kind == START
    assert frames[0].head == {"status": 201, "headers": [["x-a", "1"], ["set-cookie", "c=2"]]}
    assert {frame.kind for frame in frames[1:-1]} == {CHUNK}
    assert b"".join(frame.body for frame in frames) == b"first," + b"x" * 10_000_000
    assert frames[-1][::2] == (END, {})


def test_streams_that_fail(function: Callable[..., Bridge]) -> None:
    """Before the first byte it is an error, after it the stream's END tells; the next event runs."""
    worker = function(handler="app.stream")
    worker.ready()
    early = worker.answer(worker.invoke('"early"'))
    assert [(frame.kind, frame.head["errorType"]) for frame in early] == [(ERROR, "RangeError")]
    late = worker.answer(worker.invoke('"late"'))
    assert late[0].kind == START
    assert (late[-1].kind, late[-1].head["errorType"], late[-1].head["errorMessage"]) == (END, "RangeError", "after")
    assert worker.answer(worker.invoke("1"))[-1].kind == END
