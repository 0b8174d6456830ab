"""The life of the process: start, failures to start, logs, timeouts, SIGTERM."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudevents
import httptools
import pytest
import wisp_runtime
from fixtures.process import free_port
from unit.runtime.conftest import SOURCE, function_is_busy, read_all
from wisp_runtime.__main__ import TERMINATION_BYTES, termination_text
from wisp_runtime.errors import InitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

SLEEP = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return 'slept'\n"
WAIT = "import os, time\ndef handler(event, context):\n    while not os.path.exists('go'):\n        time.sleep(0.01)\n    return 'waited'\n"
LAMBDA = {"wisp-event-format": "lambda"}


@pytest.mark.parametrize(
    ("code", "env", "first_line", "then"),
    [
        ("import foo", {}, "Runtime.ImportModuleError: Unable to import module 'app': No module named 'foo'", "line 1"),
        (
            "def handler(e, c): ...\nclass Thing: ...\nfrom os import getcwd",
            {"WISP_HANDLER": "app.handlr"},
            "Runtime.HandlerNotFound: Handler 'handlr' missing on module 'app'; it defines: handler, Thing",
            "",
        ),
        ("handler = 5", {}, "Runtime.HandlerNotFound: Handler 'handler' of module 'app' is a int, not a function", ""),
        (
            "def handler(:\n",
            {},
            "Runtime.UserCodeSyntaxError: Syntax error in module 'app': invalid syntax",
            "def handler(:",
        ),
        ("x = 1 / 0", {}, "Runtime.ImportModuleError: Unable to import module 'app': ZeroDivisionError:", "x = 1 / 0"),
        ("import sys\nsys.exit(3)", {}, "Runtime.ExitError: Module 'app' called sys.exit(3) while", "sys.exit(3)"),
        ("def handler(a, b, c): ...", {}, "Runtime.HandlerSignatureError: Can't tell the signature", ""),
        (
            "def handler(event): ...",
            {"WISP_SIGNATURE": "lambda"},
            "Runtime.HandlerSignatureError: Handler 'app.handler' can't be called as handler(event, context)",
            "",
        ),
        (
            "import time\ntime.sleep(60)",
            {"WISP_INIT_TIMEOUT_SECONDS": "0.3"},
            "Runtime.InitTimeout: Module 'app' was not imported within 0.3 seconds",
            "time.sleep(60)",
        ),
        ("", {"WISP_HANDLER": "app"}, "Runtime.MalformedHandlerName: Handler 'app' must be written as module.attr", ""),
        ("", {"WISP_HANDLER": ""}, "Runtime.InvalidConfiguration: WISP_HANDLER is not set", ""),
        ("", {"WISP_TIMEOUT_SECONDS": "soon"}, "Runtime.InvalidConfiguration: WISP_TIMEOUT_SECONDS must be", ""),
        ("", {"WISP_SIGNATURE": "grpc"}, "Runtime.InvalidConfiguration: WISP_SIGNATURE must be one of", ""),
        ("", {"WISP_CODE_DIR": "/nowhere"}, "Runtime.InvalidConfiguration: The code folder /nowhere", ""),
    ],
)
def test_failed_start(
    start: Callable[..., FunctionProcess], code: str, env: dict[str, str], first_line: str, then: str
) -> None:
    """A handler that can't be served ends the process with 1, one log line, and a readable termination message."""
    function = start(code, **env)
    assert function.exit_status() == 1
    (line,) = function.lines
    assert line["level"] == "ERROR"
    assert line["message"].startswith(first_line)
    text = function.termination_log.read_text()
    assert text.startswith(first_line)
    assert then in text
    assert "wisp_runtime" not in text


def test_termination_text_fits() -> None:
    """The termination message keeps the error and the end of the stack within what Kubernetes keeps."""
    stack = [f'  File "æ.py", line {number}, in f\n    f()\n' for number in range(200)]
    text = termination_text(InitError("E", "what", stack))
    assert len(text.encode()) <= TERMINATION_BYTES
    assert text.startswith("E: what\n...\n  ")
    assert text.endswith("line 199, in f\n    f()\n")
    assert len(termination_text(InitError("E", "ø" * 5000, stack)).encode()) <= TERMINATION_BYTES


