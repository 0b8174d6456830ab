"""Commands that bring code: init, deploy, dev."""

from pathlib import Path
from typing import Annotated

import typer

from wisp import output
from wisp.commands.options import Namespace, Output, Registry, System
from wisp.output import Format

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to fill; made if need be.")] = Path(),
    *,
    runtime: Annotated[
        str, typer.Option(help="What runs the code: python3.13, nodejs24, provided or container.")
    ] = "python3.13",
    format_: Output = Format.text,
) -> None:
    """Write a function to start from: code, wisp.yaml and a sample event."""
    from wisp import template

    written = [str(path) for path in template.write(folder, runtime)]
    if format_ is Format.json:
        output.show_json({"files": written})
        return
    output.show("\n".join(written))
    output.tell(f"Next: wisp deploy {folder}")


@app.command()
def deploy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with wisp.yaml.")] = Path(),
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Take over fields that others set, with kubectl for instance.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all is ready.")] = True,
    timeout: Annotated[int, typer.Option(min=1, help="How long to wait, in seconds.")] = 180,
    registry: Registry = "",
    namespace: Namespace = None,
    system: System = "wisp-system",
    format_: Output = Format.text,
) -> None:
    """Bring what DIR/wisp.yaml holds to the cluster. Waits until all is ready and prints the URLs."""
    from wisp import deploy as deploying

    done = deploying.deploy(folder, namespace, registry, system, force=force, wait_seconds=timeout if wait else 0)
    if format_ is Format.json:
        output.show_json(output.as_list(done))
        return
    for item in done:
        url = (item.get("status") or {}).get("url") if wait else None
        output.show(f"{deploying.name_of(item)} {url}" if url else deploying.name_of(item))


@app.command()
def dev(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with wisp.yaml.")] = Path(),
    *,
    local: Annotated[
        bool, typer.Option("--local", help="Serve the functions on this machine instead, each on a port of its own.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --local: the first function's port; 0: any.")
    ] = 8080,
    force: Annotated[
        bool, typer.Option("--force", help="Take over fields that others set, with kubectl for instance.")
    ] = False,
    registry: Registry = "",
    namespace: Namespace = None,
    system: System = "wisp-system",
    format_: Output = Format.text,
) -> None:
    """Deploy DIR now and at each save, and print the functions' log lines, until Ctrl-C. With -o json the lines stay as they are."""
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raw = format_ is Format.json
    if local:
        from wisp import serve

        serve.serve(folder, port, raw=raw)
        return
    from wisp import dev as syncing

    syncing.sync(folder, namespace, registry, system, force=force, raw=raw)
