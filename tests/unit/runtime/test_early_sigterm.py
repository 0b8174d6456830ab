"""SIGTERM before the loop runs: process 1 has no default for it, so what nobody waits for is lost, or seen too late."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unit.runtime.conftest import FunctionProcess

SIGNAL_BEFORE = """
import os, signal
from wisp_runtime import __main__ as runtime, fetching
def told(call):
    def wrapped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return call(*arguments)
    return wrapped
{place} = told({place})
runtime.main()
"""


@pytest.fixture
def silent_store() -> Iterator[socket.socket]:
    """A code store that answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(120)
        yield listener


def code_env(store: socket.socket, folder: Path) -> dict[str, str]:
    """Variables of a function whose code is there."""
    token = folder / "token"
    token.write_text("token")
    url = "http://{}:{}/v1/code/tests".format(*store.getsockname())
    return {"WISP_CODE_URL": url, "WISP_CODE_TOKEN": str(token), "WISP_CODE": "0" * 64}


@pytest.mark.parametrize("place", ["runtime.bring", "runtime.Settings", "runtime.Server", "fetching.os.fork"])
def test_before_the_loop(
    start: Callable[..., FunctionProcess], silent_store: socket.socket, tmp_path: Path, place: str
) -> None:
    """Wherever the start is, the process ends in order, by itself."""
    env = code_env(silent_store, tmp_path) if place == "fetching.os.fork" else {}
    code = "def handler(event, context): ..."
    function = start(code, interpreter=("-c", SIGNAL_BEFORE.format(place=place)), **env)
    assert function.exit_status() == 0


def test_while_code_is_fetched(
    start: Callable[..., FunctionProcess], silent_store: socket.socket, tmp_path: Path
) -> None:
    """The process ends and leaves no other, however long the store is silent."""
    function = start({}, **code_env(silent_store, tmp_path))
    connection, _ = silent_store.accept()
    with connection:
        connection.settimeout(120)
        function.process.send_signal(signal.SIGTERM)
        assert function.exit_status() == 0
        while connection.recv(65536):  # until the process that asks has ended, too
            pass
