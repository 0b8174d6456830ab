"""What a worker says, as JSON lines that carry the request they belong to.

Invariant: each line that Python writes to stdout or stderr is one JSON object in the pipe to the front, whatever the
handler prints, logs or lets escape in a thread (a child process's lines the front wraps), and an unfinished line is never
attributed to the next request (``end_invocation`` closes it). Where one event runs at a time the current request is
plain module state; threads that the handler left behind log under the request that runs now. ``logging`` is hooked when
the handler first imports it, because importing it here would cost every function 8 ms of its start. With
``WISP_LOG_FORMAT=text`` all is written as it comes, and ``logging`` has Lambda's format.
"""

from __future__ import annotations

import io
import os
import sys
import time
from _thread import get_ident

from wisp_runtime.encoding import make_encoder
from wisp_runtime.structured import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from _typeshed import ReadableBuffer

_TRACEBACK = "Traceback (most recent call last):"
_encode = make_encoder(ascii_only=False, default=str)


class _Current:
    """The request that runs now: what each log line is stamped with."""

    request_id = ""
    trace = ""


class _PerTask:
    """The same where several requests run at once: each asynchronous task sees its own."""

    def __init__(self) -> None:
        from contextvars import ContextVar  # noqa: PLC0415 - asyncio has it imported by now

        self._request: Any = ContextVar("wisp_request", default=("", ""))

    request_id = property(lambda self: self._request.get()[0], lambda self, value: self._set(value, self.trace))
    trace = property(lambda self: self._request.get()[1], lambda self, value: self._set(self.request_id, value))

    def _set(self, request_id: str, trace: str) -> None:
        self._request.set((request_id, trace))


current: Any = _Current()


def use_tasks() -> None:
    """From now on, each asynchronous task has a request of its own."""
    global current  # noqa: PLW0603 - set once a process
    current = _PerTask()


def begin_invocation(request_id: str, trace: str) -> None:
    """Stamp the lines that follow with this request."""
    current.request_id = request_id
    current.trace = trace


def end_invocation() -> None:
    """Close unfinished lines under the request that began them, then stop stamping."""
    for stream in _streams:
        if stream.partial:
            stream.finish()
    current.request_id = current.trace = ""
    if sys.stdout is None or sys.stdout.closed or sys.stderr is None or sys.stderr.closed:
        reopen()  # the handler closed it; the next event's lines are to be seen


def emit(level: str, message: str, **fields: Any) -> None:
    """Write one log line; a closed or broken pipe never fails the invocation."""
    _write(make_line(level, message, current.request_id, current.trace, fields))


def log_line(level: str, line: str, request_id: str, trace: str) -> bytes:
    """Make a log line of one that the code wrote: what is structured already stays so, and INFO if it doesn't say otherwise."""
    wanted = {"time": timestamp(), "level": "INFO", "requestId": request_id, "trace": trace}
    structured = complete(line, wanted) if line.startswith("{") else None
    if structured is None:
        return make_line(level, line, request_id, trace, {})
    return (structured + "\n").encode("utf-8", "backslashreplace")


def make_line(level: str, message: str, request_id: str, trace: str, fields: dict[str, Any]) -> bytes:
    """Make a log line: time, level, message, request id and trace where there are any, then what else there is to say."""
    line: dict[str, Any] = {"time": timestamp(), "level": level, "message": message}
    if request_id:
        line["requestId"] = request_id
    if trace:
        line["trace"] = trace
    line.update(fields)
    return (_encode(line) + "\n").encode("utf-8", "backslashreplace")


def use_sink(sink: Callable[[bytes], None] | None) -> None:
    """Hand the lines of the main thread to somebody, instead of writing them; those of others go by themselves."""
    global _sink  # noqa: PLW0603 - set once a process
    _sink = sink


_sink: Callable[[bytes], None] | None = None
_main_thread = get_ident()


def _write(line: bytes) -> None:
    if _sink is not None and get_ident() == _main_thread:
        _sink(line)
        return
    data = memoryview(line)
    try:
        while data:
            data = data[os.write(_out[0], data) :]
    except OSError:
        pass


_out = [1]  # the descriptor of the log: after ``install`` our own, which a handler that closes stdout doesn't close
_stamp = (0, 0, "", "")  # the last second and its text, the last millisecond and its


def timestamp() -> str:
    """Return the present in UTC, as RFC 3339 with milliseconds."""
    global _stamp  # noqa: PLW0603 - a cache of one value
    now = int(time.time() * 1000)
    second, last, prefix, text = _stamp
    if now != last:
        if now // 1000 != second:
            second = now // 1000
            prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        text = f"{prefix}{now % 1000:03d}Z"
        _stamp = (second, now, prefix, text)
    return text


def output() -> int:
    """Return the descriptor of the log."""
    return _out[0]


