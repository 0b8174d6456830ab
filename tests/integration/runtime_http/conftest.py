"""A function process as the unit tests have it, and one that the tests of a module share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unit.runtime.conftest import FunctionProcess, serve, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["serve", "start"]


@pytest.fixture(scope="module")
def serve_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., FunctionProcess]]:
    """Serve code for all tests of a module that leave it as it is."""
    started: list[FunctionProcess] = []

    def serve_shared(code: str, **env: str) -> FunctionProcess:
        folder = tmp_path_factory.mktemp("function") / "task"
        folder.mkdir()
        (folder / "app.py").write_text(code)
        started.append(FunctionProcess(folder, {"WISP_HANDLER": "app.handler", **env}, ("-m", "wisp_runtime"), ()))
        return started[-1].ready()

    yield serve_shared
    for function in started:
        function.stop()