def test_code_layout(serve: Callable[..., FunctionProcess]) -> None:
    """A handler in a package finds its neighbours and its files, and the code folder is first on the path."""
    files = {
        "pkg/__init__.py": "",
        "pkg/main.py": "import neighbour, os, sys\ndef handler(event, context):\n"
        "    return [neighbour.X, open('data.txt').read(), sys.path[0] == os.getcwd()]\n",
        "neighbour.py": "X = 1\n",
        "data.txt": "hei",
    }
    for handler in ("pkg.main.handler", "pkg/main.handler"):
        assert serve(files, handler).invoke({}).json == [1, "hei", True]


def test_own_versions_of_our_dependencies(tmp_path: Path, start: Callable[..., FunctionProcess]) -> None:
    """Started as in the image, a function that ships another httptools, cloudevents or typing_extensions gets its own."""
    lib = tmp_path / "wisp" / "lib"
    lib.mkdir(parents=True)
    for package in (wisp_runtime, httptools, cloudevents):
        (lib / package.__name__).symlink_to(Path(package.__path__[0]))
    launcher = lib.parent / "start.py"
    launcher.write_text((SOURCE.parent / "start.py").read_text())
    files = {
        "app.py": "import httptools, cloudevents, typing_extensions, extra\nexit\ndef handler(event, context):\n"
        "    return [httptools.MINE, cloudevents.MINE, typing_extensions.MINE, extra.MINE]\n",
        "httptools/__init__.py": "MINE = 1\n",
        "cloudevents/__init__.py": "MINE = 2\n",
        "typing_extensions.py": "MINE = 3\n",
        "more/extra.py": "MINE = 4\n",
    }
    function = start(files, interpreter=("-I", "-S", str(launcher)), PYTHONPATH="/nowhere:more").ready()
    assert function.invoke({}).json == [1, 2, 3, 4]
    function = start("import httptools\n" + SLEEP, interpreter=("-I", "-S", str(launcher))).ready()
    assert function.invoke(0).json == "slept"


def test_serving_locally(start: Callable[..., FunctionProcess]) -> None:
    """``python -m wisp_runtime app.handler`` serves the current folder's handler."""
    code = "def handler(request):\n    return 'local'\n"
    function = start(code, interpreter=("-m", "wisp_runtime", "app.handler"), WISP_CODE_DIR="/none")
    assert function.ready().request("/").body == b"local"


def test_local_reload(start: Callable[..., FunctionProcess]) -> None:
    """Served locally, a changed file is what answers soon after; one that is broken says why until it is mended."""
    function = start(
        "def handler(request):\n    return 'one'\n", interpreter=("-m", "wisp_runtime", "app.handler")
    ).ready()
    assert function.request("/").body == b"one"
    for code, wanted in (("return 'two'", b"two"), ("return (", b"UserCodeSyntaxError"), ("return 'three'", b"three")):
        (function.folder / "app.py").write_text(f"def handler(request):\n    {code}\n")
        until = time.monotonic() + 60
        while wanted not in function.request("/").body:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("event", "status", "printed"),
    [
        ('{"a": 1}', 0, {"got": {"a": 1}}),
        ('{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}', 0, None),
        ('"fail"', 1, None),
    ],
)
def test_local_event(start: Callable[..., FunctionProcess], event: str, status: int, printed: Any) -> None:
    """With --event the handler runs once: its result is on stdout, its log on stderr, its failure the exit status."""
    code = "def handler(event, context):\n    print('seen')\n    return {'got': event} if event != 'fail' else 1 / 0\n"
    arguments = ("-m", "wisp_runtime", "app.handler", "--event", "event.json")
    function = start({"app.py": code, "event.json": event}, interpreter=arguments)
    assert function.exit_status() == status
    result = json.loads(function.raw_lines[-1])
    assert printed is None or result == printed
    assert any(line["message"] == "seen" for line in function.lines[:-1])


