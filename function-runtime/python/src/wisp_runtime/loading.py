"""Importing the handler, and saying what went wrong in words that fit into a Function's condition.

Invariant: the process either has a callable handler whose arity fits, or ends with status 1, one structured log line
and a text of at most 2 KiB in the termination log, whatever the import does: fails, exits, hangs. The port is opened
only afterwards.

The import path is the user's first, as in Lambda: code, layers, PYTHONPATH, the standard library, Debian's packages,
and last the runtime's own folder. The runtime has imported what it needs before, so a function's own copy of any of
our dependencies, whatever its version, is what the function gets, and never what we get.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, start_new_thread
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from wisp_runtime import logs
from wisp_runtime.errors import InitError, user_stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from wisp_runtime.settings import Settings

LAYERS = "/opt/python"
TERMINATION_BYTES = 2048
_OURS = "httptools"  # what is imported by now and a function may bring itself
_MAX_NAMES = 20


def load_handler(settings: Settings) -> Callable[..., Any]:
    """Import the handler from the code folder.

    Raises:
        InitError: It can't be imported, isn't there, or isn't callable.
    """
    module_name, dot, attribute = settings.handler.replace("/", ".").rpartition(".")
    if not (dot and module_name and attribute):
        message = f"Handler '{settings.handler}' must be written as module.attribute, for example app.handler"
        raise InitError("Runtime.MalformedHandlerName", message)
    _enter(settings.code_dir)
    module = _import(module_name, settings)
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
    folders = [f"{LAYERS}/lib/{version}/site-packages", LAYERS]
    if sys.flags.ignore_environment:  # the image starts Python with -I
        folders += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.flags.no_site:  # ... and with -S
        folders += [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    return [folder for folder in folders if folder and os.path.isdir(folder)]  # noqa: PTH112


def _import(name: str, settings: Settings) -> ModuleType:
    """Import the user's module within the time that it has."""
    done = allocate_lock()
    done.acquire()
    start_new_thread(_watch_import, (done, name, settings, sys._getframe()))  # noqa: SLF001 - the standard way
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
    except Exception as error:  # noqa: BLE001 - whatever user code raises
        stack = user_stack(error.__traceback__)
        message = f"Unable to import module '{name}': {type(error).__name__}: {error}"
        raise InitError("Runtime.ImportModuleError", message, stack) from None
    finally:
        done.release()


def _watch_import(done: Any, name: str, settings: Settings, importer: Any) -> None:
    """End the process if the import hangs, telling where it stands."""
    if done.acquire(timeout=settings.init_timeout):
        return
    import traceback  # noqa: PLC0415 - needed now only

    main = next((frame for frame in sys._current_frames().values() if _calls(importer, frame)), None)  # noqa: SLF001
    frames = traceback.extract_stack(main) if main else []
    package = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs 10 ms at start
    own = [index for index, frame in enumerate(frames) if frame.filename.startswith((package, "<frozen importlib"))]
    stack = traceback.format_list(frames[own[-1] + 1 :] if own else frames)
    message = f"Module '{name}' was not imported within {settings.init_timeout:g} seconds"
    fail(InitError("Runtime.InitTimeout", message, stack), settings.termination_log)


def _calls(importer: Any, frame: Any) -> bool:
    """Whether a stack stands in our import."""
    while frame is not None:
        if frame is importer:
            return True
        frame = frame.f_back
    return False


def fail(error: InitError, termination_log: str) -> NoReturn:
    """Say why the start failed, in the log and to Kubernetes, and end the process."""
    logs.end_invocation()
    logs.emit("ERROR", f"{error.error_type}: {error.message}", errorType=error.error_type, stackTrace=error.stack)
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
