# ruff: noqa: ARG001, N818 - handlers take what they are given, and errors have the same name in each language
"""The handlers of the conformance table in Python; functions.mjs has the same ones."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudevents.core.v1.event import CloudEvent
from wisp_runtime import Request, Response


class Refused(Exception):
    """An error of the function's own."""


def echo(event: Any, context: Any) -> Any:
    """Return the event."""
    return event


def fails(event: Any, context: Any) -> Any:
    """Raise an error of our own."""
    print("about to fail")
    raise Refused("nø")


def cycle(event: Any, context: Any) -> Any:
    """Return what JSON can not carry."""
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def size(event: Any, context: Any) -> Any:
    """Return so many characters."""
    return "x" * event


def sleeps(event: Any, context: Any) -> Any:
    """Sleep so many seconds."""
    time.sleep(event)
    return "slept"


def exits(event: Any, context: Any) -> Any:
    """End the process with this status."""
    os._exit(event)


def crashes(event: Any, context: Any) -> Any:
    """Die of a segmentation fault."""
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(10)


def strays(event: Any, context: Any) -> Any:
    """End the process if the event says so."""
    if event:
        os._exit(1)
    return "fine"


def logs(event: Any, context: Any) -> Any:
    """Write a line, and one that is not finished."""
    print("one line")
    print("unfinished", end="")


def about(event: Any, context: Any) -> Any:
    """Tell what the context says."""
    return {
        "id": context.aws_request_id,
        "function": context.function_name,
        "version": context.function_version,
        "memory": context.memory_limit_in_mb,
        "arn": context.invoked_function_arn,
        "log": [context.log_group_name, context.log_stream_name],
        "client": context.client_context.custom if context.client_context else None,
        "left": 0 < context.get_remaining_time_in_millis() <= 5000,
        "xray": os.environ["_X_AMZN_TRACE_ID"].partition(";")[0],
        "folder": str(Path.cwd()) == os.environ["LAMBDA_TASK_ROOT"],
        "handler": os.environ["_HANDLER"],
    }


def traced(event: Any, context: Any) -> Any:
    """Tell the trace in each form that the handler is given."""
    print("traced")
    headers = event.get("headers", {}) if isinstance(event, dict) else {}
    given = headers.get("traceparent"), headers.get("tracestate")
    return {"context": context.w3c(), "xray": os.environ["_X_AMZN_TRACE_ID"], "headers": given}


def url(event: Any, context: Any) -> Any:
    """Return a function URL's response."""
    return {
        "statusCode": 201,
        "headers": {"x-a": "1", "content-type": "text/plain"},
        "cookies": ["a=1", "b=2"],
        "body": "aMO4",
        "isBase64Encoded": True,
    }


def broken_url(event: Any, context: Any) -> Any:
    """Return one that can not be sent."""
    return {"statusCode": 999}


def streams(event: Any, context: Any) -> Iterator[bytes]:
    """Stream three pieces, or break off behind the second."""
    yield b"a"
    yield b"b"
    if event == "break":
        raise Refused("broken")
    yield b"c"


def on_event(cloudevent: Any) -> Any:
    """Return the data, or a reply."""
    data = cloudevent.get_data()
    return data if data != "reply" else make_reply()


def make_reply() -> Any:
    """Make a CloudEvent without a time."""
    attributes = {
        "id": "r-1",
        "source": "/reply",
        "type": "reply",
        "subject": "ø",
        "datacontenttype": "application/json",
    }
    made = CloudEvent(attributes, {"n": 1})
    made.get_attributes().pop("time", None)
    return made


def on_event_fails(cloudevent: Any) -> Any:
    """Raise an error of our own."""
    raise Refused("nø")


def shows_trace(request: Request) -> Any:
    """Tell the trace that the request is given."""
    print("traced")
    return {"headers": [request.headers.get("traceparent"), request.headers.get("tracestate")]}


def respond(request: Request) -> Any:
    """Answer in the way that the path names."""
    path = request.url.path
    if path == "/status":
        return Response("made", 202, {"x-a": "1", "content-type": "text/plain"})
    if path == "/text":
        return "tøxt"
    if path == "/json":
        return {"n": [1, None]}
    if path == "/bytes":
        return b"\x00\xff"
    if path == "/nothing":
        return None
    if path == "/fails":
        raise Refused("nø")
    return {"method": request.method, "query": request.url.query, "body": request.text(), "x": request.headers["x-a"]}