@pytest.mark.parametrize(("path", "status", "answer"), [("/?a=1", 0, "/ a=1"), ("/away", 0, ""), ("/fail", 1, None)])
def test_local_request(start: Callable[..., FunctionProcess], path: str, status: int, answer: str | None) -> None:
    """With --request the handler gets the file's request, however large; what is no error ends with 0."""
    code = """
def handler(event, context):
    if event["rawPath"] == "/fail":
        raise ValueError("no")
    assert len(event["body"]) == 3_000_000
    if event["rawPath"] == "/away":
        return {"statusCode": 302, "headers": {"location": "/"}}
    return {"statusCode": 200, "body": event["rawPath"] + " " + event["rawQueryString"]}
"""
    head = f"POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 3000000\r\n\r\n"
    arguments = ("-m", "wisp_runtime", "app.handler", "--request", "request")
    function = start({"app.py": code, "request": head + "x" * 3_000_000}, interpreter=arguments)
    assert function.exit_status() == status
    assert answer is None or function.raw_lines[-1].strip() == answer


def test_every_line_is_json_with_the_request_id(serve: Callable[..., FunctionProcess]) -> None:
    """What a handler prints, logs and writes to stderr is JSON lines that carry its request id and trace."""
    code = """
import logging, sys, traceback
print("at import")
log = logging.getLogger("mine")

def handler(event, context):
    print("one\\ntwo", {"three": 3})
    sys.stdout.buffer.write(b"raw \\xff\\n")
    log.info("info %s", 1)
    log.debug("unseen")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
        traceback.print_exc()
    print("ø \\ud800", end="")
    sys.stderr.write("oh\\n")
"""
    function = serve(code)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    function.invoke({}, traceparent=trace, **{"wisp-request-id": "r-1"})
    function.invoke({}, **{"wisp-request-id": "r-2"})
    function.log(lambda line: line.get("requestId") == "r-2" and line["message"].startswith("ø"))
    lines = function.lines
    assert "requestId" not in next(line for line in lines if line["message"] == "at import")
    mine = [line for line in lines if line.get("requestId") == "r-1" and "type" not in line]
    (mine_trace,) = {line["trace"] for line in mine}
    assert mine_trace.split("-")[1] == trace.split("-")[1]
    assert all(line["trace"] for line in lines if line.get("requestId") == "r-2")
    assert [line["message"].partition("\n")[0] for line in mine] == [
        "one",
        "two {'three': 3}",
        "raw \ufffd",
        "info 1",
        "failed",
        "Traceback (most recent call last):",
        "oh",
        "ø \\ud800",
    ]
    failed, printed = mine[4], mine[5]
    assert (failed["level"], failed["logger"], failed["errorType"]) == ("ERROR", "mine", "ZeroDivisionError")
    assert "1 / 0" in failed["stackTrace"][0]
    assert printed["message"].endswith("ZeroDivisionError: division by zero")
    assert all(line["time"].endswith("Z") and line["level"] in ("INFO", "ERROR") for line in mine)


def test_sigterm_drains(serve: Callable[..., FunctionProcess]) -> None:
    """On SIGTERM what runs and what waits is finished and answered with Connection: close; then it exits 0."""
    code = "import atexit\natexit.register(print, 'bye')\n" + WAIT
    function = serve(code)
    running, waiting, idle = function.connect(), function.connect(), function.socket()
    running.request("POST", "/", "0", LAMBDA)
    function_is_busy(function)
    waiting.request("POST", "/", "1", LAMBDA)
    function_is_busy(function)
    function.process.send_signal(signal.SIGTERM)
    assert read_all(idle) == b""
    idle.close()
    (function.folder / "go").touch()
    for connection in (running, waiting):
        response = connection.getresponse()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert response.read() == b'"waited"'
        connection.close()
    assert function.exit_status() == 0
    assert function.lines[-1]["message"] == "bye"
    with pytest.raises(ConnectionRefusedError):
        function.socket()


