"""A process of the node is recognised by its mark, whatever was killed before; one without it is never signalled."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wisp_cluster import processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of this test alone: its mark is shared with no real node. All processes end with the test."""
    monkeypatch.setenv("WISP_STATE", str(tmp_path))
    yield tmp_path
    processes.stop(processes.find_all(), grace_seconds=0)


def start(name: str, state: Path, revision: str = "1") -> processes.Found:
    """Start a sleeping daemon and wait until it can be seen."""
    processes.start(name, SLEEP, revision=revision, log=state / "log", netns=None)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := processes.find(name, Path(sys.executable).name):
            return found
        time.sleep(0.01)
    raise AssertionError(f"{name} was not found")


def test_daemon_is_found_by_name_with_its_revision(own_state: Path) -> None:
    """A started daemon is found again without any record of it, and tells what it was started with."""
    found = start("one", own_state, revision="r7")
    assert (found.name, found.revision) == ("one", "r7")
    assert processes.find("two", found.program) is None


def test_stop_ends_exactly_the_process_found(own_state: Path) -> None:
    """Stopping one daemon leaves the other."""
    one, two = start("one", own_state), start("two", own_state)
    processes.stop([one], grace_seconds=10)
    assert processes.find_all() == [two]


def test_process_of_another_node_is_not_ours(own_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with another state directory neither sees nor ends this one's processes."""
    found = start("one", own_state)
    monkeypatch.setenv("WISP_STATE", str(tmp_path / "other"))
    assert processes.find_all() == []
    processes.send([found], signal.SIGKILL)
    monkeypatch.setenv("WISP_STATE", str(own_state))
    assert processes.find_all() == [found]


def test_reused_pid_is_not_signalled() -> None:
    """A process that has the pid of a daemon that is gone, but not its mark, is left alone."""
    with subprocess.Popen(SLEEP) as stranger:
        remembered = processes.Found(stranger.pid, "one", Path(sys.executable).name, "1")
        processes.stop([remembered], grace_seconds=0.2)
        assert stranger.poll() is None
        stranger.kill()


def test_daemon_that_ignores_sigterm_is_killed(own_state: Path) -> None:
    """After the grace the kernel ends it."""
    ready = own_state / "ready"
    code = "import pathlib, signal, sys, time; signal.signal(15, signal.SIG_IGN); pathlib.Path(sys.argv[1]).touch(); time.sleep(120)"
    processes.start("deaf", [sys.executable, "-c", code, ready], revision="1", log=own_state / "log", netns=None)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.find_all()
    processes.stop(processes.find_all(), grace_seconds=0.2)
    assert processes.find_all() == []


def test_vanished_process_is_skipped(own_state: Path) -> None:
    """Signalling what ended meanwhile is no error."""
    found = start("one", own_state)
    processes.stop([found], grace_seconds=10)
    processes.send([found], signal.SIGTERM)
