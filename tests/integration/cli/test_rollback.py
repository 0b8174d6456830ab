"""`wisp rollback` sends requests to an earlier revision until the next deploy."""

from pathlib import Path

import pytest
from fixtures.cli import HELLO, READY, Operator, Wisp, write_project


def past(name: str, *, started: bool = True) -> dict[str, object]:
    """An entry of a function's history."""
    return {"revision": name, "created": "2026-01-01T00:00:00Z", "started": started}


@pytest.fixture
def updated(wisp: Wisp, operator: Operator, tmp_path: Path) -> Wisp:
    """The command, with a function that has had four revisions, of which the third never started."""
    assert wisp("deploy", write_project(tmp_path, HELLO), "--no-wait").code == 0
    history = [past("hello-4"), past("hello-3", started=False), past("hello-2"), past("hello-1")]
    traffic = [{"revision": "hello-4", "percent": 90}, {"revision": "hello-1", "percent": 10}]
    operator.judge("functions", "hello", READY, history=history, traffic=traffic)
    return wisp


def test_back_to_the_one_before_until_the_next_deploy(updated: Wisp, operator: Operator, tmp_path: Path) -> None:
    """Without a name it is the newest that has started before the one that serves; deploy goes on with what the folder holds."""
    done = updated("rollback", "hello")
    assert (done.code, done.out) == (0, "function/hello goes back to hello-2, until the next deploy\n")
    assert operator.get("functions", "hello")["spec"]["pin"] == "hello-2"
    done = updated("deploy", str(tmp_path), "--no-wait")
    assert done.code == 0
    assert "was rolled back to hello-2: not any more" in done.err
    assert "pin" not in operator.get("functions", "hello")["spec"]


def test_to_a_named_one(updated: Wisp) -> None:
    """--to names any revision that is there."""
    assert updated("rollback", "hello", "--to", "hello-1", "-o", "json").json()["spec"]["pin"] == "hello-1"
    done = updated("rollback", "hello", "--to", "hello-9")
    assert done.code == 1
    assert "it has hello-4, hello-3, hello-2, hello-1" in done.err


def test_nothing_to_go_back_to(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """A function that is not there, that serves nothing yet, or with one revision alone is said so."""
    assert "there is no function hello" in wisp("rollback", "hello").err
    assert wisp("deploy", write_project(tmp_path, HELLO), "--no-wait").code == 0
    assert "serves no revision yet" in wisp("rollback", "hello").err
    traffic = [{"revision": "hello-1", "percent": 100}]
    operator.judge("functions", "hello", READY, history=[past("hello-1")], traffic=traffic)
    assert "no revision before hello-1" in wisp("rollback", "hello").err


def test_restart(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """`wisp restart` asks for a new revision of the same content, each time anew."""
    assert "there is no function hello" in wisp("restart", "hello").err
    assert wisp("deploy", write_project(tmp_path, HELLO), "--no-wait").code == 0
    before = operator.get("functions", "hello")["spec"]
    first = wisp("restart", "hello", "-o", "json").json()["metadata"]["annotations"]["wisp.dev/restartedAt"]
    assert wisp("restart", "hello").code == 0
    after = operator.get("functions", "hello")
    assert after["metadata"]["annotations"]["wisp.dev/restartedAt"] > first
    assert after["spec"] == before
