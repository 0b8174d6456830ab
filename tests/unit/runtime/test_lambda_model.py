"""Lambda's model around a handler: its log lines, its environment, its context, the log's tail, the memory for bodies."""

from __future__ import annotations

import base64
import json
import re
import select
from typing import TYPE_CHECKING

import pytest
from fixtures.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRINT = "def handler(event, context):\n    print('mine')\n    return 1 / event\n"
REPORT = (
    r"REPORT RequestId: r-1\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t"
    r"Max Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms\tXRAY TraceId: 1-[0-9a-f]{8}-[0-9a-f]{24}"
)


def test_platform_lines(serve: Callable[..., FunctionProcess]) -> None:
    """Each invocation stands between START and END, and REPORT has its figures, in words and as fields."""
    function = serve("import time\ntime.sleep(0.05)\n" + PRINT)
    function.invoke(1, **{"wisp-request-id": "r-1"})
    function.invoke(0, **{"wisp-request-id": "r-2"})
    function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == "r-2")
    first, second = ([line for line in function.lines if line.get("requestId") == name] for name in ("r-1", "r-2"))
    assert [line["message"].partition("\t")[0] for line in first] == [
        "START RequestId: r-1 Version: hello-00001",
        "mine",
        "END RequestId: r-1",
        "REPORT RequestId: r-1",
    ]
    assert re.fullmatch(REPORT, first[3]["message"])
    metrics = first[3]["metrics"]
    assert metrics["initDurationMs"] >= 50
    assert 0 < metrics["durationMs"] <= metrics["billedDurationMs"] < 60_000
    assert 5 < metrics["maxMemoryUsedMB"] < 100
    assert [line.get("errorType") for line in second] == [None, None, "ZeroDivisionError", None, None]
    assert second[4]["status"] == "error"
    assert "initDurationMs" not in second[4]["metrics"]


def test_text_format(start: Callable[..., FunctionProcess]) -> None:
    """With WISP_LOG_FORMAT text the log is Lambda's text format, and what is printed stands there as it was printed."""
    code = """
import logging
def handler(event, context):
    print("plain", event)
    logging.warning("careful")
    raise KeyError("x")
"""
    function = start(code, WISP_LOG_FORMAT="text")
    function.port = int(function.raw_log(lambda line: "Serving" in line).rsplit(" ", 1)[1])
    for number in range(5):
        function.invoke(number, **{"wisp-request-id": f"r-{number}"})
        function.raw_log(lambda line, end=f"REPORT RequestId: r-{number}\t": line.startswith(end))  # type: ignore[misc] # an answer doesn't wait for the log
    text = "".join(function.raw_lines)
    lines = (
        r"^START RequestId: r-(\d) Version: hello-00001\nplain \1\n"
        r"\[WARNING\]\t\S+Z\tr-\1\tcareful\n"
        r"\[ERROR\]\t\S+Z\tr-\1 KeyError: 'x'\n  File .*app.py.*\n.*\nEND RequestId: r-\1\nREPORT RequestId: r-\1\t"
    )
    assert re.findall(lines, text, re.MULTILINE) == ["0", "1", "2", "3", "4"]


def test_tail_of_the_log(serve: Callable[..., FunctionProcess]) -> None:
    """A caller that asks for it gets the last 4 KiB of its invocation's log, and nobody else's."""
    code = "def handler(event, context):\n    for number in range(event):\n        print('line', number, 'x' * 50)\n"
    function = serve(code)
    assert "x-amz-log-result" not in function.invoke(1).headers
    for lines in (1, 500):
        answer = function.invoke(lines, **{"x-amz-log-type": "Tail", "wisp-request-id": "r-1"})
        tail = base64.b64decode(answer.headers["x-amz-log-result"])
        assert len(tail) <= 4096
        shown = [json.loads(line) for line in tail.split(b"\n")[1:-1]]
        assert {line["requestId"] for line in shown} == {"r-1"}
        assert shown[-1]["type"] == "platform.report"
        assert shown[-3]["message"].startswith(f"line {lines - 1} ")


