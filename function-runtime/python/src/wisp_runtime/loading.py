"""Importing the handler, and saying what went wrong in words that fit into a Function's condition.

Invariant: ``load_handler`` returns a callable or raises ``InitError``, whatever the import does: fails, exits. One that
hangs is told of by the process's alarm, with the place where it stands; the front ends the process in any case.

The import path is the user's first, as in Lambda: code, layers, PYTHONPATH, the standard library, Debian's packages,
and last the runtime's own folder. The runtime has imported what it needs before, so a function's own copy of any of
our dependencies, whatever its version, is what the function gets, and never what we get.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from wisp_runtime.errors import InitError, user_stack
from wisp_runtime.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from typing import Any, NoReturn

    from wisp_runtime.settings import Settings

_OURS = "httptools"  # what is imported by now and a function may bring itself
# What a server in Python has always imported by now, and ours only where it is needed: nothing stands in for it.
_STANDARD = {"array", "bisect", "collections", "contextlib", "copyreg", "enum", "errno", "functools", "heapq", "json"}
_STANDARD |= {"keyword", "operator", "re", "reprlib", "selectors", "signal", "socket", "struct", "typing"}
_MAX_NAMES = 20


class _StandardFinder:
    """A finder that gives these names to the standard library, wherever the function puts folders of its own."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find one of them beside ``os``."""
        del path, target
        if name not in _STANDARD:
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415 - frozen; free when used here

        folder = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib costs 10 ms at start
        return PathFinder.find_spec(name, [folder, f"{folder}/lib-dynload"])


def load_handler(settings: Settings, on_hang: Callable[[InitError], NoReturn]) -> Callable[..., Any]:
    """Import the handler from the code folder; where that takes too long, ``on_hang`` is called instead of returning.

    Raises:
        InitError: It can't be imported, isn't there, or isn't callable.
    """
    module_name, dot, attribute = settings.handler.replace("/", ".").rpartition(".")
    if not (dot and module_name and attribute):
        message = f"Handler '{settings.handler}' must be written as module.attribute, for example app.handler"
        raise InitError("Runtime.MalformedHandlerName", message)
    _enter(settings.code_dir)
    module = _import(module_name, settings.init_timeout, on_hang)
    try:
        handler = getattr(module, attribute)
    except AttributeError:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        own = [name for name in names if getattr(vars(module)[name], "__module__", "") == module.__name__]
        defines = ", ".join((own or names)[:_MAX_NAMES]) or "nothing callable"
        message = f"Handler '{attribute}' missing on module '{module_name}'; it defines: {defines}"
        raise InitError("Runtime.HandlerNotFound", message) from None
    if not callable(handler):
        message = f"Handler '{attribute}' of module '{module_name}' is a {type(handler).__name__}, not a function"
        raise InitError("Runtime.HandlerNotFound", message)
    return handler  # type: ignore[no-any-return] # callable() says so


def _enter(code_dir: str) -> None:
    """Make the code folder the working directory and the first entry of the import path."""
    try:
        os.chdir(code_dir)
    except OSError as error:
        message = f"The code folder {code_dir} can't be entered: {error.strerror}"
        raise InitError("Runtime.InvalidConfiguration", message) from None
    code_dir = os.getcwd()  # noqa: PTH109 - pathlib costs 10 ms at start
    if sys.flags.no_site:
        _add_exit()
    users = [code_dir, *user_folders()]
    if any(os.path.exists(os.path.join(folder, _OURS)) for folder in users):  # noqa: PTH110, PTH118
        for name in [name for name in sys.modules if name.partition(".")[0] == _OURS]:
            del sys.modules[name]
    sys.meta_path.insert(0, _StandardFinder())
    sys.path[:] = [*users, *(entry for entry in sys.path if entry not in {"", *users})]


def _add_exit() -> None:
    """Define ``exit`` and ``quit``, which ``site`` does where it isn't left out."""
    import builtins  # noqa: PLC0415 - the two of them are small and only the image needs them
    from _sitebuiltins import Quitter  # noqa: PLC0415

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D"))


def user_folders() -> list[str]:
    """Return the folders of layers, of PYTHONPATH and, where ``site`` was left out, of Debian's packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layers = f"{os.environ.get('WISP_OPT_DIR') or '/opt'}/python"
    folders = [f"{layers}/lib/{version}/site-packages", layers]
    if sys.flags.ignore_environment:  # the image starts Python with -I
        folders += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.flags.no_site:  # ... and with -S
        folders += [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    return [folder for folder in folders if folder and os.path.isdir(folder)]  # noqa: PTH112


def _import(name: str, most_seconds: float, on_hang: Callable[[InitError], NoReturn]) -> ModuleType:
    """Import the user's module within the time that it has."""

    def hangs(number: int, frame: FrameType | None) -> None:
        del number
        message = f"Module '{name}' was not imported within {most_seconds:g} seconds"
        on_hang(InitError("Runtime.InitTimeout", message, _stack_of_import(frame)))

    signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, most_seconds)
    try:
        return import_module(name)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        message = f"Syntax error in module '{name}': {error.msg} ({where})"
        shown = (error.text or "").rstrip()
        raise InitError("Runtime.UserCodeSyntaxError", message, [f"  {where}\n    {shown.strip()}\n"]) from None
    except ImportError as error:
        stack = user_stack(error.__traceback__)
        raise InitError("Runtime.ImportModuleError", f"Unable to import module '{name}': {error}", stack) from None
    except SystemExit as error:
        stack = user_stack(error.__traceback__)
        message = f"Module '{name}' called sys.exit({error.code!r}) while it was imported"
        raise InitError("Runtime.ExitError", message, stack) from None
    except BaseException as error:  # noqa: BLE001 - whatever user code raises
        stack = user_stack(error.__traceback__)
        message = f"Unable to import module '{name}': {type(error).__name__}: {error}"
        raise InitError("Runtime.ImportModuleError", message, stack) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _stack_of_import(frame: FrameType | None) -> list[str]:
    """Format the stack of an import that hangs, from the user's first frame on."""
    import traceback  # noqa: PLC0415 - needed now only

    frames = traceback.extract_stack(frame)
    package = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs 10 ms at start
    own = [index for index, frame in enumerate(frames) if frame.filename.startswith((package, "<frozen importlib"))]
    return traceback.format_list(frames[own[-1] + 1 :] if own else frames)
