"""What a person reads while a step runs and when it fails."""

import re
import sys
from pathlib import Path

import pytest
from wisp_cluster.progress import ClusterError, Steps, run, wait_for


def test_steps_count_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Each step is one line with its number, the total and the elapsed time, apart from the command's own output."""
    steps = Steps(2)
    for name in ("one", "two"):
        with steps.step(name):
            pass
    shown = capsys.readouterr()
    assert re.fullmatch(r"\[1/2\] one … 0 s\n\[2/2\] two … 0 s\n", shown.err)
    assert shown.out == ""


def test_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """The report holds what failed, the last lines, the log's path and what to do, and not the whole log."""
    log = tmp_path / "x.log"
    script = "[print(f'line {n}') for n in range(1000)]; raise SystemExit(3)"
    with pytest.raises(ClusterError) as failure:
        run([sys.executable, "-c", script], log=log, what="counting", hint="count on")
    report = failure.value.report()
    assert "counting failed with status 3" in report
    assert "line 999" in report
    assert "line 500" not in report
    assert str(log) in report
    assert "count on" in report


def test_missing_program_is_named() -> None:
    """A program that is not installed is an error of ours, not a traceback."""
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_wait_ends_with_what_was_missing() -> None:
    """A wait that runs out says what it was still waiting for."""
    with pytest.raises(ClusterError, match=r"the door was not ready within 0 s: it is shut"):
        wait_for(lambda: "it is shut", seconds=0.01, what="the door")
