"""Start: read the settings, import the handler, open the port, serve.

In a pod everything comes from the environment. ``python -m wisp_runtime app.handler`` serves the handler of the current
folder on 127.0.0.1 and ``PORT``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from wisp_runtime import lambda_form, logs
from wisp_runtime.errors import InitError
from wisp_runtime.front import Front
from wisp_runtime.invocation import Function
from wisp_runtime.loading import fail, load_handler
from wisp_runtime.settings import Settings
from wisp_runtime.signatures import find_signature, is_asynchronous
from wisp_runtime.standby import Server, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.invocation import Decode

BACKLOG = 1024
USAGE = "usage: python -m wisp_runtime MODULE.ATTRIBUTE   (or WISP_HANDLER in the environment)"


def main() -> None:
    """Serve until SIGTERM; end with status 1 if the handler can't be served."""
    environment, start_dir = dict(os.environ), os.getcwd()  # noqa: PTH109 - pathlib costs 10 ms at start
    arguments = sys.argv[1:]
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.exit(USAGE)
    logs.install()
    for number in (signal.SIGTERM, signal.SIGINT):  # as pid 1, a signal without a handler would be lost
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    termination_log = os.environ.get("WISP_TERMINATION_LOG", "" if arguments else "/dev/termination-log")
    try:
        settings = Settings(os.environ, *arguments, **({"code_dir": start_dir} if arguments else {}))
        function = make_function(load_handler(settings), settings)
        listener = listen(settings)
        front = Front(listener, settings)
    except InitError as error:
        fail(error, termination_log)
    _freeze()
    server = Server(front, function, environment, start_dir)
    server.catch_signals()
    logs.emit("INFO", f"Serving {settings.handler} on port {listener.getsockname()[1]}")
    server.serve()
    leave()


def make_function(handler: Callable[..., Any], settings: Settings) -> Function:
    """Give a handler the form that its signature asks for."""
    signature = find_signature(handler, settings.signature, settings.handler)
    asynchronous = is_asynchronous(handler)
    decode: Decode
    if signature == "lambda":
        decode = lambda_form.decode
    elif signature == "cloudevent":
        from wisp_runtime import event_form  # noqa: PLC0415 - with it comes the SDK

        decode = event_form.make_decode(handler)
    else:
        from wisp_runtime import http_form  # noqa: PLC0415 - most handlers never need it

        decode = http_form.make_decode(asynchronous=asynchronous)
    function = Function(handler, decode, settings)
    if asynchronous:
        function.prepare_loop()
    return function


def listen(settings: Settings) -> socket.socket:
    """Open the port, on IPv6 and IPv4 where the machine has both, or take the socket that our former self had open."""
    if settings.listen_fd >= 0:
        os.set_inheritable(settings.listen_fd, False)  # noqa: FBT003 - os's own signature
        return socket.socket(fileno=settings.listen_fd)
    tries = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104 - a pod's port is for the cluster
    if settings.host:
        tries = [(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, settings.host)]
    for family, host in tries:
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and host == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            problem = error
        else:
            return listener
    raise InitError("Runtime.PortError", f"Port {settings.port} can't be opened: {problem.strerror}")


def _freeze() -> None:
    """Let the garbage collector forget what the start made: it stays, and each full collection would walk it."""
    import gc  # noqa: PLC0415 - built in

    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
