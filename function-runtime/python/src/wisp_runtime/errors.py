"""The errors of the runtime's interface, and an exception as the JSON document that callers and logs get.

Invariant: what a caller sees of a stack is the user's own code, never the runtime's frames: they stand at the top of
the stack and are cut by the package's folder, so that no list of names can go stale.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

_PACKAGE_DIR = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - pathlib costs 10 ms at start
_IMPORT_DIR = os.path.join(os.path.dirname(os.__file__), "importlib", "")  # noqa: PTH118, PTH120 - likewise
_MAX_FRAMES = 50


class InitError(Exception):
    """Raised when the handler cannot be made ready to serve; ends the process."""

    def __init__(self, error_type: str, message: str, stack: list[str] | None = None) -> None:
        """Name the error type, what is wrong and, where user code raised, its stack."""
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.stack = stack or []


class BadRequestError(Exception):
    """Raised when a request can't become an event for this handler; the caller's fault, answered with 4xx."""

    def __init__(self, error_type: str, message: str, status: int = 400, *headers: tuple[str, str]) -> None:
        """Name the error type, a sentence that tells the cure, the HTTP status and headers of the answer."""
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.status = status
        self.headers = headers


class InvalidResultError(Exception):
    """Raised when what the handler returned can't be sent: not serializable, too large, or not a valid response."""

    def __init__(self, error_type: str, message: str) -> None:
        """Name the error type (Lambda's where it has one) and what about the result is wrong."""
        super().__init__(message)
        self.error_type = error_type


def user_stack(trace: TracebackType | None) -> list[str]:
    """Format a traceback's frames from the first one outside this package on, one string a frame."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((_PACKAGE_DIR, _IMPORT_DIR, "<frozen ")):
        trace = trace.tb_next
    frames = _format(trace)
    # A RecursionError has a thousand equal frames; both ends tell the story.
    return frames if len(frames) <= _MAX_FRAMES else [*frames[: _MAX_FRAMES // 2], *frames[-_MAX_FRAMES // 2 :]]


def _format(trace: TracebackType | None) -> list[str]:
    """Format a traceback's frames; without their source lines where a module of the user's stands in the way."""
    try:
        import traceback  # noqa: PLC0415 - needed on errors only

        return traceback.format_tb(trace)
    except Exception:  # noqa: BLE001 - the user's own traceback.py, or what that one would import, does what it will
        frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
        trace = trace.tb_next
    return frames


def describe(error: BaseException) -> tuple[str, str]:
    """Name an exception's type and message as Lambda does."""
    if isinstance(error, InvalidResultError):
        return error.error_type, str(error)
    if isinstance(error, SystemExit):
        return "Runtime.ExitError", f"The handler called sys.exit({error.code!r}); return or raise instead"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        message = "<the exception's text could not be made>"
    return type(error).__name__, message


def function_error(error: BaseException) -> dict[str, Any]:
    """Make the document of a failed invocation: errorType, errorMessage, stackTrace."""
    error_type, message = describe(error)
    stack = [] if isinstance(error, InvalidResultError) else user_stack(error.__traceback__)
    document = {"errorType": error_type, "errorMessage": message, "stackTrace": stack}
    return {name: _valid(value) for name, value in document.items()}


def _valid(value: Any) -> Any:
    """Replace what no encoding can carry, lone surrogates, in texts."""
    if isinstance(value, list):
        return [_valid(item) for item in value]
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
