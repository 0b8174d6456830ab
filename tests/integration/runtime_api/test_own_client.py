"""An image that brings its own client of the Runtime API: front and client as the two containers of a pod, each a process group of its own.

The client is awslambdaric, unmodified. The test is the kubelet: it starts the client's container again whenever that has ended, and ends
it when the probe of its life fails, as the operator's manifest tells it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from fixtures.process import free_port, wait_until
from unit.runtime.conftest import DEADLINE, in_time, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unit.runtime.conftest import FunctionProcess

    Pod = Callable[..., "TwoContainers"]

__all__ = ["start"]

APP = """
import os, time

def handler(event, context):
    if event == "raise":
        raise ValueError("no")
    if event == "late":
        time.sleep(3)  # its time is 2 s, and the front waits for 2 s more
    if event == "hang":
        time.sleep(3600)
    if event == "exit":
        os._exit(3)
    return {"event": event, "pid": os.getpid(), "id": context.aws_request_id}
"""


class TwoContainers:
    """The pod: its front, and its client under a kubelet."""

    def __init__(self, front: FunctionProcess, address: str, folder: Path, *, probed: bool) -> None:
        """Join a front that has started with a client that starts now."""
        self.probed = probed
        self.front = front
        self.folder = folder
        self.restarts = -1
        self.killed = 0
        self._env = os.environ | {"AWS_LAMBDA_RUNTIME_API": address, "AWS_LAMBDA_FUNCTION_NAME": "hello"}
        self._gone = threading.Event()
        self.client: subprocess.Popen[bytes] | None = None
        self._kubelet = threading.Thread(target=self._run, daemon=True)
        self._kubelet.start()

    def _run(self) -> None:
        while not self._gone.wait(0.2):
            if self.client is None or self.client.poll() is not None:
                self.restarts += 1
                command = [sys.executable, "-m", "awslambdaric", "app.handler"]
                self.client = subprocess.Popen(command, env=self._env, cwd=self.folder, process_group=0)
            elif self.probed and self.front.request("/_wisp/life").status != 200:
                self.killed += 1
                self.kill()

    def kill(self) -> None:
        """End the client's container."""
        assert self.client is not None
        os.killpg(self.client.pid, signal.SIGKILL)
        self.client.wait(DEADLINE)

    @property
    def ready(self) -> bool:
        """Whether Knative would send it requests."""
        return self.front.request("/_wisp/health").status == 200

    def wait_ready(self) -> TwoContainers:
        """Wait until it is."""
        wait_until(lambda: self.ready, "the pod is ready", DEADLINE)
        return self

    def end(self) -> None:
        """Stop the kubelet and the client."""
        self._gone.set()
        self._kubelet.join(DEADLINE)
        if self.client is not None and self.client.poll() is None:
            self.kill()


@pytest.fixture
def pod(start: Callable[..., FunctionProcess], tmp_path: Path) -> Iterator[Pod]:
    """Start pods; ``client=False`` leaves that container out, ``probed=False`` its probe, for now."""
    running: list[TwoContainers] = []

    def pod(app: str = APP, *, client: bool = True, probed: bool = True, **env: str) -> TwoContainers:
        address = f"127.0.0.1:{free_port()}"
        settings = {"WISP_WORKER": f"{sys.executable} -m wisp_runtime.bridge", "WISP_RUNTIME_API": address}
        front = start({}, "bootstrap", **settings | env).ready()
        (tmp_path / "app.py").write_text(app)
        if client:
            # The client's container starts after the front's, which listens by then nearly always; the first one here may be too early, too.
            running.append(TwoContainers(front, address, tmp_path, probed=probed))
            return running[-1]
        made = object.__new__(TwoContainers)
        made.front = front
        return made

    yield pod
    for made in running:
        made.end()


