"""The options that several commands have."""

from typing import Annotated

import typer

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
Name = Annotated[str, typer.Argument(metavar="NAME", help="The function's name.", show_default=False)]
AnyName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A function's or subscription's name; fn/NAME or sub/NAME where both have it.",
        show_default=False,
    ),
]
