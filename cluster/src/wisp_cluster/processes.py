"""The node's daemons: started detached, found again by a mark in their environment, signalled through a pidfd.

Invariant: no process is ever signalled that this node did not start. A daemon is recognised by `WISP_NODE_PROCESS=<state dir>:<name>` in its environment
(and its children, such as containerd's shims, by inheriting it), read while a pidfd holds its identity. So there is no pid file that could be stale,
missing after a kill between two lines, or name a pid that was given to another process.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wisp_cluster.paths import state_dir

MARK = "WISP_NODE_PROCESS"
REVISION_MARK = "WISP_NODE_REVISION"


@dataclass(frozen=True)
class Found:
    """A running process that carries this node's mark.

    Attributes:
        pid: its process id at the time of looking.
        name: the component it, or its ancestor, was started as.
        program: the base name of its program, which tells a daemon from its children.
        revision: hash of the command line and configuration it was started with.
    """

    pid: int
    name: str
    program: str
    revision: str


def find_all() -> list[Found]:
    """Every running process of this node, children included."""
    return [found for entry in Path("/proc").iterdir() if entry.name.isdigit() and (found := inspect(int(entry.name)))]


def find(name: str, program: str) -> Found | None:
    """The daemon `name` itself, if it runs."""
    return next((found for found in find_all() if found.name == name and found.program == program), None)


def inspect(pid: int) -> Found | None:
    """What `pid` is, or None when it is gone, a zombie, or not this node's."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    values = dict(line.split("=", 1) for line in environ.decode(errors="replace").split("\0") if "=" in line)
    owner, _, name = values.get(MARK, "").rpartition(":")
    if not command or owner != str(state_dir()):
        return None
    program = Path(command.split(b"\0", 1)[0].decode(errors="replace")).name
    return Found(pid, name, program, values.get(REVISION_MARK, ""))


def start(
    name: str,
    argv: Sequence[str | Path],
    *,
    revision: str,
    log: Path,
    netns: Path | None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Start a daemon in a session of its own, its output appended to `log`.

    It is entered into the network namespace with `nsenter`, not `ip netns exec`: the latter would also give it a mount namespace, in which
    containerd does not see the volumes that the kubelet mounts.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    prefix = [] if netns is None else ["nsenter", f"--net={netns}"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/root"} | dict(env or {})
    environment |= {MARK: f"{state_dir()}:{name}", REVISION_MARK: revision}
    with log.open("a") as sink:
        # setsid forks and leaves: the daemon is init's child, and nobody here has to wait for it.
        subprocess.run(
            ["setsid", "--fork", *prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            cwd="/",
            check=True,
        )


def stop(processes: Sequence[Found], *, grace_seconds: float) -> None:
    """End processes: SIGTERM, then SIGKILL to those still there after the grace."""
    send(processes, signal.SIGTERM)
    survivors = _wait_gone(processes, grace_seconds)
    send(survivors, signal.SIGKILL)
    _wait_gone(survivors, 10)


def send(processes: Sequence[Found], signum: signal.Signals) -> None:
    """Send a signal to exactly the processes found; those that ended meanwhile are skipped, whoever has their pid now."""
    for process in processes:
        with _pidfd(process) as fd:
            if fd is not None:
                signal.pidfd_send_signal(fd, signum)


@contextmanager
def _pidfd(process: Found) -> Iterator[int | None]:
    """A descriptor that holds the process's identity, or None when it is gone; the mark is read again after it is opened."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if inspect(process.pid) == process else None
    except ProcessLookupError:
        pass  # it ended between the look and the signal
    finally:
        os.close(fd)


def _wait_gone(processes: Sequence[Found], seconds: float) -> list[Found]:
    """Wait for the processes to end; return those that have not."""
    deadline = time.monotonic() + seconds
    left = []
    for process in processes:
        with _pidfd(process) as fd:
            if fd is not None and not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                left.append(process)
    return left
