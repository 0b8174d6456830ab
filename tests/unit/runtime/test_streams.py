"""Streamed responses, ASGI apps, and asynchronous handlers that share a worker."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from unit.runtime.conftest import Answer, function_is_busy, in_time, read_all
from unit.runtime.test_workers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

APP = """
import asyncio, json, os

state = {"started": 0}

async def wait_for(file):
    while file and not os.path.exists(file):
        await asyncio.sleep(0.01)

async def handler(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["base"] = 40
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("shut down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    async def start(status=200, kind=b"text/plain"):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    request = await receive()
    path = scope["path"]
    if path == "/echo":
        seen = {"query": scope["query_string"].decode(), "method": scope["method"], "raw": scope["raw_path"].decode(),
                "body": request["body"].decode(), "base": scope["state"]["base"], "server": list(scope["server"])}
        await start(201, b"application/json")
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
    elif path == "/events":
        await start(200, b"text/event-stream")
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            await wait_for(scope["query_string"])
        await send({"type": "http.response.body"})
    elif path == "/wait":
        print("waiting")
        await wait_for(scope["query_string"])
        await start()
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
    elif path == "/forever":
        await start()
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        print(await receive())
    elif path == "/big":
        await start()
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"y" * 100_000, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/late":
        await start()
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError("late")
    elif path == "/nothing":
        return
    else:
        raise KeyError(path)
"""


def test_asgi_app(serve: Callable[..., FunctionProcess]) -> None:
    """An ASGI app gets the request and the state of its lifespan, and its response is the answer."""
    function = serve(APP, WISP_CONCURRENCY="5")
    answer = function.request("/ech%6f?a=%20b", "hei", {"host": "fn.example:81"})
    assert (answer.status, answer.headers["content-type"]) == (201, "application/json")
    assert answer.headers["wisp-request-id"]
    assert answer.json == {
        "query": "a=%20b",
        "method": "POST",
        "raw": "/ech%6f",
        "body": "hei",
        "base": 40,
        "server": ["fn.example", 81],
    }
    answer = function.request("/other")
    assert (answer.status, answer.json["errorType"]) == (500, "KeyError")
    assert len(answer.json["stackTrace"]) == 1
    assert function.request("/nothing").json["errorType"] == "Runtime.InvalidResponse"
    function.process.send_signal(signal.SIGTERM)
    assert function.exit_status() == 0
    assert function.log(lambda line: line["message"] == "shut down")


def test_asgi_requests_share_a_worker(serve: Callable[..., FunctionProcess]) -> None:
    """Up to perInstance requests run at once in the app's one process, each under its own request id."""
    function = serve(APP, WISP_CONCURRENCY="3")
    connections = [function.connect() for _ in range(4)]

    def waiting() -> set[str]:
        return {line["requestId"] for line in function.lines if line["message"] == "waiting"}

    for number, connection in enumerate(connections):
        connection.request("GET", "/wait?go", headers={"wisp-request-id": f"r-{number}"})
    wait_until(lambda: len(waiting()) == 3)
    function_is_busy(function)
    assert waiting() == {"r-0", "r-1", "r-2"}
    (function.folder / "go").touch()
    assert len({connection.getresponse().read() for connection in connections}) == 1
    for connection in connections:
        connection.close()
    wait_until(lambda: waiting() == {"r-0", "r-1", "r-2", "r-3"})


def test_server_sent_events_come_as_they_are_made(serve: Callable[..., FunctionProcess]) -> None:
    """What an app streams reaches the caller at once, in chunks, and the connection is kept."""
    function = serve(APP)
    connection = function.connect()
    connection.request("GET", "/events?go")
    response = connection.getresponse()
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.read1() == b"data: 0\n\n"
    (function.folder / "go").touch()
    assert response.read() == b"data: 1\n\ndata: 2\n\n"
    connection.request("GET", "/echo")
    assert connection.getresponse().status == 201
    connection.close()
    answer = function.raw(b"GET /events HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n")


def test_asgi_app_learns_that_its_caller_left(serve: Callable[..., FunctionProcess]) -> None:
    """A caller that hangs up is told to the app as a disconnect, and others are served meanwhile."""
    function = serve(APP, WISP_CONCURRENCY="2")
    with function.socket() as sock:
        sock.sendall(b"GET /forever HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        assert function.request("/echo").status == 201
    function.log(lambda line: line["message"] == "{'type': 'http.disconnect'}")
    assert function.request("/echo").status == 201


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_stream_waits_for_a_slow_reader(serve: Callable[..., FunctionProcess], concurrency: str) -> None:
    """A stream of 20 MB to a caller that doesn't read is held in the app, not in the front's memory."""
    function = serve(APP, WISP_CONCURRENCY=concurrency)
    with function.socket() as sock:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        with open(f"/proc/{function.process.pid}/statm", encoding="ascii") as file:  # noqa: PTH123
            assert int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 28 << 20
        assert len(read_all(sock)) > 20_000_000


def test_stream_that_breaks_off(serve: Callable[..., FunctionProcess]) -> None:
    """An error after the first byte ends the connection before the last chunk, and is in the log."""
    function = serve(APP)
    answer = function.raw(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert function.log(lambda line: line.get("errorType") == "ValueError")["stackTrace"]
    assert function.request("/echo").status == 201


def test_timeout_in_a_shared_worker(serve: Callable[..., FunctionProcess]) -> None:
    """A request whose time is over is cancelled; the others in its worker live on."""
    function = serve(APP, WISP_CONCURRENCY="3", WISP_TIMEOUT_SECONDS="3")
    before = in_time(lambda: function.request("/wait")).body

    def lives_on() -> bool:  # on a busy machine its time, too, may be over before it is asked for its answer
        late, fine = function.connect(), function.connect()
        with closing(late), closing(fine):
            late.request("GET", "/wait?never")
            time.sleep(1.5)  # it has so long after the other's end
            fine.request("GET", "/wait?go")
            assert late.getresponse().status == 504
            (function.folder / "go").touch()
            answer = Answer(fine.getresponse())
        (function.folder / "go").unlink()
        return answer.status == 200 and answer.body == before

    wait_until(lives_on)


def test_failed_lifespan(start: Callable[..., FunctionProcess]) -> None:
    """An app whose start-up fails is a failed start with its own words."""
    code = """
async def handler(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
    function = start(code)
    assert function.exit_status() == 1
    assert "Runtime.LifespanFailed: The app's start-up failed: no database" in function.lines[-1]["message"]


def test_app_without_lifespan(serve: Callable[..., FunctionProcess]) -> None:
    """An app that knows requests only is served as it is."""
    code = """
async def handler(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
"""
    assert serve(code).request("/").status == 204


def test_async_handlers_share_where_the_function_says_so(serve: Callable[..., FunctionProcess]) -> None:
    """With isolation shared, asynchronous events run at once in one process; otherwise each in its own."""
    code = (
        "import asyncio, os\nasync def handler(event, context):\n    await asyncio.sleep(0.3)\n    return os.getpid()\n"
    )
    for isolation, processes in (("shared", 1), ("worker", 3)):
        function = serve(code, WISP_CONCURRENCY="3", WISP_ISOLATION=isolation)
        connections = [function.connect() for _ in range(3)]
        for connection in connections:
            connection.request("POST", "/", "0", {"wisp-event-format": "lambda"})
        pids = [json.loads(connection.getresponse().read()) for connection in connections]
        assert len(set(pids)) == processes
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("prefix", ["", "async "])
def test_http_handler_streams_a_generator(serve: Callable[..., FunctionProcess], prefix: str) -> None:
    """A generator as a response's content is sent piece by piece."""
    code = f"""
from wisp_runtime import Response
{prefix}def pieces():
    for number in range(3):
        yield f"piece {{number}} "
def handler(request):
    return Response(pieces(), 201, media_type="text/plain")
"""
    answer = serve(code).request("/")
    assert (answer.status, answer.headers["transfer-encoding"]) == (201, "chunked")
    assert answer.body == b"piece 0 piece 1 piece 2 "


def test_lambda_handler_streams_a_generator(serve: Callable[..., FunctionProcess]) -> None:
    """A lambda handler that yields answers with a stream; one that fails before the first item with its error."""
    code = "def handler(event, context):\n    yield 'a' * (1 // event)\n    yield b'b'\n    yield {'c': 1}\n"
    function = serve(code)
    answer = function.invoke(1)
    assert (answer.status, answer.body) == (200, b'ab{"c": 1}\n')
    assert answer.headers["content-type"] == "application/octet-stream"
    assert function.invoke(0).json["errorType"] == "ZeroDivisionError"
