"""What each process needs of the standard library, from the modules in C beneath it.

``signal``, ``collections``, ``contextlib``, ``socket``, ``json`` and ``typing`` bring ``enum``, ``re`` and ``functools``: together a
third of a start, and 3 MiB. So what a start imports takes ``signal``, ``deque`` and ``suppress`` from here, sockets from
``_socket``, JSON from ``encoding``, and types only where ``TYPE_CHECKING`` says so.

Invariant: who imports one of these modules later doesn't get a module of the function's that has its name (``loading``).
"""

from __future__ import annotations

from _socket import CMSG_LEN, SCM_RIGHTS, SOL_SOCKET, getaddrinfo, socket
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections import deque
    from contextlib import suppress
    from typing import Any
else:
    import _signal as signal
    from _collections import deque

    class suppress:  # noqa: N801 - contextlib's own name
        """Take these exceptions for nothing."""

        __slots__ = ("_kinds",)

        def __init__(self, *kinds: type[BaseException]) -> None:
            """Take these."""
            self._kinds = kinds

        def __enter__(self) -> None:
            """Begin."""

        def __exit__(self, kind: type[BaseException] | None, *about: object) -> bool:
            """Say whether it is one of them."""
            return kind is not None and issubclass(kind, self._kinds)


__all__ = ["accept", "connect", "deque", "receive_one", "receive_two", "send_one", "send_two", "signal", "suppress"]

_ONE, _PAIR = Struct("@i"), Struct("@2i")


def accept(listener: socket) -> tuple[socket, Any]:
    """Accept a connection; return it and the caller's address.

    Raises:
        OSError: There is none, or no descriptor for it.
    """
    fd, address = listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - all that socket.accept calls
    return socket(fileno=fd), address


def connect(host: bytes, port: int, seconds: float) -> socket:
    """Connect to the first address of a host that takes it, with so much time for each, and later for each call.

    Raises:
        OSError: None does.
    """
    failed = OSError("the name has no address")
    for family, kind, protocol, _, address in getaddrinfo(host, port, type=1):
        try:
            sock = socket(family, kind, protocol)
            sock.settimeout(seconds)
            sock.connect(address)
        except OSError as error:
            failed = error
        else:
            return sock
    raise failed


def send_one(sock: socket, data: bytes, descriptor: int) -> int:
    """Send data, and with its first byte a descriptor; return how much it has taken."""
    return sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, _ONE.pack(descriptor))])


def receive_one(sock: socket, size: int) -> tuple[bytes, list[int]]:
    """Receive data, and the descriptor that came with it, if there was one."""
    data, about, _, _ = sock.recvmsg(size, CMSG_LEN(_ONE.size))
    return data, [_ONE.unpack(packed)[0] for level, kind, packed in about if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)]


def send_two(sock: socket, data: bytes, descriptors: tuple[int, int]) -> int:
    """Send data, and with its first byte two descriptors; return how much it has taken."""
    return sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, _PAIR.pack(*descriptors))])


def receive_two(sock: socket, size: int) -> tuple[bytes, list[int]]:
    """Receive data, and the two descriptors that came with it, if there were any."""
    data, about, _, _ = sock.recvmsg(size, CMSG_LEN(_PAIR.size))
    for level, kind, packed in about:
        if level == SOL_SOCKET and kind == SCM_RIGHTS and len(packed) == _PAIR.size:
            return data, [*_PAIR.unpack(packed)]
    return data, []