def test_events_and_errors(pod: Pod) -> None:
    """The client that the image brings serves the events, and its errors are the function's."""
    function = pod().wait_ready().front
    answer = function.invoke({"a": 1})
    assert (answer.status, answer.json["event"], answer.json["id"]) == (
        200,
        {"a": 1},
        answer.headers["wisp-request-id"],
    )
    report = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == answer.json["id"])
    assert report["metrics"]["maxMemoryUsedMB"] == 0
    assert "initDurationMs" not in report["metrics"]
    failed = function.invoke("raise")
    assert (failed.status, failed.headers["wisp-function-error"], failed.json["errorType"]) == (
        500,
        "Unhandled",
        "ValueError",
    )
    assert function.invoke(2).json["pid"] == answer.json["pid"]


def test_a_late_answer_is_dropped(pod: Pod) -> None:
    """The caller has the timeout; the client that is nearly done lives on and serves the event that has waited for it."""
    running = pod(probed=False, WISP_TIMEOUT_SECONDS="2").wait_ready()
    pid = in_time(lambda: running.front.invoke(1)).json["pid"]
    late = running.front.invoke("late")
    assert (late.status, late.headers["wisp-function-error"]) == (504, "Timeout")
    answer = in_time(lambda: running.front.invoke(2))
    assert (answer.json["event"], answer.json["pid"]) == (2, pid)
    assert answer.json["id"] == answer.headers["wisp-request-id"]


def test_a_client_that_hangs_is_started_anew(pod: Pod) -> None:
    """The pod isn't ready, the probe of the client's life fails once, and the next event is served by a new client."""
    running = pod(probed=False, WISP_TIMEOUT_SECONDS="4").wait_ready()
    pid = in_time(lambda: running.front.invoke(1)).json["pid"]
    assert running.front.invoke("hang").status == 504
    assert not running.ready
    running.probed = True
    answer = running.front.invoke(2)
    assert (answer.status, answer.json["event"]) == (200, 2)
    assert answer.json["pid"] != pid
    assert running.killed == 1
    assert running.ready


def test_a_crash_costs_its_own_event(pod: Pod) -> None:
    """When the client's container has been started again, the event that it had fails, once; the next one is served."""
    running = pod().wait_ready()
    pid = running.front.invoke(1).json["pid"]
    answer = running.front.invoke("exit")
    assert (answer.status, answer.json["errorType"]) == (500, "Runtime.ExitError")
    assert running.front.invoke(2).json["pid"] != pid


def test_a_client_that_dies_between_events(pod: Pod) -> None:
    """The pod isn't ready until another one asks for an event, and no event is given to the dead one."""
    running = pod().wait_ready()
    pid = running.front.invoke(1).json["pid"]
    running.kill()
    wait_until(lambda: running.restarts > 0 and running.ready, "the pod is ready again", DEADLINE)
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(running.front.invoke, range(8)))
    assert {answer.status for answer in answers} == {200}
    assert pid not in {answer.json["pid"] for answer in answers}


def test_a_start_that_fails_is_tried_again(pod: Pod) -> None:
    """The front stays, not ready, with the client's error in its log; what is put right serves."""
    running = pod("import nothing_like_it")
    running.front.log(lambda line: line["level"] == "ERROR" and "nothing_like_it" in line["message"])
    assert not running.ready
    (running.folder / "app.py").write_text(APP)
    assert running.wait_ready().front.invoke(1).status == 200


@pytest.mark.parametrize("address", ["0.0.0.0:80", "127.0.0.1:x", "9001"])
def test_a_wrong_address_is_named(start: Callable[..., FunctionProcess], address: str) -> None:
    """The front doesn't start."""
    function = start({}, "bootstrap", WISP_WORKER="true", WISP_RUNTIME_API=address)
    assert function.exit_status() == 1
    assert "WISP_RUNTIME_API must be 127.0.0.1:PORT" in function.termination_log.read_text()


def test_nobody_waits_for_a_client_that_does_not_come(pod: Pod) -> None:
    """After the time of a start the callers are sent away, in a way that lets the router try again."""
    front = pod(client=False, WISP_INIT_TIMEOUT_SECONDS="0.2").front
    for _ in range(2):
        answer = front.invoke(1)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "wisp-request-id" not in answer.headers
        assert "wisp-function-error" not in answer.headers
    assert front.request("/_wisp/life").status == 200
