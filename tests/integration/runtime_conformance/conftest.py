"""The table's functions in each language, served by the front as in a pod; one process for all rows that can share it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.node import worker_command
from unit.runtime.conftest import FunctionProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., FunctionProcess]

HERE = Path(__file__).parent
LANGUAGES = ("python", "nodejs")


def environment(language: str) -> dict[str, str]:
    """What the image of a language sets."""
    return {"WISP_WORKER": shlex.join(worker_command())} if language == "nodejs" else {}


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Serve a handler of the table; the same one again where nothing differs."""
    running: dict[tuple[object, ...], FunctionProcess] = {}

    def serve(language: str, handler: str, **env: str) -> FunctionProcess:
        key = (language, handler, *sorted(env.items()))
        if key not in running:
            folder = tmp_path_factory.mktemp("function") / "task"
            folder.mkdir()
            shutil.copy(HERE / f"functions.{'mjs' if language == 'nodejs' else 'py'}", folder)
            settings = {"WISP_HANDLER": f"functions.{handler}", **environment(language), **env}
            running[key] = FunctionProcess(folder, settings, ("-m", "wisp_runtime"), ())
        return running[key].ready()

    yield serve
    for function in running.values():
        function.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Serve]:
    """Start code that a row brings itself, whether it can be served or not."""
    started: list[FunctionProcess] = []

    def start(language: str, code: str, **env: str) -> FunctionProcess:
        folder = tmp_path / "task"
        folder.mkdir()
        (folder / ("app.mjs" if language == "nodejs" else "app.py")).write_text(code)
        settings = {"WISP_HANDLER": "app.handler", **environment(language), **env}
        started.append(FunctionProcess(folder, settings, ("-m", "wisp_runtime"), ()))
        return started[-1]

    yield start
    for function in started:
        function.stop()
