"""awslambdaric, AWS' client for Python, unmodified, behind the bridge."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.worker import ERROR, FAILED, RESULT, STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge

BOOTSTRAP = f"#!/bin/sh\nexec {sys.executable} -m awslambdaric $_HANDLER\n"
APP = """
import logging, os, sys

calls = 0

def handler(event, context):
    global calls
    calls += 1
    if event == "context":
        custom = context.client_context.custom if context.client_context else None
        return {
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "name": context.function_name,
            "version": context.function_version,
            "memory": context.memory_limit_in_mb,
            "group": context.log_group_name,
            "left": context.get_remaining_time_in_millis(),
            "custom": custom,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        }
    if event == "raise":
        raise ValueError("no")
    if event == "set":
        return {1, 2}
    if event == "print":
        print("said")
        logging.getLogger().warning("warned")
    if event == "exit":
        os._exit(5)
    if event == "large":
        return "x" * (7 << 20)
    return {"event": event, "calls": calls}
"""


@pytest.fixture
def function(bridge: Callable[..., Bridge]) -> Callable[..., Bridge]:
    """Start a function of awslambdaric."""

    def start(app: str = APP, **env: str) -> Bridge:
        return bridge(BOOTSTRAP, files={"app.py": app}, **env)

    return start


def test_events_and_results(function: Callable[..., Bridge]) -> None:
    """Any JSON goes in and out, one event after the other in one process."""
    worker = function()
    worker.ready()
    events: list[Any] = [{"a": [1, None, "ø"]}, "text", 7, None, [], "x" * 100_000]
    for number, event in enumerate(events, 1):
        assert worker.result(event) == {"event": event, "calls": number}


def test_the_context_is_what_the_front_says(function: Callable[..., Bridge]) -> None:
    """Request id, ARN, names, time left, client context and trace are the invocation's."""
    worker = function()
    worker.ready()
    deadline = int(time.time() * 1000) + 5000
    found = worker.result("context", id="one", deadline=deadline, xray="Root=1-2", clientContext={"custom": {"k": "v"}})
    assert 0 < found.pop("left") <= 5000
    assert found == {
        "id": "one",
        "arn": "arn:wisp:lambda:::function:tests:hello",
        "name": "hello",
        "version": "hello-00001",
        "memory": "128",
        "group": "/wisp/tests/hello",
        "custom": {"k": "v"},
        "trace": "Root=1-2",
    }


def test_cloudevents_reach_the_handler_as_dicts(function: Callable[..., Bridge]) -> None:
    """A CloudEvent is the JSON format's dict."""
    worker = function()
    worker.ready()
    frame = worker.call(b'{"n": 1}', form="cloudevent", attributes={"id": "7", "type": "t"}, data="json")
    assert frame.json["event"] == {"id": "7", "type": "t", "data": {"n": 1}}


@pytest.mark.parametrize(
    ("event", "error_type", "message"),
    [
        ("raise", "ValueError", "no"),
        ("set", "Runtime.MarshalError", "Unable to marshal response"),
        ("large", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"),
    ],
)
def test_errors(function: Callable[..., Bridge], event: str, error_type: str, message: str) -> None:
    """What the client reports is the invocation's error; the next event runs in the same process, or in a new one.

    The client takes 413 for its own end, as in AWS Lambda.
    """
    worker = function()
    worker.ready()
    frame = worker.call(json.dumps(event))
    assert (frame.kind, frame.head["errorType"]) == (ERROR, error_type)
    assert message in frame.head["errorMessage"]
    if event == "raise":
        assert any("in handler" in line for line in frame.head["stackTrace"])
    if event == "large":
        assert worker.end() == 1
    else:
        assert worker.result(1) == {"event": 1, "calls": 2}


def test_the_log(function: Callable[..., Bridge]) -> None:
    """What the handler prints and logs is the worker's output."""
    worker = function()
    worker.ready()
    worker.result("print", id="one")
    worker.send(STOP, 0)
    lines = worker.log()
    assert lines[0] == "said\n"
    assert "warned" in lines[1]
    assert "one" in lines[1]


def test_an_exit(function: Callable[..., Bridge]) -> None:
    """os._exit ends the worker with its status."""
    worker = function()
    worker.ready()
    worker.invoke('"exit"')
    assert worker.end() == 5


@pytest.mark.parametrize(
    ("app", "error_type"),
    [
        ("import nothing_like_it\n", "Runtime.ImportModuleError"),
        ("def handler(:\n", "Runtime.UserCodeSyntaxError"),
        ("", "Runtime.HandlerNotFound"),
        ("raise ValueError('at import')\n", "ValueError"),
    ],
)
def test_a_handler_that_can_not_be_imported(function: Callable[..., Bridge], app: str, error_type: str) -> None:
    """The start fails with the client's error, and the bridge ends."""
    worker = function(app)
    frame = worker.receive()
    assert (frame.kind, frame.head["errorType"]) == (FAILED, error_type)
    assert worker.end() == 1


def test_large_events(function: Callable[..., Bridge]) -> None:
    """6 MiB go through in both directions."""
    worker = function()
    worker.ready()
    event: Any = "x" * ((6 << 20) - 100)
    frame = worker.call(json.dumps(event))
    assert (frame.kind, frame.json["event"] == event) == (RESULT, True)
