"""Workers: what goes wrong in one costs that one, its caller learns Lambda's error, and the next event is served."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from unit.runtime.conftest import DEADLINE, function_is_busy, in_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

LAMBDA = {"wisp-event-format": "lambda"}
SLEEP = """
import os, time
def handler(event, context):
    time.sleep(event)
    return os.getpid()
"""


TOGETHER = """
import os, random, time, uuid
print("imported")
def handler(event, context):
    print("begun")
    while not os.path.exists("go"):
        time.sleep(0.01)
    return [os.getpid(), random.random(), str(uuid.uuid4())]
"""


def begun(function: FunctionProcess) -> int:
    """How many invocations have begun."""
    return sum(line["message"] == "begun" for line in function.lines)


def alive(pid: int) -> bool:
    """Whether a process runs: it exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_timeout(serve: Callable[..., FunctionProcess]) -> None:
    """The caller gets Lambda's timeout error at once, the worker is gone, another serves, the connection is kept."""
    function = serve(SLEEP, WISP_TIMEOUT_SECONDS="2")
    first = in_time(lambda: function.invoke(0)).json
    answer = function.invoke(60, **{"wisp-request-id": "r-1"})
    assert answer.status == 504
    assert (answer.headers["wisp-request-id"], answer.headers["wisp-function-error"]) == ("r-1", "Timeout")
    assert "connection" not in answer.headers
    assert answer.json["errorType"] == "Sandbox.Timedout"
    assert re.fullmatch(r"\d{4}-\S+Z r-1 Task timed out after 2\.00 seconds", answer.json["errorMessage"])
    since = time.monotonic()
    second = in_time(lambda: function.invoke(0)).json
    assert time.monotonic() - since < 30  # the first would have slept for 60
    assert second != first
    wait_until(lambda: not alive(first))
    line = function.log(lambda line: line.get("errorType") == "Sandbox.Timedout")
    assert line["requestId"] == "r-1"
    assert function.log(lambda line: line.get("status") == "timeout")["metrics"]["durationMs"] >= 2000


SLOW_START = """
import fcntl, os, threading, time
started = time.time()
time.sleep(0.5)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
def handler(event, context):
    if not context.client_context:
        fcntl.flock(lock, fcntl.LOCK_UN)
    while event == "go" and not os.path.exists("go"):
        time.sleep(0.01)
    time.sleep(event if event != "go" else 0)
    return [os.getpid(), started]
"""


def test_a_worker_is_started_ahead_of_a_timeout(serve: Callable[..., FunctionProcess]) -> None:
    """Where workers can't be forked the next one is started before another's time is over, and ended if it isn't needed."""
    function = serve(SLOW_START, WISP_TIMEOUT_SECONDS="5")
    workers = Path(f"/proc/{function.process.pid}/task/{function.process.pid}/children")
    first, _ = function.invoke(0).json
    with function.socket() as sock:
        sock.sendall(b'POST / HTTP/1.1\r\nhost: x\r\nwisp-event-format: lambda\r\ncontent-length: 4\r\n\r\n"go"')
        wait_until(lambda: len(workers.read_text().split()) == 2)
        (function.folder / "go").touch()
        assert b" 200 " in sock.recv(4096)
    wait_until(lambda: len(workers.read_text().split()) == 1)
    assert function.invoke(60).status == 504
    over = time.time()
    second, started = function.invoke(0).json
    assert second != first
    assert started < over
    alone = b64encode(b'{"custom": {}}').decode()
    function = serve(SLOW_START, WISP_TIMEOUT_SECONDS="4")

    def failed() -> bool:  # on a busy machine the other may be gone before the start fails for it
        assert function.invoke(60, **{"x-amz-client-context": alone}).status == 504
        said = [line for line in function.lines if "No worker is started ahead" in line["message"]]
        return [line["level"] for line in said] == ["WARNING"]

    wait_until(failed)
    assert in_time(lambda: function.invoke(0)).status == 200


def test_who_waits_behind_a_timeout_is_served(serve: Callable[..., FunctionProcess]) -> None:
    """Requests that waited behind the one that timed out are served by the worker that takes its place."""
    function = serve(SLEEP, WISP_TIMEOUT_SECONDS="2")

    def served() -> bool:  # on a busy machine its time, too, may be over
        first, second = function.connect(), function.connect()
        with closing(first), closing(second):
            first.request("POST", "/", "60", LAMBDA)
            function_is_busy(function)
            second.request("POST", "/", "0", LAMBDA)
            assert first.getresponse().status == 504
            return second.getresponse().status == 200

    wait_until(served)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os.kill(os.getpid(), 11)", "Runtime exited with error: signal: segmentation fault"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
        ("os.closerange(3, 1000) or time.sleep(60)", "Runtime exited with error: signal: killed"),
    ],
)
def test_crash(serve: Callable[..., FunctionProcess], fault: str, said: str) -> None:
    """A worker that ends takes its invocation with it and nothing else."""
    code = "import os, time\ndef handler(event, context):\n    return eval(event)\n"
    function = serve(code)
    answer = function.invoke(fault, **{"wisp-request-id": "r-1"})
    assert (answer.status, answer.headers["wisp-function-error"]) == (500, "Unhandled")
    assert answer.json["errorType"] == "Runtime.ExitError"
    assert answer.json["errorMessage"] == f"RequestId: r-1 Error: {said}"
    assert function.invoke("1 + 1").json == 2


