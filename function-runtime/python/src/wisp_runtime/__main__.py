"""Start: read the settings, have the handler imported, open the port, serve.

In a pod everything comes from the environment. ``python -m wisp_runtime app.handler`` serves the handler of the current
folder on 127.0.0.1 and ``PORT``, anew when the code changes; with ``--event FILE`` or ``--request FILE`` it is run once.
"""

from __future__ import annotations

import gc
import os
import sys

from wisp_runtime import journal
from wisp_runtime.children import buried
from wisp_runtime.errors import InitError
from wisp_runtime.fetching import bring
from wisp_runtime.front import Front
from wisp_runtime.function import Function
from wisp_runtime.lean import signal
from wisp_runtime.loader import freeze
from wisp_runtime.loop import Loop
from wisp_runtime.metrics import Metrics
from wisp_runtime.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from wisp_runtime.auth.gate import Gate
    from wisp_runtime.local import Arguments

TERMINATION_BYTES = 2048


def main() -> None:
    """Serve until SIGTERM; end with status 1 if the handler can't be served."""
    gc.disable()  # until ``freeze``: what a start makes stays
    local: Arguments | None = None
    if sys.argv[1:]:
        from wisp_runtime.local import parse  # noqa: PLC0415 - for people, not for pods

        local = parse(sys.argv[1:])
        sys.dont_write_bytecode = True  # which would hide a change within the same second
        if local.once:
            journal.use_stderr()
    termination_log = os.environ.get("WISP_TERMINATION_LOG", "" if local else "/dev/termination-log")
    try:
        if not local:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # process 1 has no default: it would be lost
            bring(os.environ)
        given = (local.handler, os.getcwd()) if local else ()  # noqa: PTH109 - pathlib costs 10 ms at start
        settings = Settings(os.environ, *given)
        if settings.log_format == "text":
            journal.use_text()
        Server(settings).run(local)
    except InitError as error:
        fail(error, termination_log)
    except Exception as error:  # noqa: BLE001 - a fault of ours; a fresh process is better than one that hangs
        journal.fault("The runtime failed", error)
        journal.finish()
        os._exit(1)


