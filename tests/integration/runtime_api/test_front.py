"""The whole of a pod: HTTP in, the front, the bridge, an unmodified client of the Runtime API, and back."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.node import node
from fixtures.process import wait_until
from integration.runtime_api.test_node_client import APP as NODE_APP
from integration.runtime_api.test_node_client import client
from unit.runtime.conftest import DEADLINE, in_time, start
from unit.runtime_api.conftest import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

__all__ = ["start"]

BOOTSTRAP = f"#!/bin/sh\nexec {sys.executable} -m awslambdaric $_HANDLER\n"
APP = """
import glob, os, time

HERE = os.path.dirname(__file__)

def handler(event, context):
    if event == "raise":
        raise ValueError("no")
    if event == "hang":
        time.sleep(60)
    if event == "exit":
        os._exit(3)
    if isinstance(event, dict) and "rawPath" in event:
        return {"statusCode": 418, "headers": {"x-path": event["rawPath"]}, "body": "tea"}
    if event == "meet":
        open(f"{HERE}/met-{os.getpid()}", "w").close()
        while len(glob.glob(f"{HERE}/met-*")) < 2:
            time.sleep(0.01)
    print("said", event)
    return {"event": event, "pid": os.getpid(), "id": context.aws_request_id}
"""


@pytest.fixture
def serve(start: Callable[..., FunctionProcess], tmp_path: Path) -> Callable[..., FunctionProcess]:
    """Start a front whose workers are bridges, and wait until it serves."""

    def serve(app: str = APP, bootstrap: str = BOOTSTRAP, **env: str) -> FunctionProcess:
        write(tmp_path / "opt/bootstrap", bootstrap, 0o755)
        variables = {"WISP_WORKER": f"{sys.executable} -m wisp_runtime.bridge", "WISP_OPT_DIR": str(tmp_path / "opt")}
        return start(app, **variables | env).ready()

    return serve


def test_an_invocation(serve: Callable[..., FunctionProcess]) -> None:
    """The result comes back with its request id, and what was printed stands between START and END."""
    function = serve()
    answer = function.invoke({"a": 1})
    assert (answer.status, answer.json["event"]) == (200, {"a": 1})
    request_id = answer.headers["wisp-request-id"]
    assert answer.json["id"] == request_id
    function.log(lambda line: line["message"].startswith(f"REPORT RequestId: {request_id}"))
    words = [line["message"].split()[0] for line in function.lines if line.get("requestId") == request_id]
    assert words == ["START", "said", "END", "REPORT"]


def test_a_request_becomes_a_function_urls_event(serve: Callable[..., FunctionProcess]) -> None:
    """And the result its response."""
    answer = serve().request("/a/b?c=d")
    assert (answer.status, answer.headers["x-path"], answer.body) == (418, "/a/b", b"tea")


def test_an_error(serve: Callable[..., FunctionProcess]) -> None:
    """It has the type, message and stack that the client reports."""
    function = serve()
    answer = function.invoke("raise")
    assert (answer.status, answer.headers["wisp-function-error"]) == (500, "Unhandled")
    assert (answer.json["errorType"], answer.json["errorMessage"]) == ("ValueError", "no")
    assert any("in handler" in line for line in answer.json["stackTrace"])
    assert function.invoke(1).json["event"] == 1


def runs(pid: int) -> bool:
    """Whether a process does anything: one that waits to be reaped doesn't."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


def test_a_timeout_and_an_exit_cost_a_worker(serve: Callable[..., FunctionProcess]) -> None:
    """The caller gets Lambda's error, the runtime is gone, and the next event is served by another."""
    function = serve(WISP_TIMEOUT_SECONDS="3")
    first = in_time(lambda: function.invoke(1)).json["pid"]
    answer = function.invoke("hang")
    assert (answer.status, answer.json["errorType"]) == (504, "Sandbox.Timedout")
    wait_until(lambda: not runs(first), "the runtime that timed out still runs", DEADLINE)
    second = in_time(lambda: function.invoke(2)).json["pid"]
    assert second != first
    answer = in_time(lambda: function.invoke("exit"))
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.ExitError")
    assert answer.json["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert in_time(lambda: function.invoke(3)).json["pid"] not in (first, second)


def test_the_report_knows_the_runtimes_memory(serve: Callable[..., FunctionProcess]) -> None:
    """What the bootstrap's process has counts, not the bridge's alone."""
    function = serve("kept = bytearray(64 << 20)\ndef handler(event, context): return len(kept)")
    request_id = function.invoke(1).headers["wisp-request-id"]
    report = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == request_id)
    assert report["metrics"]["maxMemoryUsedMB"] >= 64


def test_workers_have_runtimes_of_their_own(serve: Callable[..., FunctionProcess]) -> None:
    """With concurrency 2 two events run side by side, each bridge on a port of its own."""
    function = serve(WISP_CONCURRENCY="2")
    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(function.invoke, ["meet", "meet"]))
    assert len({answer.json["pid"] for answer in answers}) == 2


def test_a_start_that_fails_tells_why(start: Callable[..., FunctionProcess], tmp_path: Path) -> None:
    """The client's error stands in the termination log, and the process ends with 1."""
    write(tmp_path / "opt/bootstrap", BOOTSTRAP, 0o755)
    env = {"WISP_WORKER": f"{sys.executable} -m wisp_runtime.bridge", "WISP_OPT_DIR": str(tmp_path / "opt")}
    function = start("import nothing_like_it", **env)
    assert function.exit_status() == 1
    assert "nothing_like_it" in function.termination_log.read_text()


def test_a_streamed_response_of_node(serve: Callable[..., FunctionProcess]) -> None:
    """Status, headers, cookies and ten megabytes come through."""
    bootstrap = f"#!/bin/sh\nexec {node()} {client()} $_HANDLER\n"
    env = {"WISP_HANDLER": "app.stream", "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}
    function = serve({"app.mjs": NODE_APP}, bootstrap, **env)
    answer = function.request("/")
    assert (answer.status, answer.headers["x-a"], answer.headers["set-cookie"]) == (201, "1", "c=2")
    assert answer.body == b"first," + b"x" * 10_000_000