def test_environment(serve: Callable[..., FunctionProcess]) -> None:
    """The environment says what Lambda's says, the trace of each event included."""
    code = "import os\nseen = dict(os.environ)\ndef handler(event, context):\n    return dict(os.environ) | {'seen': seen['_HANDLER']}\n"
    function = serve(code, WISP_MEMORY_MB="128", PATH="/bin")
    env = function.invoke({}, traceparent=TRACE).json
    xray = env.pop("_X_AMZN_TRACE_ID")
    assert xray.startswith("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=")
    assert xray.endswith(";Sampled=1")
    assert {
        name: env[name] for name in env if name.startswith(("AWS_LAMBDA", "LAMBDA_TASK", "_", "seen", "TZ", "PATH"))
    } == {
        "AWS_LAMBDA_FUNCTION_NAME": "hello",
        "AWS_LAMBDA_FUNCTION_VERSION": "hello-00001",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/wisp/tests/hello",
        "AWS_LAMBDA_LOG_STREAM_NAME": "hello-00001",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": str(function.folder),
        "_HANDLER": "app.handler",
        "seen": "app.handler",
        "TZ": ":UTC",
        "PATH": "/bin:/opt/bin",
    }
    assert env["LD_LIBRARY_PATH"].endswith("/opt/lib")
    assert function.invoke({}).json["_X_AMZN_TRACE_ID"] != xray


def test_client_context_and_identity(serve: Callable[..., FunctionProcess]) -> None:
    """What the caller says of itself reaches the context as Lambda's objects; what isn't JSON in base64 is refused."""
    code = """
def handler(event, context):
    client = context.client_context
    context.log("logged")
    return [client.custom, client.env, client.client.app_title, client.client.installation_id,
            context.identity.cognito_identity_id, context.tenant_id]
"""
    function = serve(code)
    given = {"custom": {"a": 1}, "env": {"b": "c"}, "client": {"app_title": "shop"}}
    header = base64.b64encode(json.dumps(given).encode()).decode()
    answer = function.invoke({}, **{"x-amz-client-context": header})
    assert answer.json == [{"a": 1}, {"b": "c"}, "shop", None, None, None]
    for bad in ("%", base64.b64encode(b"[1]").decode()):
        answer = function.invoke({}, **{"x-amz-client-context": bad})
        assert (answer.status, answer.json["errorType"]) == (400, "InvalidRequestContentException")


@pytest.mark.parametrize("value", ["NaN", "[1, Infinity]", "{'a': 1}", "", "\xff"])
def test_what_is_no_json_is_no_event(serve: Callable[..., FunctionProcess], value: str) -> None:
    """What only Python takes for JSON is refused, as by any other language's parser."""
    function = serve("def handler(event, context):\n    return event\n")
    answer = function.request("/", value.encode("latin-1"), {"wisp-event-format": "lambda"}, "POST")
    assert (answer.status, answer.json["errorType"]) == (400, "InvalidJson")
    assert "wisp-function-error" not in answer.headers


def test_memory_for_bodies_is_bounded(serve: Callable[..., FunctionProcess]) -> None:
    """Bodies beyond what the process may hold are refused with 429; what was held is given back."""
    code = """
import os, time
def handler(request):
    while not os.path.exists("go"):
        time.sleep(0.01)
    return len(request.body())
"""
    function = serve(code, WISP_MAX_BODY_BYTES="1000000", WISP_MAX_BUFFERED_BYTES="2500000")
    for _ in range(2):
        connections = [function.connect() for _ in range(3)]
        for connection in connections:
            connection.request("POST", "/", b"x" * 1_000_000)
        refusal, _, _ = select.select([connection.sock for connection in connections], [], [], 60)
        assert len(refusal) == 1  # the others wait for their go
        (function.folder / "go").touch()
        answers = [connection.getresponse() for connection in connections]
        assert sorted(answer.status for answer in answers) == [200, 200, 429]
        refused = next(answer for answer in answers if answer.status == 429)
        assert (refused.headers["retry-after"], refused.headers["wisp-request-id"]) == ("1", None)
        for connection in connections:
            connection.close()
        (function.folder / "go").unlink()


def test_metrics(serve: Callable[..., FunctionProcess]) -> None:
    """A second port tells how many invocations there were, how they ended, how long they took and what waits."""
    port = free_port()
    function = serve(PRINT, WISP_METRICS_PORT=str(port))
    for value in (1, 2, 0):
        function.invoke(value)
    function.port = port
    answer = function.request("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for line in (
        'wisp_function_invocations_total{status="success"} 2',
        'wisp_function_invocations_total{status="error"} 1',
        'wisp_function_duration_seconds_bucket{le="+Inf"} 3',
        "wisp_function_duration_seconds_count 3",
        "wisp_function_cold_starts_total 1",
        "wisp_function_running 0",
        "wisp_function_queued 0",
        "wisp_function_workers 1",
    ):
        assert f"\n{line}\n" in text
    assert function.request("/other").status == 404


def test_pipelined_refusals_are_answered_without_recursion(serve: Callable[..., FunctionProcess]) -> None:
    """Thousands of bad requests in one write are answered one after the other."""
    function = serve("def handler(event):\n    return 1\n")
    bad = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" * 3000
    last = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert len(re.findall(rb"HTTP/1\.1 400 ", function.raw(bad + last))) == 3001
