"""Hostile handlers, and callers whose events reach the workers: whatever they send or do, the pod serves on."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from unit.runtime.conftest import function_is_busy, in_time
from unit.runtime.test_workers import wait_until
from wisp_runtime import journal
from wisp_runtime.loop import READ, Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

ECHO = "def handler(event, context):\n    return event\n"
PIDS = "import os\ndef handler(event, context):\n    return [os.getpid(), os.getppid()]\n"
FRAMES = """
import json, os, struct, time

def socket():
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                return int(name)
        except OSError:
            pass

def handler(event, context):
    if event:
        head = event["head"].encode()
        body = event.get("size", 0)
        os.write(socket(), struct.pack(">BIII", event["kind"], event.get("number", 0), len(head), body) + head)
        time.sleep(20)
    return os.getpid()
"""
EVENT = '"specversion":"1.0","id":"1","source":"/","type":"t","unset":null'


def resident_mib(pid: int) -> int:
    """Return the most MiB that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


class Faulty:
    """Raises whenever it is called, and gives up when it is told to."""

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        """Watch a socket."""
        self.sock = sock
        self.loop = loop
        self.errors: list[Exception] = []
        loop.watch(sock.fileno(), READ, self.on_event)

    def on_event(self, events: int) -> None:
        """Fail, unforeseen."""
        raise RecursionError(f"events {events}")

    def failed(self, error: Exception) -> None:
        """Give up."""
        self.errors.append(error)
        self.loop.forget(self.sock.fileno())


