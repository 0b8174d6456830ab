"""The commands and their options. What they do stands in modules of their own, imported when a command runs."""

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
for part in (code, calls, objects, events):
    app.add_typer(part.app)
