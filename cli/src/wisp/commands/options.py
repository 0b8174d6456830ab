"""The options that several commands have."""

from typing import Annotated

import typer

from wisp import complete
from wisp.output import Format

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="The namespace. Default: the kubeconfig context's.", show_default=False),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="json: the result as one JSON value, for programs.")]
System = Annotated[
    str,
    typer.Option(
        "--system-namespace",
        metavar="NAME",
        envvar="WISP_SYSTEM_NAMESPACE",
        help="The namespace that Wisp itself is installed in.",
    ),
]
Registry = Annotated[
    str,
    typer.Option(
        metavar="REGISTRY",
        envvar="WISP_REGISTRY",
        help="Where images of folders with a Dockerfile are pushed, as registry.example/team; code.image in wisp.yaml says it for one.",
        show_default=False,
    ),
]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The function's name.", show_default=False, autocompletion=complete.functions),
]
AnyName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A function's or subscription's name; fn/NAME or sub/NAME where both have it.",
        show_default=False,
        autocompletion=complete.both,
    ),
]