def test_a_fault_costs_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a callback is logged with its stack and told to its object; the loop goes on with the others."""
    lines: list[bytes] = []
    monkeypatch.setattr(journal, "_lines", lines)
    loop = Loop()
    here, there = socket.socketpair()
    seen: list[str] = []
    with here, there:
        faulty = Faulty(here, loop)
        there.send(b"x")
        loop.after(0, lambda: seen.append(str(1 / 0)))
        loop.after(0, lambda: seen.append("after"))
        loop.run_once()
        loop.after(0.01, lambda: seen.append("later"))
        loop.run_once()
    assert [type(error) for error in faulty.errors] == [RecursionError]
    assert seen == ["after", "later"]
    logged = [json.loads(line) for line in lines]
    assert [line["errorType"] for line in logged] == ["Runtime.Fault", "Runtime.Fault"]
    assert "on_event" in "".join(logged[0]["stackTrace"])


def test_a_timer_that_is_always_due() -> None:
    """A timer that sets itself again for at once is called once a round, and holds nobody up."""
    loop = Loop()
    calls: list[int] = []

    def again() -> None:
        calls.append(0)
        if len(calls) < 9:
            loop.after(0, again)

    loop.after(0, again)
    loop.run_once()
    assert len(calls) == 1


@pytest.mark.parametrize("data", [r'"\ud800"', "1e999", "[-1e999]", '"' + r"\uDFFF" + '"'])
@pytest.mark.parametrize("batch", [False, True])
def test_an_event_without_a_json_form(serve: Callable[..., FunctionProcess], data: str, *, batch: bool) -> None:
    """An event with half a surrogate pair or an infinite number is refused, whether it must be written anew or not."""
    function = serve(ECHO)
    kind = "application/cloudevents-batch+json" if batch else "application/cloudevents+json"
    for attributes in (EVENT, EVENT.replace("null", '"x"')):
        event = f'{{{attributes},"data":{data}}}'
        answer = function.request("/", f"[{event}]" if batch else event, {"content-type": kind})
        assert (answer.status, answer.json["errorType"]) == (400, "InvalidJson")
    assert function.invoke(1).json == 1


def test_an_event_with_a_surrogate_pair(serve: Callable[..., FunctionProcess]) -> None:
    """A whole surrogate pair is a character like any other."""
    event = f'{{{EVENT},"data":"\\ud83d\\ude00"}}'
    answer = serve(ECHO).request("/", event, {"content-type": "application/cloudevents+json"})
    assert answer.json["data"] == "\U0001f600"


def test_a_nested_client_context(serve: Callable[..., FunctionProcess]) -> None:
    """A client context that can be read but not written, because it is nested too deep, is refused."""
    function = serve(ECHO)
    statuses = set()
    for depth in (90, 150, 940, 960, 970, 975, *range(980, 1001)):
        context = base64.b64encode(b'{"a":' * depth + b"1" + b"}" * depth).decode()
        statuses.add(function.invoke({}, **{"x-amz-client-context": context}).status)
    assert statuses <= {200, 400}
    assert 400 in statuses
    assert function.invoke(1).json == 1


def test_a_long_id(serve: Callable[..., FunctionProcess]) -> None:
    """An event whose id is too long for logs and headers is refused, and no worker is lost."""
    function = serve(PIDS)
    before = function.invoke({}).json
    event = f'{{"specversion":"1.0","id":"{"x" * (2 << 20)}","source":"/","type":"t"}}'
    answer = function.request("/", event, {"content-type": "application/cloudevents+json"})
    assert (answer.status, answer.json["errorType"]) == (400, "InvalidCloudEvent")
    assert function.invoke({}).json == before


def test_a_caller_that_leaves_while_its_worker_ends(serve: Callable[..., FunctionProcess]) -> None:
    """A caller may reset its connection after its worker's socket has ended and before the worker has."""
    code = """
import os, signal, time
def handler(event, context):
    if event:
        os.kill(os.getppid(), signal.SIGSTOP)
        print("zygote", os.getppid(), flush=True)
        os.closerange(3, 200)
        time.sleep(20)
    return 1
"""
    function = serve(code)
    with function.socket() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nwisp-event-format: lambda\r\ncontent-length: 1\r\n\r\n1")
        line = function.log(lambda line: line["message"].startswith("zygote "))
        function_is_busy(function)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    function_is_busy(function)
    os.kill(int(line["message"].split()[1]), signal.SIGCONT)
    assert function.invoke(0).json == 1


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (16, '{"signature":"lambda","concurrency":1e999}'),
        (16, '{"signature":"lambda"}'),
        (17, '{"errorType":"E","errorMessage":"M"}'),
        (64, '{"signature":"lambda"}'),
        (66, '{"pid":1}'),
        (67, '{"pid":1,"status":0}'),
        (99, "[" * 5000),
        (18, '{"status":1e999}'),
    ],
)
def test_a_frame_that_is_not_the_workers(serve: Callable[..., FunctionProcess], kind: int, head: str) -> None:
    """A frame that its sender may not send, or not now, or that says nonsense, costs that worker and nothing else."""
    function = serve(FRAMES)
    function.invoke(0)
    number = 2 if kind == 18 else 0
    answer = function.invoke({"kind": kind, "head": head, "number": number})
    assert answer.status == 500
    assert function.invoke(0).status == 200
    assert not [line for line in function.lines if line.get("errorType") == "Runtime.Fault"]


def test_ready_before_the_start_is_over(start: Callable[..., FunctionProcess]) -> None:
    """What the import sends in the runtime's name ends the start with a plain error."""
    head = '{"signature":"lambda","concurrency":1e999}'
    code = f"{FRAMES}\nhandler({{'kind': 16, 'head': '{head}'}}, None)\n"
    function = start(code)
    assert function.exit_status() == 1
    assert function.log(lambda line: line.get("errorType") == "Runtime.ProtocolError")


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_child_that_writes_without_end(serve: Callable[..., FunctionProcess], *, left_behind: bool) -> None:
    """A process that fills the log as fast as it can costs its own invocation its time, and nobody else."""
    code = """
import os, subprocess, sys, time
def handler(event, context):
    if event == "write":
        subprocess.Popen(["yes"], start_new_session=True) if LEFT_BEHIND else subprocess.run(["yes"])
    return os.getpid()
""".replace("LEFT_BEHIND", str(left_behind))
    function = serve(code, WISP_TIMEOUT_SECONDS="60" if left_behind else "3", WISP_CONCURRENCY="2")
    assert function.invoke("write").status == (200 if left_behind else 504)
    assert in_time(lambda: function.invoke("")).status == 200
    function.process.terminate()
    assert function.exit_status() == 0


