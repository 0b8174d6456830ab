"""Many callers, crashes, timeouts, errors and large bodies at once: each gets its own answer, and nothing is left over."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import Answer, FunctionProcess

SECONDS = float(os.environ.get("WISP_TEST_LOAD_SECONDS", "4"))
LEAST = 20  # events of each caller, however slow the machine is
CODE = """
import os, time
def handler(event, context):
    kind = event["kind"]
    print("line of", event["id"])
    if kind == "exit":
        os._exit(1)
    if kind == "sleep":
        time.sleep(60)
    if kind == "raise":
        raise ValueError(event["id"])
    if kind == "stream":
        return iter_of(event["id"])
    return [event["id"], event["body"]]

def iter_of(text):
    for _ in range(50):
        yield text
"""


def is_right(kind: str, answer: Answer, name: str, body: str) -> bool:
    """Whether an answer is the one of this event; on a busy machine any of them may be late."""
    if answer.status == 504:
        return f" {name} Task timed out" in answer.json["errorMessage"]
    if kind == "echo":
        return bool(answer.json == [name, body])
    if kind == "stream":
        return answer.body == name.encode() * 50
    message: str = answer.json["errorMessage"]
    if kind == "raise":
        return message == name
    if kind == "exit":
        return message.startswith(f"RequestId: {name} Error: Runtime exited")
    return False


def caller(function: FunctionProcess, seed: int, until: float, seen: list[str], wrong: list[Any]) -> None:
    """Send events of all kinds until the time is over, and some at least; note each answer that is not the event's own."""
    source = random.Random(seed)
    number = 0
    while time.monotonic() < until or number < LEAST:
        number += 1
        name = f"{seed}-{number}"
        kind = source.choices(["echo", "raise", "stream", "exit", "sleep"], [60, 15, 15, 8, 2])[0]
        body = "x" * source.choice([1, 1000, 300_000])
        answer = function.invoke({"id": name, "kind": kind, "body": body}, **{"wisp-request-id": name})
        seen.append(kind)
        if not is_right(kind, answer, name, body) or answer.headers["wisp-request-id"] != name:
            wrong.append((name, kind, answer.status, answer.body[:200]))


def test_mixed_load(serve: Callable[..., FunctionProcess]) -> None:
    """No answer is mixed up, each invocation has its START and REPORT, and descriptors, processes and memory are back."""
    function = serve(CODE, WISP_CONCURRENCY="4", WISP_TIMEOUT_SECONDS="0.5")
    folder = Path(f"/proc/{function.process.pid}")
    function.invoke({"id": "first", "kind": "echo", "body": ""}, **{"wisp-request-id": "first"})

    def resident() -> int:
        return int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = len(list((folder / "fd").iterdir()))
    seen: list[str] = []
    wrong: list[Any] = []
    until = time.monotonic() + SECONDS
    threads = [threading.Thread(target=caller, args=(function, seed, until, seen, wrong)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert {"echo", "raise", "stream", "exit"} <= set(seen)
    reports = function.log(lambda line: line.get("type") == "platform.report" and line["requestId"].startswith("7-"))
    assert reports
    until = time.monotonic() + 60
    while len(list((folder / "fd").iterdir())) > before + 2 * 3:  # a socket and a log for each of three more workers
        assert time.monotonic() < until
        time.sleep(0.05)
    assert resident() < 40 << 20

    def ids(kind: str) -> list[str]:
        return sorted(line["requestId"] for line in function.lines if line.get("type") == kind)

    until = time.monotonic() + 60
    while ids("platform.start") != ids("platform.report"):  # an answer doesn't wait for the log
        assert time.monotonic() < until
        time.sleep(0.2)
    for line in function.lines:
        if line["message"].startswith("line of "):
            assert line["message"] == f"line of {line['requestId']}"
