"""What the command's tests share."""

import os
from pathlib import Path

import pytest
from fixtures.cli import Wisp
from fixtures.node import node


@pytest.fixture
def wisp(tmp_path: Path) -> Wisp:
    """The command without a cluster."""
    return Wisp(tmp_path / "absent")


@pytest.fixture(params=["python3.13", "nodejs24", "provided"])
def template(request: pytest.FixtureRequest, wisp: Wisp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a function `greeter` that `init` wrote for a runtime, which this machine has."""
    monkeypatch.setenv("PATH", f"{node().parent}:{os.environ['PATH']}")
    folder = tmp_path / "greeter"
    assert wisp("init", str(folder), "--runtime", request.param).code == 0
    return folder