def test_memory(serve: Callable[..., FunctionProcess]) -> None:
    """A worker that takes more than the Function's memory is killed before the kernel takes the container."""
    code = """
import time
def handler(event, context):
    held = [bytearray(1 << 20) for _ in range(event)]
    time.sleep(30 if event > 100 else 0)
    return len(held)
"""
    function = serve(code, WISP_MEMORY_MB="100")
    assert function.invoke(10).json == 10
    answer = function.invoke(150)
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.ExitError")
    assert answer.json["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert function.log(lambda line: "more than its memory" in line["message"])
    assert function.invoke(10).json == 10


def test_children_end_with_their_worker(serve: Callable[..., FunctionProcess]) -> None:
    """What a handler started and left running ends with the worker, also where it counts its memory to itself."""
    code = """
import subprocess, time
def handler(event, context):
    child = subprocess.Popen(["sleep", "60"])
    print("child", child.pid, flush=True)
    time.sleep(60)
"""
    function = serve(code, WISP_TIMEOUT_SECONDS="2")
    assert function.invoke({}).status == 504
    line = function.log(lambda line: line["message"].startswith("child "))
    wait_until(lambda: not alive(int(line["message"].split()[1])))


def test_timeout_as_pid_1(serve: Callable[..., FunctionProcess]) -> None:
    """In a container also what left its process group ends with its worker, and no zombie stays."""
    code = """
import os, subprocess, time
def handler(event, context):
    if event == "leave a child":
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    if event:
        time.sleep(60)
    return [open(f"/proc/{name}/comm").read().strip() for name in os.listdir("/proc") if name.isdigit()]
"""
    container = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    function = serve(code, under=container, WISP_TIMEOUT_SECONDS="1")
    for event in ("leave a child", "leave none"):
        assert function.invoke(event).status == 504

        def settled() -> bool:
            names: list[str] = function.invoke("").json
            return len(names) == 3 and "sleep" not in names

        wait_until(settled)


def test_a_child_that_comes_back_is_no_worker(serve: Callable[..., FunctionProcess]) -> None:
    """A handler that forks and returns twice answers once."""
    code = "import os\ndef handler(event, context):\n    return os.fork() and event\n"
    function = serve(code)
    assert [function.invoke(number).json for number in range(1, 6)] == [1, 2, 3, 4, 5]


def test_closed_stdout(serve: Callable[..., FunctionProcess]) -> None:
    """A handler that closes its stdout is answered, and the next event's lines are in the log."""
    code = """
import os, sys
def handler(event, context):
    print("line", event)
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    return event
"""
    function = serve(code)
    for number in range(2):
        assert function.invoke(number, **{"wisp-request-id": f"r-{number}"}).status in (200, 500)
        function.log(lambda line: line["message"] == f"line {number}")  # noqa: B023 - called at once


def test_per_instance(serve: Callable[..., FunctionProcess]) -> None:
    """Up to perInstance events run at once, each alone in its worker; the next waits."""
    function = serve(TOGETHER, WISP_CONCURRENCY="3")
    connections = [function.connect() for _ in range(4)]
    for connection in connections:
        connection.request("POST", "/", "0", LAMBDA)
    wait_until(lambda: begun(function) == 3)
    function_is_busy(function)
    assert begun(function) == 3
    (function.folder / "go").touch()
    pids = [json.loads(connection.getresponse().read())[0] for connection in connections]
    for connection in connections:
        connection.close()
    assert len(set(pids)) == 3


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()", "a thread"),
        ("import socket\nkept = socket.socket()", "a socket"),
        ("import subprocess\nkept = subprocess.Popen(['sleep', '600'])", "a child process"),
    ],
)
def test_what_cannot_fork_imports_by_itself(serve: Callable[..., FunctionProcess], left: str, said: str) -> None:
    """An import that left something that a fork would break is repeated in each worker, and the log says so."""
    code = f"{left}\nimport os, time\nprint('imported')\n" + SLEEP
    function = serve(code, WISP_CONCURRENCY="2", WISP_TIMEOUT_SECONDS="2")
    assert function.log(lambda line: f"because the import left {said}" in line["message"])
    assert function.invoke(60).status == 504
    assert in_time(lambda: function.invoke(0)).status == 200
    wait_until(lambda: sum(line["message"] == "imported" for line in function.lines) >= 2)


