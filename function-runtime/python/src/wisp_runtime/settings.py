"""What the operator tells the process through its environment, read once and validated.

Invariant: after ``read_settings`` returned, every field is usable as it stands; a wrong value has ended the start with
a sentence that names the variable. Two variables are read elsewhere, where their use is: WISP_LOG_LEVEL (``logs``, when
``logging`` is imported) and PYTHONPATH (``loading``, in place of the interpreter).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisp_runtime.errors import InitError

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURES = ("auto", "lambda", "cloudevent", "http")


class Settings:
    """The process's configuration.

    Attributes:
        host: Address to listen on; empty for every address, IPv6 and IPv4.
        port: ``PORT``, which Knative injects.
        handler: ``WISP_HANDLER``, as ``module.attribute``.
        signature: ``WISP_SIGNATURE``, one of ``SIGNATURES``.
        function: ``WISP_FUNCTION``, the Function's name.
        namespace: ``WISP_NAMESPACE``, the Function's namespace.
        revision: ``K_REVISION``, the Knative revision, Lambda's function version.
        timeout: ``WISP_TIMEOUT_SECONDS``, seconds that one invocation may take.
        init_timeout: ``WISP_INIT_TIMEOUT_SECONDS``, seconds that importing the handler may take.
        memory: ``WISP_MEMORY_MB``, the memory limit in MiB as the handler is told it.
        code_dir: ``WISP_CODE_DIR``, the folder of the code: working directory and first on the import path.
        max_body: ``WISP_MAX_BODY_BYTES``, bytes that a request's or a reply's body may have.
        termination_log: ``WISP_TERMINATION_LOG``, the file that tells Kubernetes why the start failed.
        listen_fd: ``WISP_LISTEN_FD``, an already listening socket inherited from this process's former self, or -1.
    """

    def __init__(self, env: Mapping[str, str], handler: str | None = None, code_dir: str | None = None) -> None:
        """Read the environment; ``handler`` and ``code_dir`` are given where a person serves locally."""
        local = handler is not None
        self.host = env.get("WISP_HOST", "127.0.0.1" if local else "")
        self.port = int(_number(env, "PORT", 8080, 0, 65535))
        self.handler = handler or env.get("WISP_HANDLER", "")
        self.signature = env.get("WISP_SIGNATURE") or "auto"
        self.function = env.get("WISP_FUNCTION") or self.handler.partition(".")[0]
        self.namespace = env.get("WISP_NAMESPACE") or "default"
        self.revision = env.get("K_REVISION") or "$LATEST"
        self.timeout = _number(env, "WISP_TIMEOUT_SECONDS", 30, 0.001, 86400)
        self.init_timeout = _number(env, "WISP_INIT_TIMEOUT_SECONDS", 10, 0.001, 86400)
        self.memory = int(_number(env, "WISP_MEMORY_MB", 256, 1, 1 << 30))
        self.code_dir = code_dir or env.get("WISP_CODE_DIR") or "/var/task"
        self.max_body = int(_number(env, "WISP_MAX_BODY_BYTES", 6 * 1024 * 1024, 0, 1 << 40))
        self.termination_log = env.get("WISP_TERMINATION_LOG", "" if local else "/dev/termination-log")
        self.listen_fd = int(_number(env, "WISP_LISTEN_FD", -1, -1, 1 << 20))
        if not self.handler:
            raise InitError("Runtime.InvalidConfiguration", "WISP_HANDLER is not set: give it as module.attribute")
        if self.signature not in SIGNATURES:
            wanted = ", ".join(SIGNATURES)
            message = f"WISP_SIGNATURE must be one of {wanted}, not {self.signature!r}"
            raise InitError("Runtime.InvalidConfiguration", message)


def _number(env: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    """Read a number within bounds, or say which variable is wrong."""
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if least <= value <= most:
        return value
    message = f"{name} must be a number from {least:g} to {most:g}, not {text!r}"
    raise InitError("Runtime.InvalidConfiguration", message)