class Server:
    """The process: one front, one function, and the loop under both."""

    def __init__(self, settings: Settings) -> None:
        """Put them together."""
        self._settings = settings
        self._loop = loop = Loop()
        self._function = Function(loop, settings)
        self._gate: Gate | None = None
        if settings.auth_file:
            from wisp_runtime.auth.gate import Gate  # noqa: PLC0415 - for functions that ask for a token

            self._gate = Gate(loop, self._function, settings)
        self._front = Front(loop, self._gate or self._function, settings, self._function.processes.elsewhere)
        self._ending = False
        processes = self._function.processes
        if processes.board is not None:
            from wisp_runtime.lending import Lender  # noqa: PLC0415 - for handlers in the serving process

            lender = Lender(self._front, self._function, settings, processes.board)
            self._front.lender = processes.lender = lender

    def run(self, local: Arguments | None) -> NoReturn:
        """Serve until SIGTERM or SIGINT, then finish what runs and end.

        Raises:
            InitError: The handler can't be served, or the port not be opened.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._drain)
        self._loop.on_signal(signal.SIGCHLD, self._bury)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        if self._settings.log_url:
            self._send_logs()
        self._function.processes.start()
        if self._gate is not None:
            self._gate.start()
        if "WISP_ENV" in os.environ:
            self._follow_secrets()
        if not self._settings.external:
            self._wait_for_start()
        if local:
            self._be_local(local)
        if not self._front.draining:
            port = self._front.listen(self._settings.port)
            self._listen_for_metrics()
            freeze()
            journal.emit("INFO", f"Serving {self._settings.handler} on port {port}")
        processes, lends = self._function.processes, self._front.lender is not None
        self._until(lambda: self._done or (lends and processes.failure is not None))
        if processes.failure is not None and not self._done:
            raise processes.failure  # nobody is there to tell callers so
        self._stop()
        self._until(lambda: self._ending)
        journal.finish()
        os._exit(0)

    def _send_logs(self) -> None:
        """Have all lines sent to the log stream, those of a start that fails too."""
        from wisp_runtime.log_stream import LogStream  # noqa: PLC0415 - for pods of a platform that has one

        stream = self._function.processes.log_stream = LogStream(self._loop, self._settings)
        stream.start()
        journal.use_stream(stream)

    def _wait_for_start(self) -> None:
        """Open no port before the handler is imported, and end if it can't be: another container may come when it likes."""
        processes = self._function.processes
        self._until(lambda: processes.ready or processes.failure is not None or self._front.draining)
        if processes.failure is not None:
            raise processes.failure

    def _be_local(self, local: Arguments) -> None:
        """Run once, if that is asked for, or look for changes of the code."""
        from wisp_runtime.local import Watcher, run_once  # noqa: PLC0415 - for people, not for pods

        if local.once:
            run_once(self._front, self._function.processes.signature, local, self._until)
        if local.reload:
            Watcher(self._loop, self._function.processes, self._settings.code_dir)

    def _follow_secrets(self) -> None:
        """Start anew when variables change that the container has from Secrets, as far as it is known how they are made."""
        from wisp_runtime.renewal import Renewal  # noqa: PLC0415 - for functions that have such variables
        from wisp_runtime.variables import Variables  # noqa: PLC0415

        processes = self._function.processes
        try:
            variables = Variables(os.environ)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it: a function serves without following, too
            text = f"WISP_ENV can't be read ({type(error).__name__}): the function keeps the Secrets that it has until it is restarted (wisp restart)"
            journal.emit("WARNING", text)
            return
        processes.renewal = Renewal(self._loop, processes, variables)

    def _stop(self) -> None:
        """Let the processes end."""
        from wisp_runtime.leaving import stop  # noqa: PLC0415 - used once, at the end

        stop(self._loop, self._function.processes, self._end)

    def _listen_for_metrics(self) -> None:
        """Open the metrics' port; a function serves without it, too."""
        if not self._settings.metrics_port:
            return
        try:
            Front(self._loop, Metrics(self._function), self._settings).listen(self._settings.metrics_port)
        except InitError as error:
            journal.emit("WARNING", f"There are no metrics: {error.message}")

    def _until(self, done: Callable[[], bool]) -> None:
        loop = self._loop
        while not done():
            journal.flush()
            loop.run_once()

    @property
    def _done(self) -> bool:
        return self._front.draining and not self._front.connections

    def _drain(self) -> None:
        self._front.drain()

    def _end(self) -> None:
        self._ending = True

    def _bury(self) -> None:
        """Take the exit status of our children, and as pid 1 also of those that nobody else has."""
        for pid, status in buried():
            self._function.processes.children.on_exit(pid, status)


def fail(error: InitError, termination_log: str) -> NoReturn:
    """Say why the start failed, in the log and to Kubernetes, and end the process."""
    journal.emit("ERROR", f"{error.error_type}: {error.message}", errorType=error.error_type, stackTrace=error.stack)
    journal.finish()
    if termination_log:
        try:
            with open(termination_log, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                file.write(termination_text(error))
        except OSError:
            pass  # not in a pod, or not writable: the log line has it
    os._exit(1)


def termination_text(error: InitError) -> str:
    """Make the text for the Function's condition: the error, then the end of its stack, within 2 KiB."""
    text = f"{error.error_type}: {error.message}\n"
    stack = "".join(error.stack)
    room = TERMINATION_BYTES - len(text.encode()) - len("...\n")
    cut = stack.encode()[-room:].decode(errors="ignore") if room > 0 else ""
    if cut != stack:
        cut = "...\n" + cut.partition("\n")[2]
    return (text + cut).encode()[:TERMINATION_BYTES].decode(errors="ignore")


if __name__ == "__main__":
    main()