def test_sigterm_serves_what_is_on_the_wire(serve: Callable[..., FunctionProcess]) -> None:
    """A request that is half sent at SIGTERM is finished and answered."""
    function = serve(SLEEP)
    with function.socket() as sock, function.socket() as idle:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nwisp-event-format: lambda\r\nContent-Length: 1\r\n\r\n")
        function_is_busy(function)
        function.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""  # as it is for who has sent nothing
        sock.sendall(b"0")
        assert read_all(sock).endswith(b'"slept"')
    assert function.exit_status() == 0


def test_sigterm_is_bounded_by_the_timeout(serve: Callable[..., FunctionProcess]) -> None:
    """A handler that doesn't end is answered with its timeout, and the process exits 0."""
    function = serve(SLEEP, WISP_TIMEOUT_SECONDS="0.5")
    connection = function.connect()
    connection.request("POST", "/", "60", LAMBDA)
    function_is_busy(function)
    function.process.send_signal(signal.SIGTERM)
    assert connection.getresponse().status == 504
    connection.close()
    assert function.exit_status() == 0


@pytest.mark.parametrize("isolation", ["worker", "none"])
def test_a_timeout_that_falls_into_a_standstill(serve: Callable[..., FunctionProcess], isolation: str) -> None:
    """A front that stood still until all its time was over answers for what ran in it before it ends."""
    function = serve(SLEEP, WISP_TIMEOUT_SECONDS="0.5", WISP_ISOLATION=isolation)
    connection = function.connect()
    connection.request("POST", "/", "60", LAMBDA)
    function_is_busy(function)
    function.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # it is about to end then
    function.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    function.process.send_signal(signal.SIGCONT)
    assert connection.getresponse().status == 504
    connection.close()
    assert function.exit_status() == 0


def test_idle_process_exits_at_once(serve: Callable[..., FunctionProcess]) -> None:
    """SIGTERM without work ends the process promptly, although a thread of the user's runs on."""
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n" + SLEEP
    function = serve(code)
    begun = time.monotonic()
    function.process.send_signal(signal.SIGTERM)
    assert function.exit_status() == 0
    assert time.monotonic() - begun < 30


def test_sigterm_during_import(start: Callable[..., FunctionProcess]) -> None:
    """A process that is still importing ends when told to."""
    function = start("import time\nprint('importing')\ntime.sleep(60)\n")
    function.log(lambda line: line["message"] == "importing")
    function.process.send_signal(signal.SIGTERM)
    assert function.exit_status() == 0


def test_port_opens_when_the_handler_is_imported(start: Callable[..., FunctionProcess]) -> None:
    """Nothing listens until the handler is there: an open port means ready."""
    port = free_port()
    code = "import os, time\nprint('importing')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n" + SLEEP
    function = start(code, PORT=str(port))
    function.log(lambda line: line["message"] == "importing")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    (function.folder / "go").touch()
    assert function.ready().port == port
    assert function.request("/_wisp/health").status == 200


def test_taken_port_is_named(start: Callable[..., FunctionProcess]) -> None:
    """A port that is taken is a failed start that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        function = start(SLEEP, PORT=str(port))
        assert function.exit_status() == 1
    assert f"Port {port} can't be opened: Address already in use" in function.lines[0]["message"]


def test_threads_stay_in_step_under_load(serve: Callable[..., FunctionProcess]) -> None:
    """Fast and slow events mixed over many connections: each caller gets its own answer, one event at a time."""
    code = """
import time
running = 0
def handler(event, context):
    global running
    running += 1
    if event % 10 == 0:
        time.sleep(0.03)
    running -= 1
    return [event, running]
"""
    function = serve(code)
    connections = [function.connect() for _ in range(16)]
    for turn in range(10):
        for number, connection in enumerate(connections):
            connection.request("POST", "/", json.dumps(turn * 16 + number), LAMBDA)
        answers: list[Any] = [json.loads(connection.getresponse().read()) for connection in connections]
        assert answers == [[turn * 16 + number, 0] for number in range(16)]
    for connection in connections:
        connection.close()
