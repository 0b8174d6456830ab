"""The bridge as a process: how a runtime is found, started and ended, and what is told when it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httptools
import pytest
from fixtures.process import wait_until
from fixtures.worker import ERROR, FAILED, RESULT, STOP, WorkerProcess
from unit.runtime_api.conftest import SOURCE, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge

# What AWS' tutorial for custom runtimes shows, with an error's report and two ways to end.
SHELL_BOOTSTRAP = """#!/bin/sh
set -eu
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
while true; do
    headers=$(mktemp)
    event=$(curl -sS -LD "$headers" "$api/invocation/next")
    id=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$headers" | tr -d '[:space:]' | cut -d: -f2)
    rm "$headers"
    echo "running $id"
    case $event in
    '"fail"')
        curl -sS -o /dev/null -H 'Lambda-Runtime-Function-Error-Type: Shell.Failed' \\
            -d '{"errorType": "Shell.Failed", "errorMessage": "as asked"}' "$api/invocation/$id/error" ;;
    '"exit"') exit 3 ;;
    '"done"') exit 0 ;;
    '"crash"') kill -SEGV $$ ;;
    '"pipe"') kill -PIPE $$ ;;
    *) curl -sS -o /dev/null -d "{\\"got\\": $event, \\"home\\": \\"$PWD\\"}" "$api/invocation/$id/response" ;;
    esac
done
"""


# Answers once and ends before it asks again, but not before the front believes it idle.
ONE_EVENT_BOOTSTRAP = """#!/bin/sh
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
event=$(curl -sS -D headers "$api/next")
id=$(grep -Fi Lambda-Runtime-Aws-Request-Id headers | tr -d '[:space:]' | cut -d: -f2)
test "$event" = '"silence"' || curl -sS -o /dev/null -d "$event" "$api/$id/response"
sleep 0.1
exit 9
"""
# While the bridge stands still it answers on a connection of its own, by more than one read of the bridge's gets, and ends.
PARTING_BOOTSTRAP = f"""#!{sys.executable}
import http.client, os, signal, socket
host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
connection = http.client.HTTPConnection(host, int(port))
path = "/2018-06-01/runtime/{{}}"
connection.request("GET", path.format("invocation/next"))
event = connection.getresponse()
body = b'"' + b"x" * 200_000 + b'"'
target = path.format(f"invocation/{{event.getheader('Lambda-Runtime-Aws-Request-Id')}}/response")
os.kill(os.getppid(), signal.SIGSTOP)
with socket.create_connection((host, int(port))) as last:
    last.sendall(f"POST {{target}} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: {{len(body)}}\\r\\n\\r\\n".encode() + body)
print("pid", os.getpid(), flush=True)
os._exit(3)
"""


def test_a_shell_script_is_a_function(bridge: Callable[..., Bridge]) -> None:
    """A script with curl serves events, reports errors, runs in the code folder, and what it prints is the log."""
    worker = bridge(SHELL_BOOTSTRAP)
    assert worker.ready().head == {"signature": "lambda", "concurrency": 1}
    for event in (1, {"a": "b"}, None):
        assert worker.result(event) == {"got": event, "home": str(worker.folder)}
    failure = worker.call('"fail"')
    assert (failure.kind, failure.head["errorType"], failure.head["errorMessage"]) == (
        ERROR,
        "Shell.Failed",
        "as asked",
    )
    assert worker.result(5)["got"] == 5
    worker.send(STOP, 0)
    assert worker.end() == 0
    assert worker.log()[:2] == ["running r-1\n", "running r-2\n"]


def test_the_images_entry(tmp_path: Path) -> None:
    """The image's script finds the package with nothing of the environment on the import path."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/wisp_runtime").symlink_to(SOURCE / "wisp_runtime")
    (tmp_path / "lib/httptools").symlink_to(Path(httptools.__file__).parent)
    shutil.copy(SOURCE.parents[1] / "provided/bridge.py", tmp_path)
    write(tmp_path / "task/bootstrap", SHELL_BOOTSTRAP, 0o755)
    env = {"LAMBDA_TASK_ROOT": str(tmp_path / "task"), "PYTHONPATH": "/nowhere"}
    worker = WorkerProcess([sys.executable, "-I", "-S", str(tmp_path / "bridge.py")], tmp_path / "task", env)
    try:
        worker.ready()
        assert worker.call("1").json["got"] == 1
    finally:
        worker.close()