def test_a_log_that_nobody_reads(serve: Callable[..., FunctionProcess]) -> None:
    """While nobody reads stdout the pod serves on; when it is read again, it says how many lines are missing."""
    code = """
import os, sys
def handler(event, context):
    print("x" * 40000)
    print("y" * 1000)
    return 1
"""
    function = serve(code)
    with function._news:  # noqa: SLF001 - which its reader needs
        for _ in range(150):
            assert function.invoke(0).json == 1
    line = function.log(lambda line: "droppedLines" in line)
    assert line["droppedLines"] > 0
    assert function.invoke(0).json == 1
    function.process.terminate()
    assert function.exit_status() == 0


def test_a_result_that_is_announced_too_large(serve: Callable[..., FunctionProcess]) -> None:
    """A result longer than allowed is answered when it is announced, and what comes of it is kept nowhere."""
    code = """
import os
def handler(event, context):
    return "x" * event
"""
    function = serve(code, WISP_MAX_BODY_BYTES="1000", WISP_MEMORY_MB="2048")
    before = resident_mib(function.process.pid)
    for _ in range(2):
        answer = function.invoke(100 << 20)
        assert (answer.status, answer.json["errorType"]) == (500, "Function.ResponseSizeTooLarge")
        assert function.invoke(10).json == "x" * 10
    assert resident_mib(function.process.pid) - before < 20


def test_a_part_that_is_announced_too_large(serve: Callable[..., FunctionProcess]) -> None:
    """A part of a stream that the front would have to hold whole, and can't, ends its worker."""
    function = serve(FRAMES)
    answer = function.invoke({"kind": 19, "head": "", "number": 1, "size": 1 << 31})
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.ExitError")
    assert function.log(lambda line: line.get("errorType") == "Runtime.ProtocolError")


def test_many_generations(serve: Callable[..., FunctionProcess]) -> None:
    """A worker may have more descendants, one the child of the other, than Python's stack has room for."""
    code = """
import subprocess, time
def handler(event, context):
    child = subprocess.Popen(["sh", "chain.sh", "1100"], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(0.3)
    return 1
"""
    chain = "if [ $1 -gt 0 ]; then sh chain.sh $(($1 - 1)); else echo deep; sleep 20; fi; exit"
    function = serve({"app.py": code, "chain.sh": chain}, WISP_MEMORY_MB="8192", WISP_TIMEOUT_SECONDS="120")
    assert function.invoke({}).json == 1
    assert not [line for line in function.lines if line.get("errorType") == "Runtime.Fault"]


def test_shared_memory_counts(serve: Callable[..., FunctionProcess]) -> None:
    """Memory that a worker maps to share it is memory too."""
    code = """
import mmap, time
def handler(event, context):
    held = mmap.mmap(-1, 200 << 20)
    for at in range(0, 200 << 20, 4096):
        held[at] = 1
    time.sleep(50)
"""
    function = serve(code, WISP_MEMORY_MB="100", WISP_TIMEOUT_SECONDS="60")
    assert function.invoke({}).status == 500
    assert function.log(lambda line: line.get("errorType") == "Runtime.OutOfMemory")


def test_forked_memory_counts_once(serve: Callable[..., FunctionProcess]) -> None:
    """What a worker's forks share with it isn't counted for each of them."""
    code = """
import os, time
def handler(event, context):
    held = bytearray(50 << 20)
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(0.5)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    return len(held)
"""
    function = serve(code, WISP_MEMORY_MB="120")
    assert function.invoke({}).json == 50 << 20


def test_a_tree_of_daemons_as_pid_1(serve: Callable[..., FunctionProcess]) -> None:
    """In a container all that a worker's daemons have started ends with it, not only those that become our children first."""
    code = """
import os, subprocess, time
def handler(event, context):
    if event == "daemons":
        if os.fork() == 0:
            for _ in range(5):
                os.setsid()
                if os.fork():
                    break
            time.sleep(60)
        time.sleep(0.2)
        os._exit(1)
    return len([name for name in os.listdir("/proc") if name.isdigit()])
"""
    container = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    function = serve(code, under=container)
    assert function.invoke("daemons").status == 500
    wait_until(lambda: function.invoke("").json == 3)


