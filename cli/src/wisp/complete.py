"""Names that a shell offers at TAB: functions and subscriptions as the cluster has them now; what was kept would offer what is gone.

Invariant: whatever goes wrong, nothing is offered and nothing is said, and the terminal's keys stay the shell's. A cluster that is away costs
AWAY_SECONDS, one that doesn't answer ANSWER_SECONDS; so the work is a thread's that is left behind, with the credential plugin it may wait for.
"""

import contextlib
import os
import socket
import threading
from typing import Final

import typer

AWAY_SECONDS: Final = 1.0
"""In which a cluster has to be found and connected, another continent's included."""
ANSWER_SECONDS: Final = 3.0
"""For a credential plugin, and for TLS and the answer of each kind."""
_PREFIXES: Final = {"fn": "functions", "function": "functions", "sub": "subscriptions", "subscription": "subscriptions"}


def functions(context: typer.Context, incomplete: str) -> list[str]:
    """The functions whose names begin so."""
    return _offer(context, incomplete, "functions")


def subscriptions(context: typer.Context, incomplete: str) -> list[str]:
    """The subscriptions whose names begin so."""
    return _offer(context, incomplete, "subscriptions")


def both(context: typer.Context, incomplete: str) -> list[str]:
    """Functions and subscriptions; of one kind alone after `fn/` or `sub/`."""
    prefix, separator, begun = incomplete.rpartition("/")
    if not separator:
        return _offer(context, incomplete, "functions", "subscriptions")
    if prefix not in _PREFIXES:
        return []
    return [f"{prefix}/{name}" for name in _offer(context, begun, _PREFIXES[prefix])]


def _offer(context: typer.Context, begun: str, *plurals: str) -> list[str]:
    leave_terminal()
    with contextlib.suppress(Exception):  # a shell's prompt is no place to tell of anything
        return sorted(name for name in _look(context.params.get("namespace"), plurals) if name.startswith(begun))
    return []


def leave_terminal() -> None:
    """Let nothing that runs here write to the terminal or read from it: a plugin that asks for a password would eat the keys typed next."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 2)
    with contextlib.suppress(PermissionError):  # it leads a group already, which is not the shell's
        os.setsid()


def _look(namespace: str | None, plurals: tuple[str, ...]) -> set[str]:
    """The names that come in time; the clocks start when the kubeconfig has been read."""
    from wisp import kubeconfig  # noqa: PLC0415 - `wisp --help` needs nothing of it
    from wisp.cluster import OURS, Cluster  # noqa: PLC0415

    address, there, found = kubeconfig.address(), threading.Event(), set[str]()

    def look() -> None:
        with contextlib.suppress(Exception):
            if address:
                socket.create_connection(address, AWAY_SECONDS).close()
            there.set()
            cluster = Cluster(namespace)
            for kind in OURS.values():
                if kind.plural in plurals:
                    found.update(cluster.names_of(kind))

    looking = threading.Thread(target=look, name="look", daemon=True)
    looking.start()
    if there.wait(AWAY_SECONDS):
        looking.join(ANSWER_SECONDS)
    return found.copy()
