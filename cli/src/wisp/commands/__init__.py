"""The commands and their options. What they do stands in modules of their own, imported when a command runs."""

from typing import Annotated

import typer

from wisp.commands import calls, code, events, objects

app = typer.Typer(
    name="wisp",
    help="Functions on your own Kubernetes: deploy, call and watch them.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than the whole of `wisp --help` may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - called so by typer
    """Print the version and end, where that is asked for."""
    if not wanted:
        return
    from importlib.metadata import version

    from wisp import output

    output.show(f"wisp {version('wisp')}")
    raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for part in (code, calls, objects, events):
    app.add_typer(part.app)
