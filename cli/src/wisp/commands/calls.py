"""Commands that call a function and read what it says: invoke, logs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wisp import output
from wisp.commands.options import Name, Namespace, Output, System
from wisp.errors import CommandError, UsageError
from wisp.output import Format

app = typer.Typer()


@app.command()
def invoke(
    name: Name,
    stdin: Annotated[
        str | None, typer.Argument(metavar="-", help="-: the payload comes from standard input.", show_default=False)
    ] = None,
    *,
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="JSON", help="The payload.", show_default=False)
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="A file with the payload.", show_default=False)
    ] = None,
    cloudevent: Annotated[
        bool,
        typer.Option(
            "--cloudevent",
            help="Send a CloudEvent with the payload as data. A payload that is a CloudEvent goes as it is.",
        ),
    ] = False,
    path: Annotated[str, typer.Option(help="Path and query of the request.")] = "/",
    asynchronous: Annotated[
        bool,
        typer.Option("--async", help="Don't wait: print the invocation's id once the event log has it."),
    ] = False,
    service_account: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose token is shown to a function with auth type token, and to the platform where it takes the invocation.",
        ),
    ] = "default",
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A file with the token to show instead; or set WISP_TOKEN.", show_default=False
        ),
    ] = None,
    system: System = "wisp-system",
    tail: Annotated[bool, typer.Option("--tail", help="Then print the log lines of this invocation.")] = False,
    local: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run it on this machine, from DIR/wisp.yaml, with the same request.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Call a function and print its answer. Without a payload it is a GET, else a POST; the exit code is 1 if it fails."""
    from wisp import invoke as calling
    from wisp.cluster import Cluster

    call = calling.make_call(_payload(stdin, data, file), path, as_event=cloudevent)
    if local is not None:
        from wisp import local as running

        if asynchronous:
            raise UsageError("--local runs it here and waits: leave out --async, --cloudevent sends what it would get")
        running.run(local, name, call)
        return
    cluster = Cluster(namespace)
    who = calling.Credentials(calling.read_token(token_file), service_account)
    from wisp import asynchronous as handing

    if asynchronous:
        if tail or path != "/":
            raise UsageError("--async goes to the platform, not to the function: leave out --tail and --path")
        request_id = handing.invoke(cluster, name, call, who, system)
        output.result(format_, {"requestId": request_id}, request_id)
        return
    try:
        answer = calling.invoke(cluster, name, call, who)
    except calling.NoWayError as closed:
        answer = handing.call(cluster, closed, service_account, system)
    lines = calling.tail(cluster, name, answer.request_id) if tail and answer.request_id else []
    for line in lines:
        output.tell(line)
    if format_ is Format.json:
        output.show_json(answer.as_json())
    elif not answer.failed:
        output.show_bytes(answer.body)
    if answer.failed:
        raise CommandError(calling.explain(answer))


def _payload(stdin: str | None, data: str | None, file: str | None) -> bytes | None:
    """What to send, from the one place that was named."""
    if stdin not in (None, "-"):
        raise UsageError(f"{stdin}: write the payload as -d '...', in a file as -f FILE, or - for standard input")
    if sum(given is not None for given in (stdin, data, file)) > 1:
        raise UsageError("the payload comes from one place: -d, -f or -")
    if data is not None:
        import json

        try:
            json.loads(data)
        except ValueError as error:
            raise UsageError(
                f"-d takes JSON: {error}; other payloads come from a file (-f) or standard input (-)"
            ) from None
        return data.encode()
    if stdin == "-" or file == "-":
        return sys.stdin.buffer.read()
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None


@app.command()
def logs(
    name: Name,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until interrupted, with pods that start later.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Only lines that are younger: 90s, 10m, 2h, 1d.", show_default=False),
    ] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the lines of this invocation.", show_default=False)
    ] = None,
    gone: Annotated[
        bool,
        typer.Option("--gone/--no-gone", help="Also the lines of pods that are gone, without --since of the last day."),
    ] = True,
    system: System = "wisp-system",
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Print what a function's pods say and have said. With -o json the lines stay as they are, one JSON object each."""
    from wisp import kept
    from wisp import logs as reading
    from wisp.cluster import Cluster

    cluster = Cluster(namespace)
    function = reading.require(cluster, name)
    seconds = reading.seconds(since) if since else None
    found: list[kept.Line] = []
    if gone:
        try:
            found = kept.read(cluster, function, system, seconds, request)
        except CommandError as error:
            output.tell(f"without the lines of pods that are gone: {error}")
    lines = (reading.follow if follow else reading.read)(cluster, name, since, found)
    try:
        for line in lines:
            if request is None or reading.belongs(line, request):
                output.show(line if format_ is Format.json else reading.render(line))
                sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # as a shell says it of a program that was interrupted
