"""Steps that a person can follow: `[3/12] building kube-apiserver … 41 s`, and failures that say what to do.

Progress goes to standard error, so that a command's result can be piped. Plain text, one line a step, no cursor movement: it reads the same on a
terminal and in a CI log.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

LOG_TAIL_LINES = 25


class ClusterError(Exception):
    """Raised when a step can't be done; carries what a person needs to go on.

    Attributes:
        log: the file that tells more, if there is one; its end is shown.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, log: Path | None = None, hint: str = "") -> None:
        """Keep the sentence, the log and the advice apart, so that they print in a fixed order."""
        super().__init__(message)
        self.log = log
        self.hint = hint

    def report(self) -> str:
        """The whole story for the terminal: what failed, the end of its log, the log's path, what to do."""
        lines = [f"error: {self}"]
        if self.log is not None and self.log.exists():
            tail = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            lines += [f"  | {line}" for line in tail] + [f"the whole log: {self.log}"]
        if self.hint:
            lines.append(f"what to do: {self.hint}")
        return "\n".join(lines)


class Steps:
    """Counts and times the steps of one command. Steps within a step stand indented below it."""

    _open: ClassVar[list[bool]] = []
    """For each step that has begun and not ended, whether its line is still the last one printed."""

    def __init__(self, total: int) -> None:
        """Expect `total` steps in all."""
        self.total = total
        self.done = 0

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Print `[k/n] what …` now and the elapsed seconds when the block ends."""
        self.done += 1
        indent = "      " * len(self._open)
        if self._open and self._open[-1]:
            print(file=sys.stderr, flush=True)
            self._open[-1] = False
        print(f"{indent}[{self.done}/{self.total}] {what} …", end="", file=sys.stderr, flush=True)
        self._open.append(True)
        start = time.monotonic()
        failed = "failed after "
        try:
            yield
            failed = ""
        finally:
            head = "" if self._open.pop() else f"{indent}[{self.done}/{self.total}]"
            print(f"{head} {failed}{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def wait_for(
    condition: Callable[[], str | None], *, seconds: float, what: str, log: Path | None = None, hint: str = ""
) -> None:
    """Poll `condition` until it returns None (it holds); it returns a sentence on what is missing until then.

    Raises:
        ClusterError: it did not hold within `seconds`; the message ends with what was still missing.
    """
    deadline = time.monotonic() + seconds
    while (missing := condition()) is not None:
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} was not ready within {seconds:.0f} s: {missing}", log=log, hint=hint)
        time.sleep(0.2)


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    what: str = "",
    hint: str = "",
    timeout: float = 1800,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: the program and its arguments.
        log: where both outputs go (appended) instead; the result is then empty.
        stdin: text to feed it.
        env: the whole environment, when it is not this process's.
        cwd: the directory to run in.
        what: what the program was to do, for the error's sentence.
        hint: what to do when it fails.
        timeout: seconds after which it is ended.

    Raises:
        ClusterError: it is missing, timed out or ended with a status other than 0.
    """
    name = what or Path(argv[0]).name
    try:
        if log is None:
            done = subprocess.run(
                argv, input=stdin, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
            )
            output, errors = done.stdout, done.stderr.strip()
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as sink:
                done = subprocess.run(
                    argv,
                    input=stdin,
                    env=env,
                    cwd=cwd,
                    stdout=sink,
                    stderr=sink,
                    text=True,
                    timeout=timeout,
                    check=False,
                )
            output, errors = "", ""
    except FileNotFoundError as error:
        raise ClusterError(f"{name}: {error.filename} is not installed", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{name} took longer than {timeout:.0f} s", log=log, hint=hint) from error
    if done.returncode != 0:
        raise ClusterError(
            f"{name} failed with status {done.returncode}" + (f": {errors}" if errors else ""), log=log, hint=hint
        )
    return output
