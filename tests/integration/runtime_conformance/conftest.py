"""The table's functions in each language, served by the front as in a pod; one process for all rows that can share it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.node import node, worker_command
from integration.runtime_api.test_node_client import client
from unit.runtime.conftest import FunctionProcess
from unit.runtime_api.conftest import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., FunctionProcess]

HERE = Path(__file__).parent
LANGUAGES = ("python", "nodejs", "in-place")
"""in-place: Python in the process that serves its callers."""
CLIENTS = {"awslambdaric": "python", "aws-lambda-ric": "nodejs"}
"""AWS' clients of the Runtime API, unmodified, behind the bridge; and the language of their functions."""
SUFFIXES = {"python": "py", "nodejs": "mjs", "in-place": "py"}


def environment(language: str, folder: Path) -> dict[str, str]:
    """What the image of a language sets; a client is the bootstrap of a layer."""
    if language == "in-place":
        return {"WISP_ISOLATION": "none"}
    if language not in CLIENTS:
        return {"WISP_WORKER": shlex.join(worker_command())} if language == "nodejs" else {}
    command = [sys.executable, "-m", "awslambdaric"] if language == "awslambdaric" else [str(node()), str(client())]
    write(folder.parent / "opt/bootstrap", f"#!/bin/sh\nexec {shlex.join(command)} $_HANDLER\n", 0o755)
    return {
        "WISP_WORKER": f"{sys.executable} -m wisp_runtime.bridge",
        "WISP_OPT_DIR": str(folder.parent / "opt"),
        "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x" if language == "aws-lambda-ric" else "AWS_Lambda_python3.13",
    }


def suffix(language: str) -> str:
    """What a language's files end in."""
    return SUFFIXES[CLIENTS.get(language, language)]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Serve a handler of the table; the same one again where nothing differs."""
    running: dict[tuple[object, ...], FunctionProcess] = {}

    def serve(language: str, handler: str, **env: str) -> FunctionProcess:
        key = (language, handler, *sorted(env.items()))
        if key not in running:
            folder = tmp_path_factory.mktemp("function") / "task"
            folder.mkdir()
            shutil.copy(HERE / f"functions.{suffix(language)}", folder)
            settings = {"WISP_HANDLER": f"functions.{handler}", **environment(language, folder), **env}
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
        (folder / f"app.{suffix(language)}").write_text(code)
        settings = {"WISP_HANDLER": "app.handler", **environment(language, folder), **env}
        started.append(FunctionProcess(folder, settings, ("-m", "wisp_runtime"), ()))
        return started[-1]

    yield start
    for function in started:
        function.stop()