def test_forked_workers_share_the_import_and_no_random_numbers(serve: Callable[..., FunctionProcess]) -> None:
    """Workers fork from one import; each draws its own random numbers and ids."""
    function = serve(TOGETHER, WISP_CONCURRENCY="3")
    connections = [function.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/", "0", LAMBDA)
    wait_until(lambda: begun(function) == 3)
    (function.folder / "go").touch()
    answers = [json.loads(connection.getresponse().read()) for connection in connections]
    for connection in connections:
        connection.close()
    assert [len({answer[part] for answer in answers}) for part in range(3)] == [3, 3, 3]
    function.log(lambda line: line["message"] == "imported")
    assert sum(line["message"] == "imported" for line in function.lines) == 1


def test_nothing_leaks_over_many_ends(serve: Callable[..., FunctionProcess]) -> None:
    """After many timeouts and crashes the front has the descriptors and children that it had before."""
    code = "import os, time\ndef handler(event, context):\n    return eval(event)\n"
    function = serve(code, WISP_TIMEOUT_SECONDS="0.2")
    wait_until(lambda: function.invoke("1").status == 200)
    pid = function.process.pid

    def held() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    before = held()
    for _ in range(10):
        assert function.invoke("time.sleep(9)").status == 504
        assert function.invoke("os._exit(1)").status in {500, 504}  # on a busy machine its time, too, may be over first
    wait_until(lambda: function.invoke("2").status == 200)
    wait_until(lambda: held() <= before)


def test_the_zygote_may_die(serve: Callable[..., FunctionProcess]) -> None:
    """Where the process that workers are forked from is killed, another imports the handler, and events are served."""
    function = serve("import os, time\ndef handler(event, context):\n    return eval(event)\n")
    zygote = function.invoke("os.getppid()").json
    os.kill(zygote, signal.SIGKILL)
    assert function.log(lambda line: "has ended; another one imports" in line["message"])
    assert function.invoke("os._exit(1)").status == 500
    assert function.invoke("3").json == 3


def test_lines_of_a_child_process_are_wrapped(serve: Callable[..., FunctionProcess]) -> None:
    """What a child process or a C library writes to the descriptors is in the log, under the request that runs."""
    code = (
        "import os\ndef handler(event, context):\n    os.system('echo from a child')\n    os.write(2, b'raw \\xff')\n"
    )
    function = serve(code)
    function.invoke({}, **{"wisp-request-id": "r-1"})
    for text in ("from a child", "raw \\xff"):
        line: dict[str, Any] = function.log(lambda line: line["message"] == text)  # noqa: B023 - called at once
        assert line.get("requestId", "r-1") == "r-1"


PROGRAM = """
import json, os, socket, struct, sys
sock = socket.socket(fileno=int(os.environ["WISP_WORKER_FD"]))
def send(kind, number, head, body=b""):
    text = json.dumps(head).encode()
    sock.sendall(struct.pack(">BIII", kind, number, len(text), len(body)) + text + body)
def read(size):
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data)) or sys.exit()
    return data
send(16, 0, {"signature": "lambda"})
while True:
    kind, number, head, body = struct.unpack(">BIII", read(13))
    head, body = json.loads(read(head)), read(body)
    if kind == 1 and body == b'"garbage"':
        sock.sendall(b"x" * 100)
    elif kind == 1 and body == b'"headers"':
        send(18, number, {"status": 200, "headers": 5})
    elif kind == 1 and body == b'"head"':
        sock.sendall(struct.pack(">BIII", 18, number, 2, 0) + b"[]")
    elif kind == 1:
        print("from", os.environ["AWS_LAMBDA_FUNCTION_NAME"], os.getcwd(), flush=True)
        send(18, number, {}, body + b" ")
    elif kind == 5:
        sys.exit()
"""


def test_a_program_as_worker(serve: Callable[..., FunctionProcess]) -> None:
    """Any program that speaks the protocol is a worker; one that breaks it costs its invocation and is replaced."""
    files = {"worker.py": PROGRAM}
    function = serve(files, WISP_WORKER=f"{sys.executable} worker.py")
    assert function.invoke({"a": [1]}).json == {"a": [1]}
    assert function.log(lambda line: line["message"] == f"from hello {function.folder}")["requestId"]
    for fault, error_type in (
        ("garbage", "Runtime.ExitError"),
        ("headers", "Runtime.InvalidResponse"),
        ("head", "Runtime.ExitError"),
    ):
        answer = function.invoke(fault)
        assert (answer.status, answer.json["errorType"]) == (500, error_type)
        assert function.invoke(1).json == 1


def test_a_program_that_is_not_there(start: Callable[..., FunctionProcess]) -> None:
    """A worker that can't be started is a failed start that says so."""
    function = start("", WISP_WORKER="/nowhere/bootstrap")
    assert function.exit_status() == 1
    assert any("/nowhere/bootstrap can't be started" in line["message"] for line in function.lines)
    assert "Runtime.ExitError" in function.termination_log.read_text()
