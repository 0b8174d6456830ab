"""A changed Secret reaches a function that runs: new processes with the new value, beside those that serve."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.mounted import Mounted
from fixtures.node import worker_command
from fixtures.process import wait_until
from unit.runtime.conftest import FunctionProcess, read_all, serve, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Serve = Callable[..., FunctionProcess]

__all__ = ["serve", "start"]

PLACE = "secrets/shop"
RECIPE = {"env": [{"name": "USER", "value": "u"}, {"name": "KEY", "at": PLACE, "key": "key"}]}
RECIPE["env"].append({"name": "DSN", "value": "$(USER):$(KEY)"})
PYTHON = """
import os, time
if os.environ["KEY"] == "bad":
    raise ValueError("no such key")
def handler(event, context):
    return [os.environ["KEY"], os.environ["DSN"]]
"""
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n" + PYTHON
WAITING = """
import os, time
def handler(event, context):
    if event:
        print("waiting")
    while event and not os.path.exists(event):
        time.sleep(0.05)
    return [os.environ["KEY"], os.environ["DSN"]]
"""
NODE = """export async function handler() { return [process.env.KEY, process.env.DSN] }"""
ASGI = """
import os
async def handler(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ('["%s", "%s"]' % (os.environ["KEY"], os.environ["DSN"])).encode()})
"""
BOOTSTRAP = f"""#!{sys.executable}
import json, os, urllib.request
base = f"http://{{os.environ['AWS_LAMBDA_RUNTIME_API']}}/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next") as got:
        number = got.headers["Lambda-Runtime-Aws-Request-Id"]
    answer = json.dumps([os.environ["KEY"], os.environ["DSN"]]).encode()
    urllib.request.urlopen(base + number + "/response", answer).close()
"""
BRIDGE = f"{sys.executable} -m wisp_runtime.bridge"
FUNCTIONS: dict[str, tuple[str | dict[str, str], dict[str, str]]] = {
    "python": (PYTHON, {"WISP_CONCURRENCY": "2"}),
    "python that can't fork": (THREAD, {}),
    "python in the serving process": (PYTHON, {"WISP_ISOLATION": "none"}),
    "the same that can't fork": (THREAD, {"WISP_ISOLATION": "none"}),
    "asgi": (ASGI, {"WISP_SIGNATURE": "asgi", "WISP_ISOLATION": "shared", "WISP_CONCURRENCY": "8"}),
    "nodejs": ({"app.mjs": NODE}, {"WISP_WORKER": shlex.join(worker_command())}),
    "provided": ({"bootstrap": BOOTSTRAP}, {"WISP_WORKER": BRIDGE, "WISP_SIGNATURE": "lambda"}),
}


@pytest.fixture
def secret(tmp_path: Path) -> Mounted:
    """The pod's folder of Secrets, with the first value."""
    mounted = Mounted(tmp_path / "env")
    mounted.write(PLACE, key="one")
    return mounted


@pytest.fixture
def function(secret: Mounted, start: Serve) -> Callable[..., FunctionProcess]:
    """Serve a function with the variables that the kubelet gives it at its start."""

    def begin(code: str | dict[str, str], **env: str) -> FunctionProcess:
        given = {"KEY": "one", "USER": "u", "DSN": "u:one", "WISP_ENV": json.dumps(RECIPE)}
        function = start(code, **given, WISP_ENV_DIR=str(secret.folder), **env)
        for bootstrap in function.folder.glob("bootstrap"):
            bootstrap.chmod(0o755)
        return function.ready()

    return begin


def says(function: FunctionProcess, text: str) -> dict[str, Any]:
    """Wait for a line in the log."""
    return function.log(lambda line: text in line.get("message", ""))


def has(function: FunctionProcess, key: str) -> None:
    """Wait until an event gets this value."""
    wait_until(lambda: function.invoke(0).json == [key, f"u:{key}"], f"the function has {key!r}")


class Load:
    """Callers that ask all the time, on connections of their own that stay open."""

    def __init__(self, function: FunctionProcess) -> None:
        """Begin."""
        self.answers: list[tuple[int, bytes]] = []
        self._function = function
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        connection = self._function.connect()
        fields = {"content-type": "application/json", "wisp-event-format": "lambda"}
        while not self._ends.is_set():
            connection.request("POST", "/", "0", fields)
            response = connection.getresponse()
            self.answers.append((response.status, response.read()))
        connection.close()

    def end(self) -> list[tuple[int, bytes]]:
        """Stop, and return all answers."""
        self._ends.set()
        for thread in self._threads:
            thread.join(60)
        return self.answers


@pytest.fixture
def load() -> Iterator[Callable[[FunctionProcess], Load]]:
    """Callers, who stop with the test."""
    loads: list[Load] = []

    def begin(function: FunctionProcess) -> Load:
        loads.append(Load(function))
        return loads[-1]

    yield begin
    for one in loads:
        one.end()


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_change_reaches_what_runs(
    function: Serve, secret: Mounted, load: Callable[[FunctionProcess], Load], kind: str
) -> None:
    """Under load each request is answered, with the old value or the new; after a while all with the new one, and again."""
    code, env = FUNCTIONS[kind]
    values = ("two", "three") if kind == "python" else ("two",)
    running = function(code, **env)
    has(running, "one")
    callers = load(running)
    for value in values:
        secret.write(PLACE, key=value)
        has(running, value)
    answers = callers.end()
    assert {status for status, _ in answers} == {200}
    seen = [json.loads(body)[0] for _, body in answers]
    assert set(seen) <= {"one", *values}
    assert "one" in seen
    for _ in range(5):
        assert running.invoke(0).json == [values[-1], f"u:{values[-1]}"]


