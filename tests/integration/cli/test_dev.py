"""`wisp dev`: what is saved stands on the cluster; the operator's part, the status, is played by the test."""

import signal
from pathlib import Path

from fixtures.cli import HELLO, READY, Operator, Wisp, printing, write_project
from fixtures.process import wait_until

STEPS = f"{HELLO}    rollout: {{steps: [50, 100], intervalSeconds: 60}}\n"


def answering(text: str) -> str:
    """Code that answers a text."""
    return f"def handler(event, context):\n    return {text!r}\n"


def test_each_save_is_brought_until_it_is_interrupted(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """The folder is deployed at once and at a save, without the steps of its roll-out; SIGTERM, as Ctrl-C, ends it with 0 and leaves the function."""
    folder = write_project(tmp_path, STEPS, answering("one"))
    running = wisp.start("dev", folder)
    with printing(running, "stderr") as told:
        operator.judge("functions", "hello", READY, url="http://hello.example")
        wait_until(lambda: any("hello ready" in line and "http://hello.example" in line for line in told), "ready")
        assert "rollout" not in operator.get("functions", "hello")["spec"]
        write_project(tmp_path, STEPS, answering("two"))
        wait_until(lambda: brought(operator) == answering("two"), "the save is brought")
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert "on the cluster stays function/hello" in "".join(told)
    assert brought(operator) == answering("two")


def test_a_save_that_fails_is_told_and_the_next_one_brought(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """A mistake in wisp.yaml, and code that doesn't start, are told; what is saved then is brought."""
    folder = write_project(tmp_path, HELLO, answering("one"))
    with printing(wisp.start("dev", folder), "stderr") as told:
        operator.judge("functions", "hello", READY)
        write_project(tmp_path, HELLO.replace("handler:", "handlr:"), answering("two"))
        wait_until(lambda: any("did you mean handler?" in line for line in told), "the mistake is told")
        write_project(tmp_path, HELLO, answering("three"))
        wait_until(lambda: brought(operator) == answering("three"), "the next save is brought")
        failed = ("Ready", "False", "HandlerImportFailed", "no dependency")
        operator.judge("functions", "hello", failed, ("CodeReady", *failed[1:]))
        wait_until(lambda: any("HandlerImportFailed: no dependency" in line for line in told), "the failure is told")
        write_project(tmp_path, HELLO, answering("four"))
        wait_until(lambda: brought(operator) == answering("four"), "and the one after it")


def test_a_save_while_another_is_awaited_is_brought_at_once(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """Nobody waits for a revision that is outdated: without any status the second save is brought."""
    folder = write_project(tmp_path, HELLO, answering("one"))
    with printing(wisp.start("dev", folder), "stderr"):
        wait_until(lambda: operator.get("functions", "hello") is not None, "the first is brought")
        write_project(tmp_path, HELLO, answering("two"))
        wait_until(lambda: brought(operator) == answering("two"), "the second is brought")


def test_a_folder_without_wisp_yaml_is_refused(wisp: Wisp, tmp_path: Path) -> None:
    """There is nothing to bring, and a wrong folder is the likeliest reason: exit code 2."""
    done = wisp("dev", str(tmp_path))
    assert (done.code, "wisp init" in done.err) == (2, True)


def brought(operator: Operator) -> str:
    """The code of hello on the cluster."""
    code: str = operator.get("functions", "hello")["spec"]["code"]["files"]["app.py"]
    return code
