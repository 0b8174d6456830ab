"""The log of the pod on stdout: what the front says, and what ``log_pipe`` reads from the workers.

Invariant: lines come out whole and in the order in which they happened; what happened in one round of the loop is written
at once by ``flush``. A closed or broken stdout fails nothing, and one that nobody reads holds nothing up: what it doesn't
take is kept, and beyond ``MOST_HELD`` dropped, which the log says once it goes on. The log stream, where there is one, is
handed the same lines. Lambda's START, END and REPORT lines are made here, in the words of its text format, with the figures
as fields beside them.
"""

from __future__ import annotations

import os
import select
import time

from wisp_runtime.encoding import quote
from wisp_runtime.logs import make_line, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.calls import Call
    from wisp_runtime.log_stream import LogStream

TAIL_BYTES = 4096
FULL, MOST_HELD = 1 << 20, 4 << 20  # bytes that stdout hasn't taken: from there on pipes wait, lines are dropped
RETRY_SECONDS = 0.02
LAST_SECONDS = 2.0  # for stdout to take what is there at the end
_WRITE_SIZE = 4096  # which a pipe that can be written to takes without blocking
_lines: Any = []
_held = bytearray()
_dropped = [0]
_text = [False]
_stream: list[LogStream] = []
_out = [1]


def use_stderr() -> None:
    """Log to stderr from now on: stdout is for something else."""
    _out[0] = 2


def use_stream(stream: LogStream) -> None:
    """Hand each line to the log stream, too, from now on."""
    _stream[:] = [stream]


def keep_on(lines: Any, out: int) -> None:
    """Keep what is to be written where it outlives this process, which was forked and forgets what was there."""
    global _lines  # noqa: PLW0603 - once a process
    _lines = lines
    _out[0] = out
    lines.on_full = flush
    _held.clear()
    _stream.clear()


def use_text() -> None:
    """Write the platform's lines as plain text from now on."""
    _text[0] = True


def emit(level: str, message: str, request_id: str = "", trace: str = "", **fields: Any) -> bytes:
    """Log a line of the front's own; return it."""
    if _text[0]:
        stack = "".join(fields.get("stackTrace") or ())
        about = f"{request_id} " if request_id else ""
        line = f"[{level}]\t{timestamp()}\t{about}{message}\n{stack}".encode("utf-8", "backslashreplace")
    else:
        line = make_line(level, message, request_id, trace, fields)
    _lines.append(line)
    return line


def fault(text: str, error: Exception, error_type: str = "Runtime.Fault") -> None:
    """Log an exception that nobody foresaw, with its stack: the fault is the runtime's, not the user's."""
    import traceback  # noqa: PLC0415 - needed now only

    stack = traceback.format_exception(error, limit=-20)
    emit("ERROR", f"{text}: {error!r:.1000}", errorType=error_type, stackTrace=stack)


def write(line: bytes) -> None:
    """Log a line that is finished."""
    _lines.append(line)


def plain() -> bool:
    """Whether lines are logged as they come."""
    return _text[0]


def flush(seconds: float = 0.0) -> None:
    """Write what has been logged, as far as stdout takes it within so many seconds."""
    if not (_lines or _held):
        return
    data = b"".join(_lines)
    _lines.clear()
    if len(_held) > MOST_HELD:
        _dropped[0] += data.count(b"\n")
    else:
        _held.extend(data)
    for stream in _stream:
        stream.take(data)
    _write(time.monotonic() + seconds)
    if _dropped[0] and not _held:
        count, _dropped[0] = _dropped[0], 0
        emit("WARNING", f"{count} lines of the log were dropped, because nobody read it", droppedLines=count)
        flush(seconds)


def finish() -> None:
    """Write what has been logged, because the process ends, and wait a little for who takes it."""
    flush(LAST_SECONDS)
    for stream in _stream:
        stream.close()


def _write(until: float) -> None:
    """Write without blocking what is held."""
    poller = select.poll()
    poller.register(_out[0], select.POLLOUT)
    try:
        while _held and poller.poll(max(0.0, until - time.monotonic()) * 1000):
            size = (
                _held.rfind(b"\n", 0, _WRITE_SIZE) + 1 if len(_held) > _WRITE_SIZE else 0
            )  # whole, lest others' are between
            del _held[: os.write(_out[0], _held[: size or _WRITE_SIZE])]
    except BlockingIOError:  # it was made non-blocking by who gave it to us
        pass
    except OSError:
        _held.clear()


def held() -> int:
    """Return how many bytes stdout hasn't taken; ``flush`` is to be called again soon."""
    return len(_held)


def start(call: Call, version: str) -> None:
    """Log that an invocation begins."""
    if _text[0]:
        _platform(call, f"START RequestId: {call.id} Version: {version}\n")
        return
    request, about = call.about = _about(call)
    _platform(
        call,
        f'{{"time":"{timestamp()}","level":"INFO","message":"START RequestId: {request} Version: {quote(version)[1:-1]}",'
        f'{about},"type":"platform.start"}}\n',
    )


def end(call: Call, memory: int, used: int, init_ms: float, status: str) -> None:
    """Log that an invocation has ended, and what it took: milliseconds, MiB."""
    text = _text[0]
    tab = "\t" if text else "\\t"
    duration = call.duration_ms
    billed = int(duration) + (duration % 1 > 0)
    took = f"{duration:.2f}"
    figures, metrics = f"{tab}Memory Size: {memory} MB{tab}Max Memory Used: {used} MB", ""
    if init_ms:
        figures += f"{tab}Init Duration: {init_ms:.2f} ms"
        metrics = f',"initDurationMs":{init_ms:.2f}'
    if call.xray:
        trace = call.xray.partition(";")[0].removeprefix("Root=")
        figures += f"{tab}XRAY TraceId: {trace if text else quote(trace)[1:-1]}"
    if status != "success":
        figures += f"{tab}Status: {status}"
    report = f"{tab}Duration: {took} ms{tab}Billed Duration: {billed} ms{figures}"
    if text:
        _platform(call, f"END RequestId: {call.id}\nREPORT RequestId: {call.id}{report}\n")
        return
    request, about = call.about or _about(call)
    begin = f'{{"time":"{timestamp()}","level":"INFO","message":'
    _platform(
        call,
        f'{begin}"END RequestId: {request}",{about},"type":"platform.end"}}\n'
        f'{begin}"REPORT RequestId: {request}{report}",{about},"type":"platform.report","status":"{status}",'
        f'"metrics":{{"durationMs":{took},"billedDurationMs":{billed},"memorySizeMB":{memory},'
        f'"maxMemoryUsedMB":{used}{metrics}}}}}\n',
    )


def _about(call: Call) -> tuple[str, str]:
    """Return the request's id as it stands within a JSON string, and the members of a line that tell whose it is.

    The lines are made by hand, because each invocation has three.
    """
    quoted = quote(call.id)
    trace = f',"trace":{quote(call.trace)}' if call.trace else ""
    return quoted[1:-1], f'"requestId":{quoted}{trace}'


def _platform(call: Call, lines: str) -> None:
    data = lines.encode("utf-8", "backslashreplace")
    _lines.append(data)
    call.keep(data)