@pytest.mark.parametrize("kind", ["python", "python that can't fork", "python in the serving process"])
def test_a_value_that_no_start_takes(function: Serve, secret: Mounted, kind: str) -> None:
    """A bad value is told of in the log, and the function serves on; a good one that follows is taken."""
    code, env = FUNCTIONS[kind]
    running = function(code, **env)
    secret.write(PLACE, key="bad")
    line = says(running, "With its changed Secrets the function can't start")
    assert "no such key" in line["message"]
    assert line["errorType"] == "Runtime.ImportModuleError"
    assert running.invoke(0).json == ["one", "u:one"]
    secret.write(PLACE, key="two")
    has(running, "two")


def test_what_runs_is_finished_with_what_it_began(function: Serve, secret: Mounted) -> None:
    """An event that runs when the others take over keeps its process and its variables."""
    running = function(WAITING, WISP_CONCURRENCY="2")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(running.invoke("go")))
    thread.start()
    says(running, "waiting")
    secret.write(PLACE, key="two")
    has(running, "two")
    assert not answers
    (running.folder / "go").touch()
    thread.join(60)
    assert answers[0].json == ["one", "u:one"]


def test_a_request_that_arrives_slowly_is_answered(function: Serve, secret: Mounted) -> None:
    """Where one process has all connections it reads to its end what it has begun to read, and others don't wait for that."""
    running = function(PYTHON, WISP_ISOLATION="none")
    with running.socket() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nhost: x\r\nwisp-event-format: lambda\r\nconnection: close\r\ncontent-length: 1\r\n\r\n"
        )
        assert running.invoke(0).json[0] == "one"  # it has been read, as far as it is there
        secret.write(PLACE, key="two")
        says(running, "Secrets have changed")
        until = time.monotonic() + 3  # time for the new process to show that it starts, and more than for a quick end
        while time.monotonic() < until:
            assert running.invoke(0).status == 200
        sock.sendall(b"0")
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    has(running, "two")


def test_what_runs_keeps_its_time_limit(function: Serve, secret: Mounted) -> None:
    """An event that never ends is ended in time, although its process was to end after it."""
    running = function(WAITING, WISP_CONCURRENCY="2", WISP_TIMEOUT_SECONDS="5")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(running.invoke("never")))
    thread.start()
    says(running, "waiting")
    secret.write(PLACE, key="two")
    has(running, "two")
    thread.join(60)
    assert "timed out after 5.00 seconds" in answers[0].json["errorMessage"]


def test_a_deleted_secret_changes_nothing(function: Serve, secret: Mounted) -> None:
    """A Secret that goes leaves the function what it has; when it comes again its value counts."""
    running = function(PYTHON)
    secret.write(PLACE)
    line = says(running, "keeps the variables that it has")
    assert "the Secret shop has no key key" in line["message"]
    assert running.invoke(0).json == ["one", "u:one"]
    secret.write(PLACE, key="two")
    has(running, "two")


def test_no_memory_for_both(function: Serve, secret: Mounted) -> None:
    """Where old and new processes together have too much memory, the new ones go, and the function serves on."""
    big = PYTHON + "ballast = b'x' * (60 << 20)\ntime.sleep(5 if os.environ['KEY'] == 'two' else 0)\n"
    running = function(big, WISP_MEMORY_MB="100")
    secret.write(PLACE, key="two")
    line = says(running, "With its changed Secrets the function can't start")
    assert "there is no memory for both" in line["message"]
    assert running.invoke(0).json == ["one", "u:one"]


def test_values_stay_out_of_the_log(function: Serve, secret: Mounted) -> None:
    """The log names variables, never their values."""
    running = function(PYTHON)
    secret.write(PLACE, key="verysecret")
    line = says(running, "Secrets have changed")
    assert "(DSN, KEY)" in line["message"]
    has(running, "verysecret")
    assert not [line for line in running.raw_lines if "verysecret" in line]


@pytest.mark.parametrize("told", ['{"env":[{"value":"a"x"}]}', '{"env":[{"at":"secrets/shop"}]}', "[]", '{"from":[7]}'])
def test_what_can_not_be_read_stops_no_start(serve: Serve, told: str) -> None:
    """A function whose variables' making is told wrong serves with those that it has, says so, and shows none of them."""
    process = serve(PYTHON, WISP_ENV=told, KEY="one", DSN="u:one")
    assert process.invoke(None).json == ["one", "u:one"]
    line = process.log(lambda line: "WISP_ENV can't be read" in line["message"])
    assert line["level"] == "WARNING"
    assert not [text for text in process.raw_lines if "u:one" in text or told in text]


def test_end_while_another_start_is_tried(function: Serve, secret: Mounted) -> None:
    """SIGTERM ends all processes, the one that is being tried included."""
    slow = PYTHON + "time.sleep(600 if os.environ['KEY'] == 'two' else 0)\n"
    running = function(slow, WISP_INIT_TIMEOUT_SECONDS="600")
    secret.write(PLACE, key="two")
    says(running, "Secrets have changed")
    running.process.terminate()
    assert running.exit_status() == 0
