"""When a function starts anew for its Secrets: not too early, not for nothing, and ever later where it can't."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.mounted import Mounted
from wisp_runtime import renewal
from wisp_runtime.variables import Variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLACE = "secrets/s"


class World:
    """A function's processes of which none is real, and a clock that jumps from look to look."""

    def __init__(self, mounted: Mounted, *, begins: str, files: str) -> None:
        """Start a container with a variable, and with files that may say something else."""
        self.now = 0.0
        self.tried: list[tuple[float, str | None]] = []
        self.mounted = mounted
        self.ready = True
        self.leaving: list[Any] = []
        self.children = SimpleNamespace(learn=lambda *_: None)
        self.function = SimpleNamespace(memory=SimpleNamespace(begin=lambda: None))
        self._looks: list[Callable[[], None]] = []
        self.write(files)
        os.environ["KEY"] = begins
        told = {"env": [{"name": "KEY", "at": PLACE, "key": "key"}]}
        env = {"KEY": begins, "WISP_ENV": json.dumps(told), "WISP_ENV_DIR": str(mounted.folder)}
        self.renewal = renewal.Renewal(self, self, Variables(env))  # type: ignore[arg-type]

    def write(self, value: str) -> None:
        """Change the Secret's file."""
        self.mounted.write(PLACE, key=value)

    def after(self, _: float, call: Callable[[], None]) -> None:
        """Be the loop."""
        self._looks.append(call)

    def spawn(self, *, anew: bool) -> Any:
        """Take note of a start, which fails."""
        assert anew
        self.tried.append((self.now, os.environ.get("KEY")))
        raise OSError("none left")

    def go(self, seconds: int) -> list[tuple[float, str | None]]:
        """Let time pass; return what was tried so far."""
        for _ in range(seconds):
            self.now += 1
            looks, self._looks = self._looks, []
            for look in looks:
                look()
        return self.tried


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Make one; its clock is the module's, and the environment is as before after the test."""
    monkeypatch.setenv("KEY", "")
    worlds: list[World] = []
    monkeypatch.setattr(renewal, "time", SimpleNamespace(monotonic=lambda: worlds[-1].now if worlds else 0.0))

    def make(**values: str) -> World:
        worlds.append(World(Mounted(tmp_path / "env"), **values))
        return worlds[-1]

    return make


def test_files_that_are_behind(world: Callable[..., World]) -> None:
    """Where the environment was newer than the files nothing is started, neither before nor after they follow."""
    made = world(begins="new", files="old")
    assert not made.go(100)
    made.write("new")
    assert not made.go(1000)


def test_files_that_were_ahead_from_the_start(world: Callable[..., World]) -> None:
    """A difference that outlasts the kubelet's period is a change."""
    made = world(begins="old", files="new")
    assert not made.go(int(renewal.CATCH_UP_SECONDS) - 1)
    assert made.go(2) == [(renewal.CATCH_UP_SECONDS, "new")]


def test_files_that_change_still(world: Callable[..., World]) -> None:
    """Nothing is started before the files stand still, and only the process that is started has the new value."""
    made = world(begins="0", files="0")
    for value in "12345":
        made.write(value)
        assert not made.go(1)
    assert [value for _, value in made.go(1)] == ["5"]
    assert os.environ["KEY"] == "0"


def test_later_and_later(world: Callable[..., World]) -> None:
    """What can't be started is tried again ever later, at once after a change, and no more where the old value is back."""
    made = world(begins="0", files="0")
    made.write("1")
    times = [at for at, _ in made.go(4000)]
    pauses = [later - at for at, later in pairwise(times)]
    assert pauses[:4] == [10, 20, 40, 80]
    assert set(pauses[6:]) == {600}
    made.write("2")
    assert made.go(2)[-1][1] == "2"
    count = len(made.tried)
    made.write("0")
    assert len(made.go(5000)) == count
