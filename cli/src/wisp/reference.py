"""The commands in Markdown: `python -m wisp.reference > docs/cli.md`; a test compares the file with this output."""

import sys
from collections.abc import Iterator
from typing import Any

import typer.main

from wisp.commands import app

_HEAD = """\
# wisp: the command

Generated from the commands in `cli/src/wisp` by `python -m wisp.reference`; `wisp COMMAND --help` says the same. The
[guide](guide.md#the-command-wisp) shows them at work. `wisp --version` prints the version.

Results go to standard output, progress and log lines of an invocation to standard error. Exit codes: 0 done; 1 the function or a
condition failed, or the cluster refused; 2 the command or a file is wrong; 3 the cluster can't be reached."""


def document() -> str:
    """The whole page."""
    return "\n\n".join([_HEAD, *_commands(typer.main.get_command(app), "wisp")]) + "\n"


def _commands(command: Any, path: str) -> Iterator[str]:
    """The sections of a command, or of all below a group."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, f"{path} {name}")
        return
    context = command.make_context(path, [], resilient_parsing=True)
    yield f"## {path}"
    yield f"```\n{path} {' '.join(command.collect_usage_pieces(context))}\n```"
    yield " ".join(command.help.split())
    if rows := [_row(parameter, context) for parameter in command.params]:
        yield "\n".join(["| Option | Meaning |", "| --- | --- |", *rows])


def _row(parameter: Any, context: Any) -> str:
    """One option or argument."""
    record = parameter.get_help_record(context)
    names, text = record or (parameter.make_metavar(context), parameter.help or "")
    return f"| `{_cell(names)}` | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(document())