def test_a_zygote_that_ends_while_it_is_to_fork(serve: Callable[..., FunctionProcess]) -> None:
    """Workers that a zygote will fork no more are dropped without a word; the next zygote forks them."""
    code = """
import os, signal, time
def handler(event, context):
    if event == 1:
        os.kill(os.getppid(), signal.SIGSTOP)
        print("zygote", os.getppid(), flush=True)
    time.sleep(event)
    return os.getpid()
"""
    function = serve(code, WISP_CONCURRENCY="4", WISP_INIT_TIMEOUT_SECONDS="120")
    with function.socket() as first, function.socket() as second:
        head = b"POST / HTTP/1.1\r\nhost: x\r\nwisp-event-format: lambda\r\ncontent-length: 1\r\n\r\n"
        first.sendall(head + b"1")
        line = function.log(lambda line: line["message"].startswith("zygote "))
        second.sendall(head + b"2")  # has a third worker forked, which the zygote doesn't
        function_is_busy(function)
        os.kill(int(line["message"].split()[1]), signal.SIGKILL)
        assert b" 200 " in first.recv(4096)
        assert b" 200 " in second.recv(4096)
    function.log(lambda line: "another one imports the handler" in line["message"])
    assert function.invoke(0).status == 200
    assert not [line for line in function.lines if line["level"] == "ERROR"]


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("None", "The worker ended before it was ready: Runtime exited with error: exit status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "another one imports the handler"),
    ],
)
def test_a_zygote_that_is_slow_to_tell_of_a_fork(serve: Callable[..., FunctionProcess], then: str, told: str) -> None:
    """How a worker ended that nobody has told of yet is the zygote's to say, however late: its status, or its own end."""
    code = f"""
import os, signal, time
forks = 0
def ends():
    return {{name for name in os.listdir("/proc/self/fd") if "/socket:" in os.path.realpath("/proc/self/fd/" + name)}}
own = ends()
def before():
    global forks
    forks += 1
def in_parent():
    if forks == 2:
        for name in ends() - own:  # the new worker's, which it closes itself as a rule
            os.dup2(os.open(os.devnull, os.O_RDWR), int(name))
        time.sleep(2.5)
        {then}
os.register_at_fork(before=before, after_in_child=lambda: forks == 2 and os._exit(7), after_in_parent=in_parent)
def handler(event, context):
    time.sleep(event)
    return os.getpid()
"""
    function = serve(code, WISP_CONCURRENCY="2")
    assert function.invoke(0.1).status == 200  # has the second one forked
    line = function.log(lambda line: told in line["message"])
    assert function.invoke(0).status == 200
    assert [other for other in function.lines if other["level"] in {"ERROR", "WARNING"}] == [line]


def test_an_import_that_raises_no_exception(start: Callable[..., FunctionProcess]) -> None:
    """An import that raises what isn't an Exception is told with its stack as any other."""
    function = start("class Stop(BaseException):\n    pass\n\ndef load():\n    raise Stop('now')\n\nload()\n")
    assert function.exit_status() == 1
    line = function.log(lambda line: line["level"] == "ERROR")
    assert line["message"] == "Runtime.ImportModuleError: Unable to import module 'app': Stop: now"
    assert "in load" in "".join(line["stackTrace"])


def test_a_child_that_goes_on_sending(serve: Callable[..., FunctionProcess]) -> None:
    """What a worker has left behind can't keep the front reading from the worker's socket."""
    code = (
        FRAMES
        + """
def handler(event, context):
    if event:
        if os.fork() == 0:
            os.setsid()
            data = struct.pack(">BIII", 18, 99, 0, 0) * 4000
            until = time.monotonic() + 60
            while time.monotonic() < until:
                os.write(socket(), data)
        time.sleep(0.1)
        os._exit(1)
    return 1
"""
    )
    function = serve(code)
    begun = time.monotonic()
    assert function.invoke(1).status == 500
    assert function.invoke(0).json == 1
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("context", [r'{"a":"\ud800"}', '{"a":1e999}', '{"a":NaN}'])
def test_a_client_context_without_a_json_form(serve: Callable[..., FunctionProcess], context: str) -> None:
    """A client context that not every worker's language could read is refused."""
    function = serve(ECHO)
    assert function.invoke(1, **{"x-amz-client-context": base64.b64encode(context.encode()).decode()}).status == 400
    assert function.invoke(1).json == 1
