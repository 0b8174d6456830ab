"""The commands and their options. What they do stands in modules of their own, imported when a command runs."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wisp import output
from wisp.errors import CommandError, UsageError

app = typer.Typer(
    name="wisp",
    help="Functions on your own Kubernetes: deploy, call and watch them.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than the whole of `wisp --help` may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
events = typer.Typer(help="Events and the patterns that filter them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(events, name="events")
dead = typer.Typer(
    help="Dead letters: events that were not delivered, with the reason.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(dead, name="dead")


class Format(StrEnum):
    """What the result looks like."""

    text = "text"
    json = "json"


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


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to fill; made if need be.")] = Path(),
    *,
    runtime: Annotated[str, typer.Option(help="What runs the code.")] = "python3.13",
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
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Bring what DIR/wisp.yaml holds to the cluster. Waits until all is ready and prints the URLs."""
    from wisp import deploy as deploying

    done = deploying.deploy(folder, namespace, force=force, wait_seconds=timeout if wait else 0)
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
    namespace: Namespace = None,
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

    syncing.sync(folder, namespace, force=force, raw=raw)


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
        typer.Option("--cloudevent", help="Send a CloudEvent: the payload, where it is one, or one with it as data."),
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
            help="Whose token is shown to a function with auth type token, and with --async to the platform.",
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
            help="Run it on this machine, from DIR/wisp.yaml, with the payload as its event.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Call a function and print its answer. Without a payload it is a GET, else a POST; the exit code is 1 if it fails."""
    from wisp import invoke as calling
    from wisp.cluster import Cluster

    payload = _payload(stdin, data, file)
    call = calling.make_call(payload, path, as_event=cloudevent)
    if local is not None:
        from wisp import local as running

        running.run(local, name, call.body or b"{}")
        return
    cluster = Cluster(namespace)
    who = calling.Credentials(calling.read_token(token_file), service_account)
    if asynchronous:
        from wisp import asynchronous as handing

        if tail or path != "/":
            raise UsageError("--async goes to the platform, not to the function: leave out --tail and --path")
        request_id = handing.invoke(cluster, name, call, who, system)
        if format_ is Format.json:
            output.show_json({"requestId": request_id})
        else:
            output.show(request_id)
        return
    answer = calling.invoke(cluster, name, call, who)
    lines = calling.tail(cluster, name, answer.request_id) if tail and answer.request_id else []
    for line in lines:
        output.tell(line)
    if format_ is Format.json:
        decoded = answer.json()
        body = decoded if decoded is not None else answer.body.decode(errors="replace")
        output.show_json(
            {"status": answer.status, "requestId": answer.request_id, "headers": answer.headers, "body": body}
        )
    elif not answer.failed:
        sys.stdout.buffer.write(answer.body + (b"\n" if answer.body and sys.stdout.isatty() else b""))
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
    system_namespace: Annotated[
        str, typer.Option(metavar="NAMESPACE", help="Where Wisp itself is installed, which keeps these.")
    ] = "wisp-system",
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
            found = kept.read(cluster, function, system_namespace, seconds, request)
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


@app.command("list")
def list_(*, namespace: Namespace = None, format_: Output = Format.text) -> None:
    """List the functions and subscriptions of the namespace."""
    from wisp import objects
    from wisp.cluster import Cluster

    cluster = Cluster(namespace)
    found = objects.list_all(cluster)
    if format_ is Format.json:
        output.show_json(output.as_list(found))
    elif found:
        output.show(objects.as_tables(found))
    else:
        output.tell(f"no functions and no subscriptions in namespace {cluster.namespace}")


@app.command()
def describe(name: AnyName, *, namespace: Namespace = None, format_: Output = Format.text) -> None:
    """Tell all of a function or subscription. Conditions with what to do, revisions, last events."""
    from wisp import objects
    from wisp.cluster import Cluster

    cluster = Cluster(namespace)
    found = objects.find(cluster, name)
    if format_ is Format.json:
        output.show_json(found[0] if len(found) == 1 else output.as_list(found))
        return
    output.show("\n\n".join(objects.describe(cluster, item) for item in found))


