"""What a worker's frames mean to the caller of the invocation they belong to.

Invariant: an invocation is closed once, with its END and REPORT lines written before its caller has the answer; a frame
for one that is closed changes nothing. What a function sent that can't be sent on is the function's error.
"""

from __future__ import annotations

from wisp_runtime import journal
from wisp_runtime.children import how_it_ended
from wisp_runtime.errors import BadRequestError, InvalidResultError
from wisp_runtime.frames import CHUNK, CLOSE, END, ERROR, MESSAGE, RESULT, START, TAKEN
from wisp_runtime.logs import timestamp
from wisp_runtime.memory import used_mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.calls import Call
    from wisp_runtime.errors import InitError
    from wisp_runtime.function import Function
    from wisp_runtime.workers import Worker

QUICK_SECONDS = 0.005  # an invocation that is shorter is no burden to one that waits behind it, and can't be taken back


class Exchange:
    """The answering side of one function."""

    def __init__(self, function: Function) -> None:
        """Answer for a function."""
        self._function = function
        self._settings = function.settings

    def on_frame(self, worker: Worker, call: Call, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Take a worker's frame for an invocation that is open; a fault of ours ends that invocation and nothing else."""
        try:
            self._take(worker, call, kind, head, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, other callers wait
            journal.fault("The runtime failed at a worker's answer", error)
            self._give_up(worker, call)

    def _take(self, worker: Worker, call: Call, kind: int, head: dict[str, Any], body: bytes) -> None:
        told = call.ended != 0.0  # its time was over, its caller knows
        if "took" in head:
            call.take_times(head.pop("took"), waits=head.pop("waits", False))
        if head.get("ends"):
            self._function.retire(worker)
        if kind == RESULT and not (told or call.streaming):
            self._result(worker, call, head, body)
        elif kind == ERROR and not (told or call.streaming):
            self._error(worker, call, head)
        elif kind == START and not (told or call.streaming):
            self._start(worker, call, head, body)
        elif kind == CHUNK and call.streaming:
            self._chunk(worker, call, body)
        elif kind in (MESSAGE, TAKEN, CLOSE):
            self._speak(worker, call, kind, head, body)
        elif kind in (RESULT, ERROR, END):
            self._end(worker, call, head, body)

    def _result(self, worker: Worker, call: Call, head: dict[str, Any], body: bytes) -> None:
        try:
            reply = call.make_reply(head, body, self._function.processes.signature)
        except InvalidResultError as error:
            self._error(worker, call, {"errorType": error.error_type, "errorMessage": str(error)})
            return
        except (ValueError, TypeError, AttributeError) as error:  # a worker of another make
            self._error(worker, call, {"errorType": "Runtime.InvalidResponse", "errorMessage": str(error)})
            return
        self._close(worker, call, "success")
        call.answer(reply)

    def _error(self, worker: Worker, call: Call, head: dict[str, Any]) -> None:
        if head.get("fault") == "request":
            error = BadRequestError(str(head.get("errorType")), str(head.get("errorMessage")))
            self._close(worker, call, "success")
            call.refuse(error)
            return
        call.log_error(head)
        self._close(worker, call, "error")
        call.fail(head)

    def _start(self, worker: Worker, call: Call, head: dict[str, Any], body: bytes) -> None:
        try:
            if head.get("status") == SWITCHING_PROTOCOLS:
                call.switch(head, self._settings.max_body)
                return
            reply = call.make_reply(head or STREAM, body, self._function.processes.signature)
        except (InvalidResultError, ValueError, TypeError, AttributeError) as error:
            call.log_error({"errorType": "Runtime.InvalidResponse", "errorMessage": str(error)})
            call.fail({"errorType": "Runtime.InvalidResponse", "errorMessage": str(error)})
            call.streaming = True  # what follows is dropped
            return
        call.start(reply)
        self._pace(worker, call)

    def _chunk(self, worker: Worker, call: Call, body: bytes) -> None:
        if call.connection.call is call:
            call.connection.stream(body)
            self._pace(worker, call)

    def _speak(self, worker: Worker, call: Call, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Hand on what the function says through a WebSocket."""
        connection = call.connection
        if call.streaming and connection.call is call:
            connection.take(kind, head, body)
            self._pace(worker, call)

    def _end(self, worker: Worker, call: Call, head: dict[str, Any], body: bytes) -> None:
        broken = "errorType" in head
        if broken:
            call.log_error(head)
        self._close(worker, call, "error" if broken else "success")
        if call.connection.call is not call:
            return
        if broken:
            call.connection.abort()
        else:
            call.connection.stream(body)
            call.connection.finish()

    def _give_up(self, worker: Worker, call: Call) -> None:
        """End an invocation whose answer could not be handed on: 500, or the end of what was already begun."""
        if worker.calls.get(call.number) is call:
            self._close(worker, call, "error")
        message = "The runtime failed at the function's answer: see its log"
        self._fail(call, {"errorType": "Runtime.Fault", "errorMessage": message}, 500, "Unhandled")

    def _pace(self, worker: Worker, call: Call) -> None:
        """Let a stream wait whose caller reads slowly."""
        if call.connection.call is call and call.connection.full:
            worker.hold(call)

    def timed_out(self, worker: Worker, call: Call) -> None:
        """Answer for an invocation whose time is over."""
        message = f"{timestamp()} {call.id} Task timed out after {self._settings.timeout:.2f} seconds"
        error = {"errorType": "Sandbox.Timedout", "errorMessage": message}
        call.log_error(error)
        self._report(worker, call, "timeout")
        self._fail(call, error, 504, "Timeout")

    def worker_ended(self, worker: Worker, call: Call) -> None:
        """Answer for an invocation whose worker has ended."""
        told = call.ended != 0.0
        worker.calls.pop(call.number, None)
        call.worker = None
        if told:
            return
        message = f"RequestId: {call.id} Error: {how_it_ended(worker)}"
        error = {"errorType": "Runtime.ExitError", "errorMessage": message}
        call.log_error(error)
        self._report(worker, call, "error")
        self._fail(call, error, 500, "Unhandled")

    def fail_to_start(self, call: Call, error: InitError) -> None:
        """Answer for an invocation that no worker is there for."""
        document = {"errorType": error.error_type, "errorMessage": error.message, "stackTrace": error.stack}
        call.fail(document)

    def _fail(self, call: Call, error: dict[str, Any], status: int, mark: str) -> None:
        if call.connection.call is not call:
            return
        if call.streaming:
            call.connection.abort()
        else:
            call.fail(error, status, mark)

    def _close(self, worker: Worker, call: Call, status: str) -> None:
        """End an invocation: its lines, its report, and the worker is free."""
        if not call.ended:
            self._report(worker, call, status)
        worker.calls.pop(call.number, None)
        call.worker = None
        self._function.free(worker, call)

    def _report(self, worker: Worker, call: Call, status: str) -> None:
        call.read_log(worker)
        call.end()
        worker.quick = call.ended - call.begun < QUICK_SECONDS
        init_ms, worker.init_ms = worker.init_ms, 0.0
        used = 0 if self._settings.external else used_mib(worker, call.ended)  # the other container's can't be seen
        function = self._function
        function.counts.end(status, call.ended - call.begun, used)
        journal.end(call, self._settings.memory, used, init_ms, status)


SWITCHING_PROTOCOLS = 101
STREAM = {"status": 200, "headers": [("content-type", "application/octet-stream")]}
