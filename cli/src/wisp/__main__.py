"""`wisp` and `python -m wisp`: run a command, and end with a sentence and an exit code instead of a traceback."""

import os
import sys

from wisp import output
from wisp.commands import app
from wisp.errors import CommandError


def main() -> None:
    """Run the command of `sys.argv`."""
    try:
        app(prog_name="wisp")
    except CommandError as error:
        output.tell(f"wisp: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
