"""Node.js workers on code that a test writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures.node import worker_command
from fixtures.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start workers, ready or not, and end them after the test."""
    started: list[WorkerProcess] = []

    def start(code: str | dict[str, str], **environment: str) -> WorkerProcess:
        folder = tmp_path / f"function-{len(started)}" / "task"
        folder.mkdir(parents=True)
        for name, text in (code if isinstance(code, dict) else {"app.mjs": code}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        started.append(WorkerProcess(worker_command(), folder, environment))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def run(start: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Start workers and wait until they are ready."""

    def run(code: str | dict[str, str], **environment: str) -> WorkerProcess:
        worker = start(code, **environment)
        worker.ready()
        return worker

    return run
