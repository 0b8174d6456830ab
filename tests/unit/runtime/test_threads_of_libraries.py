"""A library's threads that end before a fork, as those of NumPy's OpenBLAS do, don't keep workers from being forked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

CODE = """
import ctypes, os
imported = os.getpid()
libc = ctypes.CDLL(None)
thread = ctypes.c_ulong()

def start():
    libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)

@ctypes.CFUNCTYPE(None)
def end():
    if thread.value:
        libc.pthread_cancel(thread)
        libc.pthread_join(thread, None)
        thread.value = 0

start()
if ENDS:
    libc.__register_atfork(end, None, None, None)

def handler(event, context):
    return imported == os.getpid()
"""
BY_ITSELF = "Each worker imports the handler by itself, because the import left a thread running"


@pytest.mark.parametrize("ends", [True, False])
def test_a_thread_that_ends_before_a_fork_allows_forks(serve: Callable[..., FunctionProcess], *, ends: bool) -> None:
    """Workers are forked from the process that imported the handler, unless its thread would be missing in them."""
    function = serve(CODE.replace("ENDS", str(ends)))
    assert function.invoke({}).json is not ends
    if ends:
        assert not any(BY_ITSELF in line for line in function.raw_lines)
    else:
        function.raw_log(lambda line: BY_ITSELF in line)
