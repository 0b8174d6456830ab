"""The Python function's own side: import the handler, then be the zygote that forks workers (``zygote``), or a worker.

Invariant: this runs in processes forked from the front, and never returns to it. A process forks only if the import left
nothing that a fork would break: another thread, a socket, an event loop, a child.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _thread import start_new_thread

from wisp_runtime import logs
from wisp_runtime.errors import InitError
from wisp_runtime.frames import FAILED, Channel
from wisp_runtime.lean import signal, suppress
from wisp_runtime.loading import load_handler
from wisp_runtime.signatures import find_signature, is_asynchronous
from wisp_runtime.turns import Turns
from wisp_runtime.zygote import Zygote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    from typing import Any, NoReturn

    from wisp_runtime.board import Board
    from wisp_runtime.invocation import Decode, Handler
    from wisp_runtime.settings import Settings

EXIT_GRACE_SECONDS = 1.5
FORK_SECONDS = 1.0  # for a fork that only ends, where a library's own handlers may hang it


def load_and_serve(settings: Settings, sock: socket.socket, board: Board | None, *, zygote: bool) -> NoReturn:
    """Import the handler and serve as what the import allows."""
    logs.install(text=settings.log_format == "text")
    channel = Channel(sock)

    def fail(error: InitError) -> NoReturn:
        report(channel, error)

    try:
        handler = make_handler(settings, fail)
        handler.board = board
    except InitError as error:
        fail(error)
    logs.end_invocation()
    reason = why_not_fork(sock.fileno()) if zygote else ""
    if zygote and not reason:
        freeze()
        Zygote(sock, handler.signature, lambda worker: serve(Channel(worker), handler)).serve()
    if reason:
        logs.emit("WARNING", f"Each worker imports the handler by itself, because the import left {reason}")
    freeze()
    serve(channel, handler)


def report(channel: Channel, error: InitError) -> NoReturn:
    """Tell the front why this process can't serve, and end."""
    logs.end_invocation()
    channel.send(FAILED, 0, {"errorType": error.error_type, "errorMessage": error.message, "stackTrace": error.stack})
    os._exit(1)


def make_handler(settings: Settings, fail: Any) -> Handler:
    """Import the handler and give it the form that its signature asks for.

    Raises:
        InitError: It can't be served.
    """
    from wisp_runtime.invocation import Handler  # noqa: PLC0415 - while the front goes on

    call = load_handler(settings, fail)
    signature = find_signature(call, settings.signature, settings.handler)
    asynchronous = is_asynchronous(call)
    decode: Decode
    if signature == "lambda":
        from wisp_runtime import lambda_form  # noqa: PLC0415 - each handler needs one of these

        decode = lambda_form.decode
    elif signature == "cloudevent":
        from wisp_runtime import event_form  # noqa: PLC0415 - with it comes the SDK

        decode = event_form.make_decode(call)
    else:
        from wisp_runtime import http_form  # noqa: PLC0415

        decode = http_form.make_decode(asynchronous=asynchronous)
    handler = Handler(call, signature, decode, settings)
    if signature == "asgi" and settings.isolation == "none":
        message = "spec.isolation none is for handlers that take one event at a time: make it shared for an ASGI app"
        raise InitError("Runtime.InvalidConfiguration", message)
    if signature == "asgi":
        from wisp_runtime.asgi_form import AsgiApp  # noqa: PLC0415 - with it comes asyncio

        app = AsgiApp(call)
        handler.run_app, handler.lifespan = app.run, app.lifespan
    if signature == "asgi" or (asynchronous and settings.isolation == "shared"):
        handler.concurrency = settings.concurrency
    return handler


def why_not_fork(own: int) -> str:
    """Say what this process has that a fork would break; empty if there is nothing."""
    try:
        threads = _count_threads()
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123
            children = file.read().split()
    except OSError:
        return "what can't be seen on this system"
    if threads > 1:
        return f"{threads - 1} threads running" if threads > 2 else "a thread running"  # noqa: PLR2004
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        except OSError:
            continue
        if descriptor != own and target.startswith("socket:"):
            return "a socket open"
        if target == "anon_inode:[eventpoll]":
            return "an event loop open"
    return "a child process running" if children else ""


def _count_threads() -> int:
    """Count the threads, after those have ended that end before a fork, as NumPy's do: by a fork that is none."""
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - pathlib costs 10 ms at start
    if count == 1 or len(sys._current_frames()) > 1:  # noqa: SLF001 - Python's own threads: nobody ends these
        return count
    import warnings  # noqa: PLC0415 - for the few imports that leave a thread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # since 3.12: of a fork beside threads
        pid = os.fork()
        if not pid:
            os._exit(0)
    until = time.monotonic() + FORK_SECONDS
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0005)
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def freeze() -> None:
    """Let the garbage collector forget what the import made: walking it would cost time, and copies of its pages.

    It was off since the process's start, and is from now on again what it is by default.
    """
    gc.freeze()
    gc.enable()


def serve(channel: Channel, handler: Handler) -> NoReturn:
    """Run one invocation after the other, or several at once, until the front has had enough."""
    if handler.run_app is not None or handler.concurrency > 1:
        from wisp_runtime.shared import serve_shared  # noqa: PLC0415 - with it comes asyncio

        try:
            serve_shared(channel, handler)
        except InitError as error:  # of the app's own start-up
            channel.sock.setblocking(True)  # noqa: FBT003 - socket's own signature
            report(channel, error)
        leave()
    if handler.board is not None:
        from wisp_runtime.in_place import serve_in_place  # noqa: PLC0415 - a front of its own

        serve_in_place(channel, handler, handler.board)
        leave()
    with suppress(OSError):  # the front has gone
        Turns(channel, handler).serve()
    leave()


def leave() -> NoReturn:
    """End the process: run the user's exit hooks, for a short time at most, and don't wait for threads."""
    import atexit  # noqa: PLC0415 - used once, at the end

    def insist() -> None:
        time.sleep(EXIT_GRACE_SECONDS)
        os._exit(0)

    start_new_thread(insist, ())
    atexit._run_exitfuncs()  # noqa: SLF001 - the only way to run them without joining the user's threads
    logs.end_invocation()
    os._exit(0)