def test_the_guides_example(bridge: Callable[..., Bridge]) -> None:
    """The script that the guide shows is a function."""
    guide = (SOURCE.parents[2] / "docs/guide.md").read_text()
    lines = guide.split("      bootstrap: |\n")[1].split("```")[0].splitlines()
    worker = bridge("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    worker.ready()
    assert worker.result([1]) == {"got": [1]}
    assert worker.result(2) == {"got": 2}


@pytest.mark.parametrize(
    ("event", "status"),
    [('"exit"', 3), ('"done"', 0), ('"crash"', -signal.SIGSEGV), ('"pipe"', -signal.SIGPIPE)],
)
def test_a_runtime_that_ends_takes_the_bridge_along(bridge: Callable[..., Bridge], event: str, status: int) -> None:
    """The bridge ends as the runtime did, so that the front's error tells the runtime's exit status or signal."""
    worker = bridge(SHELL_BOOTSTRAP)
    worker.ready()
    worker.invoke(event)
    assert worker.end() == status


def test_a_runtime_that_ends_between_events(bridge: Callable[..., Bridge]) -> None:
    """Then too: a new worker has to come."""
    worker = bridge(
        "#!/bin/sh\ntrap 'exit 7' TERM\necho pid $$\necho api $AWS_LAMBDA_RUNTIME_API\nwhile :; do sleep 0.05; done\n"
    )
    worker.polling()
    os.kill(int(worker.wait_log("pid ")), signal.SIGTERM)
    assert worker.end() == 7


def test_an_event_that_the_runtime_never_got_is_not_lost(bridge: Callable[..., Bridge]) -> None:
    """A runtime that ends after its answer doesn't take the next event along: another is started for it."""
    worker = bridge(ONE_EVENT_BOOTSTRAP)
    worker.ready()
    for number in range(1, 4):
        assert worker.result(number) == number
    worker.invoke('"silence"')
    assert worker.end() == 9


def test_a_runtimes_last_words_are_heard(bridge: Callable[..., Bridge]) -> None:
    """An answer that is still in its connection when the runtime has ended is the invocation's, not the runtime's exit."""
    worker = bridge(PARTING_BOOTSTRAP)
    worker.ready()
    worker.invoke()
    stat = Path(f"/proc/{worker.wait_log('pid ')}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", "the runtime has ended")
    worker.process.send_signal(signal.SIGCONT)
    frame = worker.receive()
    assert (frame.kind, len(frame.body)) == (RESULT, 200_002)
    assert worker.end() == 3


@pytest.mark.parametrize(
    ("bootstrap", "error_type", "message"),
    [
        (
            None,
            "Runtime.InvalidEntrypoint",
            "Error: Couldn't find valid bootstrap(s): [{task}/bootstrap {opt}/bootstrap]",
        ),
        ("not a program", "Runtime.InvalidEntrypoint", "Error: fork/exec {task}/bootstrap: exec format error"),
        ("#!/bin/sh\nexit 1\n", "Runtime.ExitError", "Error: Runtime exited with error: exit status 1"),
        ("#!/bin/sh\nexit 0\n", "Runtime.ExitError", "Error: Runtime exited without providing a reason"),
        ("#!/bin/sh\nkill -9 $$\n", "Runtime.ExitError", "Error: Runtime exited with error: signal: killed"),
    ],
)
def test_a_runtime_that_never_asks_for_an_event(
    bridge: Callable[..., Bridge], bootstrap: str | None, error_type: str, message: str
) -> None:
    """The start fails, with Lambda's words, and the bridge ends with 1."""
    worker = bridge(bootstrap)
    frame = worker.receive()
    wanted = message.format(task=worker.folder, opt=worker.folder.parent / "opt")
    assert (frame.kind, frame.head["errorType"], frame.head["errorMessage"]) == (FAILED, error_type, wanted)
    assert worker.end() == 1


def test_a_file_that_may_not_be_executed(bridge: Callable[..., Bridge]) -> None:
    """That is Lambda's permission denied."""
    worker = bridge("#!/bin/sh\n", mode=0o644)
    frame = worker.receive()
    assert frame.head["errorMessage"] == f"Error: fork/exec {worker.folder}/bootstrap: permission denied"


def test_a_bootstrap_in_a_layer(bridge: Callable[..., Bridge]) -> None:
    """/opt/bootstrap is used where the code has none, with the layer's bin and lib on the search paths."""
    worker = bridge(
        None, {"/bootstrap": "#!/bin/sh\necho paths $PATH $LD_LIBRARY_PATH $WISP_WORKER_FD\nexec sleep 1000\n"}
    )
    path, libraries = worker.wait_log("paths ").split()
    opt = str(worker.folder.parent / "opt")
    assert path.endswith(f":{opt}/bin")
    assert libraries == f"{worker.folder}/lib:{opt}/lib"


def test_an_init_error_ends_the_start(bridge: Callable[..., Bridge]) -> None:
    """What the runtime reports is told as it was said, and the runtime gets 202 before the end."""
    worker = bridge()
    body = json.dumps({"errorType": "Bad", "errorMessage": "no module", "stackTrace": ["a"]})
    accepted = worker.client().call("POST", "/2018-06-01/runtime/init/error", body)
    assert accepted.status == 202
    frame = worker.receive()
    assert frame[:3] == (FAILED, 0, {"errorType": "Bad", "errorMessage": "no module", "stackTrace": ["a"]})
    assert worker.end() == 1


def test_an_init_error_after_the_start_is_refused(bridge: Callable[..., Bridge]) -> None:
    """There is no way back from Ready."""
    worker = bridge()
    worker.polling()
    assert worker.client().call("POST", "/2018-06-01/runtime/init/error", "{}").error == (403, "InvalidStateTransition")


def test_the_end_leaves_nothing_behind(bridge: Callable[..., Bridge]) -> None:
    """At STOP and at the end of the socket the runtime gets SIGTERM, and SIGKILL if that doesn't end it."""
    for stop in (True, False):
        worker = bridge(
            "#!/bin/sh\ntrap 'echo told' TERM\necho pid $$\necho api $AWS_LAMBDA_RUNTIME_API\nwhile :; do sleep 0.05; done\n"
        )
        worker.polling()
        pid = int(worker.wait_log("pid "))
        if stop:
            worker.send(STOP, 0)
        else:
            worker.socket.shutdown(2)
        worker.wait_log("told")
        assert worker.end() == 0
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"WISP_SIGNATURE": "http"}, "signature"),
        ({"WISP_MAX_BODY_BYTES": "much"}, "WISP_MAX_BODY_BYTES"),
    ],
)
def test_a_wrong_setting_is_named(bridge: Callable[..., Bridge], env: dict[str, str], word: str) -> None:
    """The start fails with a sentence that names it."""
    frame = bridge(**env).receive()
    assert frame.kind == FAILED
    assert word in frame.head["errorMessage"]
