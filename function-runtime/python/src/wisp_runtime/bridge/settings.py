"""What the front and the operator say to the bridge through its environment.

Invariant: after ``Settings`` was made, every field is usable as it stands; a wrong value has ended the start with a
sentence that names the variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisp_runtime.errors import InitError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What AWS Lambda keeps from an extension.
_NOT_FOR_EXTENSIONS = frozenset(
    ("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "_HANDLER")
)


class Settings:
    """The bridge's configuration.

    Attributes:
        worker_fd: ``WISP_WORKER_FD``, the socket to the front.
        external: Whether the runtime runs in another container: ``WISP_RUNTIME_API`` is set, and the API's port is descriptor 0.
        max_body: ``WISP_MAX_BODY_BYTES``, bytes that a response may have.
        json_logs: Whether ``WISP_LOG_FORMAT`` is ``json``.
        bootstraps: Where the executable may be, in order.
        extensions_dir: Where extensions are.
        arn: ``WISP_FUNCTION_ARN``.
        function: ``AWS_LAMBDA_FUNCTION_NAME``.
        version: ``AWS_LAMBDA_FUNCTION_VERSION``.
        handler: ``_HANDLER``.
        memory: ``AWS_LAMBDA_FUNCTION_MEMORY_SIZE``, MiB.
        initialization: ``AWS_LAMBDA_INITIALIZATION_TYPE``.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        """Read the environment."""
        self._env = env
        self.worker_fd = _number(env, "WISP_WORKER_FD", -1)
        self.external = bool(env.get("WISP_RUNTIME_API"))
        self.max_body = _number(env, "WISP_MAX_BODY_BYTES", 6 << 20)
        self.json_logs = env.get("WISP_LOG_FORMAT", "json") == "json"
        opt = env.get("WISP_OPT_DIR") or "/opt"
        self.bootstraps = [f"{env.get('LAMBDA_TASK_ROOT') or '/var/task'}/bootstrap", f"{opt}/bootstrap"]
        self.extensions_dir = f"{opt}/extensions"
        self._opt = opt
        self.arn = env.get("WISP_FUNCTION_ARN", "")
        self.function = env.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.version = env.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.handler = env.get("_HANDLER", "")
        self.memory = _number(env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 128)
        self.initialization = env.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        if self.worker_fd < 0:
            raise _invalid("WISP_WORKER_FD is not set: the bridge is started by the front, as WISP_WORKER")
        if env.get("WISP_SIGNATURE", "auto") not in ("auto", "lambda"):
            raise _invalid("runtime provided knows signature lambda only: remove signature, or choose another runtime")

    def runtime_env(self, address: str) -> dict[str, str]:
        """Return the runtime's environment: the container's, the API's address, and layers on the search paths."""
        env = {name: value for name, value in self._env.items() if name not in ("WISP_WORKER", "WISP_WORKER_FD")}
        env["AWS_LAMBDA_RUNTIME_API"] = address
        _append(env, "PATH", f"{self._opt}/bin")
        _append(env, "LD_LIBRARY_PATH", f"{env.get('LAMBDA_TASK_ROOT') or '/var/task'}/lib")
        _append(env, "LD_LIBRARY_PATH", f"{self._opt}/lib")
        return env

    def extension_env(self, address: str) -> dict[str, str]:
        """Return an extension's environment."""
        env = self.runtime_env(address)
        return {name: value for name, value in env.items() if name not in _NOT_FOR_EXTENSIONS}


def _append(env: dict[str, str], name: str, folder: str) -> None:
    """Add a folder to the end of a search path, unless it is on it."""
    folders = [path for path in env.get(name, "").split(":") if path]
    env[name] = ":".join(folders if folder in folders else [*folders, folder])


def _invalid(message: str) -> InitError:
    return InitError("Runtime.InvalidConfiguration", message)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text or text.isdigit():
        return int(text or default)
    raise _invalid(f"{name} must be a whole number, not {text!r}")
