"""Starting the front's processes: a fork of the front, a fork of the zygote, or another program.

Invariant: a process that is started has our socket, its log as descriptors 1 and 2, a process group of its own, and none
of the front's other descriptors. In the forked child nothing of the front runs on, and nothing returns to it.
"""

from __future__ import annotations

import _socket as socket
import os

from wisp_runtime.frames import FORK
from wisp_runtime.lean import signal
from wisp_runtime.workers import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from wisp_runtime.board import Board
    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Owner

WORKER_FD = (
    3  # low: Node.js keeps only those up to 15 from the processes that a handler starts, whatever stands open between
)
BUFFER_BYTES = 1 << 20  # of the socket, so that small events never wait


def fork_loader(loop: Loop, owner: Owner, settings: Settings, board: Board | None, *, zygote: bool) -> Worker:
    """Fork a process that imports the handler, and becomes the zygote if it may and can, else a worker."""

    def run(sock: socket.socket) -> None:
        from wisp_runtime.loader import load_and_serve  # noqa: PLC0415 - the front never needs it

        load_and_serve(settings, sock, board, zygote=zygote)

    return _fork(loop, owner, settings, run, kept=board.out if board is not None else -1)


def fork_verifier(loop: Loop, owner: Owner, settings: Settings, issuers: bytes) -> Worker:
    """Fork the process that checks callers' tokens by this file of issuers."""

    def run(sock: socket.socket) -> None:
        from wisp_runtime.auth.verifier import serve  # noqa: PLC0415 - the front never needs it

        serve(sock, issuers)

    return _fork(loop, owner, settings, run)


def fork_sender(loop: Loop, settings: Settings, sock: socket.socket) -> int:
    """Fork the process that sends log lines, with its end of a socket; return its pid. It writes no log of its own."""
    pid = os.fork()
    if pid == 0:

        def run(sock: socket.socket) -> None:
            from wisp_runtime.log_sender import serve  # noqa: PLC0415 - the front never needs it

            serve(sock, settings.log_url, settings.log_token_file)

        _be_child(loop, settings, sock, os.open(os.devnull, os.O_WRONLY), run, stdin=None)
    return pid


def run_program(loop: Loop, owner: Owner, settings: Settings, stdin: int | None = None) -> Worker:
    """Start the program that is this function's worker, with a descriptor of ours as its 0 if one is given."""
    command = settings.worker_command

    def run(sock: socket.socket) -> None:
        os.dup2(sock.fileno(), WORKER_FD)
        os.set_inheritable(WORKER_FD, True)  # noqa: FBT003 - os's own signature
        os.environ["WISP_WORKER_FD"] = str(WORKER_FD)
        try:
            os.chdir(settings.code_dir)
            os.execvp(command[0], command)  # noqa: S606 - no shell wanted
        except OSError as error:
            os.write(2, f"The worker {command[0]} can't be started in {settings.code_dir}: {error}\n".encode())

    return _fork(loop, owner, settings, run, stdin)


def fork_from(zygote: Worker, loop: Loop, owner: Owner, number: int) -> Worker:
    """Have the zygote fork a worker; it tells its pid under this number."""
    ours, theirs, reader, writer = _ends()
    zygote.send(FORK, number, {}, fds=(theirs.fileno(), writer))
    theirs.close()
    os.close(writer)
    return Worker(loop, owner, ours, reader)


def _ends() -> tuple[socket.socket, socket.socket, int, int]:
    """Make a socket's two ends and a pipe's."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    reader, writer = os.pipe()
    return ours, theirs, reader, writer


def _fork(
    loop: Loop,
    owner: Owner,
    settings: Settings,
    run: Callable[[socket.socket], None],
    stdin: int | None = None,
    *,
    kept: int = -1,
) -> Worker:
    ours, theirs, reader, writer = _ends()
    pid = os.fork()
    if pid == 0:
        _be_child(loop, settings, theirs, writer, run, stdin=stdin, kept=kept)
    theirs.close()
    os.close(writer)
    return Worker(loop, owner, ours, reader, pid)


def _be_child(
    loop: Loop,
    settings: Settings,
    sock: socket.socket,
    log: int,
    run: Callable[[socket.socket], None],
    *,
    stdin: int | None,
    kept: int = -1,
) -> NoReturn:
    """Leave the front behind and run; the objects of its sockets stay referenced by our callers, and are never closed."""
    try:
        os.setpgid(0, 0)
        loop.close_in_child()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        take_log(log)
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        at = 3
        for descriptor in (*sorted({sock.fileno(), max(kept, 2)}), os.sysconf("SC_OPEN_MAX")):
            os.closerange(at, descriptor)
            at = max(at, descriptor + 1)
        settings.export(os.environ)
        run(sock)
    finally:
        os._exit(1)


def take_log(writer: int) -> None:
    """Make the log what this process writes to its stdout and stderr."""
    os.dup2(writer, 1)
    os.dup2(writer, 2)