class LineStream(io.RawIOBase):
    """The raw end of ``sys.stdout`` or ``sys.stderr``: every line written becomes a log line, a traceback one record."""

    def __init__(self, level: str, fd: int) -> None:
        """Log at ``level``; ``fd`` is what ``fileno`` tells child processes to write to."""
        self.level = level
        self.fd = fd
        self.partial: dict[int, bytes] = {}  # per thread: an unfinished line
        self.traceback: dict[int, list[str]] = {}  # per thread: an unfinished traceback

    def writable(self) -> bool:
        """Say yes: this stream takes text."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that a child process inherits for this stream."""
        return self.fd

    def write(self, data: ReadableBuffer) -> int:
        """Log each finished line, keep the rest for the next write of this thread."""
        chunk = bytes(data)
        thread = get_ident()
        *lines, rest = (self.partial.pop(thread, b"") + chunk).split(b"\n")
        if rest:
            self.partial[thread] = rest
        for line in lines:
            self._line(thread, line.decode("utf-8", "replace"))
        return len(chunk)

    def finish(self) -> None:
        """Log what stands unfinished, in every thread."""
        for thread in [*self.partial]:
            self._line(thread, self.partial.pop(thread, b"").decode("utf-8", "replace"))
        for lines in [self.traceback.pop(thread) for thread in [*self.traceback]]:
            emit(self.level, "\n".join(lines))

    def _line(self, thread: int, line: str) -> None:
        """Log a line, unless it belongs to a traceback, which ends with its first line that isn't indented."""
        lines = self.traceback.get(thread)
        if lines is not None:
            lines.append(line)
            if not line.startswith((" ", "\t")):
                emit(self.level, "\n".join(self.traceback.pop(thread)))
        elif line == _TRACEBACK:
            self.traceback[thread] = [line]
        elif line:
            _write(log_line(self.level, line, current.request_id, current.trace))


_streams: list[LineStream] = []


def install(*, text: bool = False) -> None:
    """Put log streams in place of stdout and stderr, and hook ``logging`` for when it is imported."""
    global _text  # noqa: PLW0603 - set once a process
    _text = text
    reopen()
    if "logging" in sys.modules:
        _hook_logging(sys.modules["logging"])
    else:
        sys.meta_path.insert(0, _LoggingFinder())


def reopen() -> None:
    """Write to what descriptor 1 is now, as after a fork, and give stdout and stderr new streams."""
    if _out[0] != 1:
        os.close(_out[0])
    _out[0] = os.dup(1)
    _streams.clear()
    for name, level, fd in (("stdout", "INFO", 1), ("stderr", "ERROR", 2)):
        if _text:
            stream = open(_out[0], "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        else:
            raw = LineStream(level, fd)
            _streams.append(raw)
            buffer: Any = raw  # unbuffered: a raw stream in the place of a buffered one
            stream = io.TextIOWrapper(buffer, "utf-8", "backslashreplace", "\n", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


_text = False


class _LoggingFinder:
    """A finder that lets ``logging`` be imported as ever and then gives its root logger our handler."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find ``logging`` through the finders behind this one, once, and wrap its loader."""
        del path, target
        if name != "logging":
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415 - frozen; free when used here

        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, "getLogger"):  # the standard one, not a user's logging.py
                _hook_logging(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _hook_logging(module: Any) -> None:
    """Give the root logger a handler that writes JSON lines with the request id, at level WISP_LOG_LEVEL (INFO)."""
    base: type[logging.Handler] = module.Handler

    class JsonHandler(base):  # type: ignore[misc, valid-type] # its base is known when logging is loaded
        def emit(self, record: logging.LogRecord) -> None:
            try:
                if _text:
                    _write(_lambda_line(record, self.format(record)))
                    return
                fields: dict[str, Any] = {"logger": record.name}
                if record.exc_info and record.exc_info[1]:
                    from wisp_runtime.errors import describe, user_stack  # noqa: PLC0415 - on errors only

                    error = record.exc_info[1]
                    fields["errorType"], fields["errorMessage"] = describe(error)
                    fields["stackTrace"] = user_stack(error.__traceback__)
                emit(record.levelname, record.getMessage(), **fields)
            except Exception:  # noqa: BLE001 - logging's own contract: report, never raise
                self.handleError(record)

    module.root.addHandler(JsonHandler())
    level = os.environ.get("WISP_LOG_LEVEL", "INFO").upper()
    module.root.setLevel(level if level in module.getLevelNamesMapping() else "INFO")


def _lambda_line(record: logging.LogRecord, message: str) -> bytes:
    """Make a line in the text format that Lambda gives Python's logging."""
    return f"[{record.levelname}]\t{timestamp()}\t{current.request_id}\t{message}\n".encode("utf-8", "backslashreplace")
