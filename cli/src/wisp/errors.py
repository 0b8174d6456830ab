"""What a command ends with when it can't do its work: one sentence for people and an exit code for programs."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A function, a condition or the cluster said no."""
USAGE: Final = 2
UNREACHABLE: Final = 3


class CommandError(Exception):
    """Raised when a function failed, a condition is false or the cluster refuses; the message says what to do."""

    exit_code = FAILED


class UsageError(CommandError):
    """Raised when what the user wrote is wrong: an option, wisp.yaml, the kubeconfig, a file that isn't there."""

    exit_code = USAGE


class UnreachableError(CommandError):
    """Raised when there is no cluster to talk to: no kubeconfig, nobody listens, a certificate that isn't trusted."""

    exit_code = UNREACHABLE


class RefusedError(CommandError):
    """Raised when the Kubernetes API refuses a request."""

    def __init__(self, status: int, message: str, causes: list[tuple[str, str]]) -> None:
        """From the API's answer; `causes` are pairs of a field's path and what is wrong with it."""
        super().__init__(message)
        self.status = status
        self.causes = causes