@app.command()
def rollback(
    name: Name,
    *,
    to: Annotated[str | None, typer.Option(metavar="REVISION", help="The revision; absent: the one before.")] = None,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Send all requests to an earlier revision. It stays so until the next deploy."""
    from wisp.cluster import Cluster
    from wisp.rollback import rollback as roll_back

    done = roll_back(Cluster(namespace), name, to)
    if format_ is Format.json:
        output.show_json(done)
    else:
        output.show(f"function/{name} goes back to {done['spec']['pin']}, until the next deploy")


@app.command()
def restart(name: Name, *, namespace: Namespace = None, format_: Output = Format.text) -> None:
    """Roll a function out again as it is, so that its pods read their Secrets anew."""
    from wisp.cluster import Cluster
    from wisp.rollback import restart as restarted

    done = restarted(Cluster(namespace), name)
    if format_ is Format.json:
        output.show_json(done)
    else:
        output.show(f"function/{name} is rolled out again; wisp describe {name} tells how far it is")


@app.command()
def delete(
    name: AnyName,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Delete a function or a subscription."""
    from wisp import objects
    from wisp.cluster import Cluster

    deleted, *notes = objects.delete(Cluster(namespace), name, wait=wait)
    if format_ is Format.json:
        output.show_json({"deleted": deleted.partition(" ")[0]})
    else:
        output.show(deleted)
    for note in notes:
        output.tell(note)


@app.command()
def replay(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The subscription's name.", show_default=False)],
    *,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How far back: 90s, 10m, 2h, 1d, or 2026-01-31T12:00:00Z.", show_default=False
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is moved back.")] = True,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Deliver a subscription's events again, from a time on that the log still holds. The exit code is 1 if it doesn't."""
    from wisp import replay as replaying
    from wisp.cluster import Cluster

    done = replaying.replay(Cluster(namespace), name, since, wait=wait)
    if format_ is Format.json:
        output.show_json(done)
    else:
        output.show(f"subscription/{name}: {done['message']}")


Letters = Annotated[list[int] | None, typer.Option("--id", metavar="ID", help="Only this letter; may be repeated.")]
From = Annotated[
    str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="Only those of this subscription.", show_default=False)
]


@dead.command("list")
def list_dead(
    subscription: From = None,
    *,
    system: System = "wisp-system",
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """List the namespace's dead letters, the oldest first."""
    from wisp import dead as letters
    from wisp.cluster import Cluster

    found = letters.Letters(Cluster(namespace), system).all(subscription)
    if format_ is Format.json:
        output.show_json(list(found))
        return
    rows = letters.as_rows(found)
    if rows:
        output.show(output.table(letters.COLUMNS, rows))
    else:
        output.tell("no dead letters")


@dead.command("show")
def show_dead(
    letter: Annotated[int, typer.Argument(metavar="ID", help="The letter's number.", show_default=False)],
    *,
    system: System = "wisp-system",
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Print a dead letter's event, for `wisp invoke NAME - --local DIR`; its story goes to standard error. With -o json all in one."""
    from wisp import dead as letters
    from wisp.cluster import Cluster

    found = letters.Letters(Cluster(namespace), system).one(letter)
    if format_ is Format.json:
        output.show_json(found)
        return
    for line in letters.story(found):
        output.tell(line)
    if "event" in found:
        output.show_json(found["event"])
    else:
        output.show(found.get("input", ""))


@dead.command()
def redrive(
    subscription: From = None,
    *,
    ids: Letters = None,
    rate: Annotated[int, typer.Option(min=1, help="Events a second, at most.")] = 100,
    system: System = "wisp-system",
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Send events again to the subscription that they came from, under the same ids, and drop their letters. Without a subscription: all."""
    from wisp import dead as letters
    from wisp.cluster import Cluster

    done = letters.Letters(Cluster(namespace), system).redrive(subscription, ids, rate)
    if format_ is Format.json:
        output.show_json(done)
    else:
        output.show(f"{done['done']} sent again")
    for kept in done["kept"]:
        output.tell(f"letter {kept['id']} stays: {kept['message']}")
    if done["kept"]:
        raise typer.Exit(1)


@dead.command()
def purge(
    subscription: From = None,
    *,
    ids: Letters = None,
    all_: Annotated[bool, typer.Option("--all", help="All of the namespace.")] = False,
    system: System = "wisp-system",
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """Drop dead letters: their events are gone for good."""
    from wisp import dead as letters
    from wisp.cluster import Cluster

    if not (subscription or ids or all_):
        raise UsageError("which ones? Name a subscription, --id ID, or --all")
    done = letters.Letters(Cluster(namespace), system).purge(subscription, ids)
    if format_ is Format.json:
        output.show_json(done)
    else:
        output.show(f"{done['done']} dropped")


@events.command("test-pattern")
def match_pattern(
    *,
    pattern: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The pattern, as in a Subscription's filter (JSON or YAML).", show_default=False
        ),
    ],
    event: Annotated[
        str,
        typer.Option(metavar="FILE", help="The CloudEvent (JSON or YAML); - is standard input.", show_default=False),
    ],
    format_: Output = Format.text,
) -> None:
    """Tell whether a pattern lets an event through. The exit code is 1 if not, 2 if the pattern is wrong."""
    from wisp import testpattern

    matches = testpattern.matches(pattern, event)
    if format_ is Format.json:
        output.show_json({"matches": matches})
    else:
        output.show("matches" if matches else "does not match")
    if not matches:
        raise typer.Exit(1)
