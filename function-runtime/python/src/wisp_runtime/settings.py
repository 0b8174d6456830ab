"""What the operator tells the process through its environment, read once and validated.

Invariant: after ``read_settings`` returned, every field is usable as it stands; a wrong value has ended the start with
a sentence that names the variable. Two variables are read elsewhere, where their use is: WISP_LOG_LEVEL (``logs``, when
``logging`` is imported) and PYTHONPATH (``loading``, in place of the interpreter).
"""

from __future__ import annotations

import os

from wisp_runtime.errors import InitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

SIGNATURES = ("auto", "lambda", "cloudevent", "http", "asgi")
MIB = 1 << 20
ISOLATIONS = ("worker", "shared", "none")
LOG_FORMATS = ("json", "text")


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
        concurrency: ``WISP_CONCURRENCY``, how many events run at once.
        isolation: ``WISP_ISOLATION``: ``worker``, each event alone in its process, or ``shared``: those of asynchronous
            handlers together in one, or ``none``: one after the other in the process that serves their callers.
        worker_command: ``WISP_WORKER``, the program that runs the code in place of Python, as a list of words.
        external: ``WISP_RUNTIME_API``, the port of 127.0.0.1 that code in another container knows; 0 where it runs here.
        log_format: ``WISP_LOG_FORMAT``, ``json`` or ``text``.
        max_queue: ``WISP_MAX_QUEUE``, how many requests may wait for a worker.
        max_buffered: ``WISP_MAX_BUFFERED_BYTES``, bytes of request bodies that may be in hand at once.
        metrics_port: ``WISP_METRICS_PORT``, 0 for none.
        log_url: ``WISP_LOG_URL``, where log lines go besides stdout; empty: nowhere.
        log_token_file: ``WISP_LOG_TOKEN_FILE``, the token to show there.
        auth_file: ``WISP_AUTH_FILE``, whose tokens callers may show (``auth.issuers``); empty: nobody needs one.
    """

    def __init__(self, env: Mapping[str, str], handler: str | None = None, code_dir: str | None = None) -> None:
        """Read the environment; ``handler`` and ``code_dir`` are given where a person serves locally."""
        local = handler is not None
        self.host = env.get("WISP_HOST", "127.0.0.1" if local else "")
        self.port = int(_number(env, "PORT", 8080, 0, 65535))
        self.handler = handler or env.get("WISP_HANDLER", "")
        self.signature = _choice(env, "WISP_SIGNATURE", SIGNATURES)
        self.function = env.get("WISP_FUNCTION") or self.handler.partition(".")[0]
        self.namespace = env.get("WISP_NAMESPACE") or "default"
        self.revision = env.get("K_REVISION") or "$LATEST"
        self.timeout = _number(env, "WISP_TIMEOUT_SECONDS", 30, 0.001, 86400)
        self.init_timeout = _number(env, "WISP_INIT_TIMEOUT_SECONDS", 10, 0.001, 86400)
        self.memory = int(_number(env, "WISP_MEMORY_MB", 256, 1, 1 << 30))
        self.code_dir = code_dir or env.get("WISP_CODE_DIR") or "/var/task"
        self.max_body = int(_number(env, "WISP_MAX_BODY_BYTES", 6 * 1024 * 1024, 0, 1 << 40))
        self.termination_log = env.get("WISP_TERMINATION_LOG", "" if local else "/dev/termination-log")
        self.isolation = _choice(env, "WISP_ISOLATION", ISOLATIONS)
        if self.isolation == "none":
            self.isolation = "worker" if local else _check_alone(env)
        self.concurrency = 1 if self.isolation == "none" else int(_number(env, "WISP_CONCURRENCY", 1, 1, 1000))
        self.external = _port(env.get("WISP_RUNTIME_API", ""))
        self.log_format = _choice(env, "WISP_LOG_FORMAT", LOG_FORMATS)
        self.worker_command = _words(env.get("WISP_WORKER", ""))
        self.max_queue = int(_number(env, "WISP_MAX_QUEUE", 256, 0, 1 << 20))
        least = max(2 * self.max_body, self.memory * MIB // 4)
        self.max_buffered = int(_number(env, "WISP_MAX_BUFFERED_BYTES", least, 1, 1 << 50))
        self.metrics_port = int(_number(env, "WISP_METRICS_PORT", 0 if local else 9464, 0, 65535))
        self.auth_file = env.get("WISP_AUTH_FILE", "")
        self.log_url = env.get("WISP_LOG_URL", "")
        self.log_token_file = env.get("WISP_LOG_TOKEN_FILE", "/etc/wisp/logs/token")
        self.arn = f"arn:wisp:lambda:::function:{self.namespace}:{self.function}"
        self.log_group = f"/wisp/{self.namespace}/{self.function}"
        self.told = {  # what a Lambda handler's context says of it
            "function_name": self.function,
            "function_version": self.revision,
            "memory_limit_in_mb": str(self.memory),
            "invoked_function_arn": self.arn,
            "log_group_name": self.log_group,
            "log_stream_name": self.revision,
        }
        if not self.handler:
            raise InitError("Runtime.InvalidConfiguration", "WISP_HANDLER is not set: give it as module.attribute")

    def export(self, env: MutableMapping[str, str]) -> None:
        """Tell the code what Lambda's environment tells, as far as it isn't set otherwise."""
        told = {
            "LAMBDA_TASK_ROOT": self.code_dir,
            "LAMBDA_RUNTIME_DIR": os.path.dirname(__file__),  # noqa: PTH120 - pathlib costs 10 ms at start
            "AWS_LAMBDA_FUNCTION_NAME": self.function,
            "AWS_LAMBDA_FUNCTION_VERSION": self.revision,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory),
            "AWS_LAMBDA_LOG_GROUP_NAME": self.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.revision,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "_HANDLER": self.handler,
            "TZ": ":UTC",
            "WISP_FUNCTION_ARN": self.arn,
            "WISP_HANDLER": self.handler,
            "WISP_CODE_DIR": self.code_dir,
        }
        for name, value in told.items():
            env.setdefault(name, value)
        opt = env.get("WISP_OPT_DIR") or "/opt"
        for name, folder in (("PATH", f"{opt}/bin"), ("LD_LIBRARY_PATH", f"{opt}/lib")):
            folders = env.get(name, "").split(":")
            if folder not in folders:
                env[name] = ":".join([*filter(None, folders), folder])


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Read one of several words, the first by default."""
    value = env.get(name) or choices[0]
    if value not in choices:
        message = f"{name} must be one of {', '.join(choices)}, not {value!r}"
        raise InitError("Runtime.InvalidConfiguration", message)
    return value


def _check_alone(env: Mapping[str, str]) -> str:
    """Refuse what a handler in the serving process can't have."""
    for name, what in (
        ("WISP_WORKER", "of another runtime than Python's"),
        ("WISP_AUTH_FILE", "whose callers show tokens"),
    ):
        if env.get(name):
            message = f"WISP_ISOLATION is none, which no function {what} can have: make it worker or shared"
            raise InitError("Runtime.InvalidConfiguration", message)
    return "none"


def _port(address: str) -> int:
    """Read the address that was given to another container."""
    host, _, port = address.rpartition(":")
    if not address or (host == "127.0.0.1" and port.isdecimal() and 0 < int(port) < 1 << 16):
        return int(port or 0)
    message = f"WISP_RUNTIME_API must be 127.0.0.1:PORT, as it is given to the code's container, not {address!r}"
    raise InitError("Runtime.InvalidConfiguration", message)


def _words(text: str) -> list[str]:
    """Split a command as a shell would."""
    if not text:
        return []
    import shlex  # noqa: PLC0415 - for other programs than Python's workers

    return shlex.split(text)


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
