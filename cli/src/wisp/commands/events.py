"""Commands on events and their deliveries: replay, dead letters, patterns."""

from typing import Annotated

import typer

from wisp import complete, output
from wisp.commands.options import Namespace, Output, System
from wisp.errors import UsageError
from wisp.output import Format

app = typer.Typer()
events = typer.Typer(help="Events and the patterns that filter them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(events, name="events")
dead = typer.Typer(
    help="Dead letters: events that were not delivered, with the reason.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(dead, name="dead")


@app.command()
def replay(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The subscription's name.", show_default=False, autocompletion=complete.subscriptions
        ),
    ],
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
    output.result(format_, done, f"subscription/{name}: {done['message']}")


Letters = Annotated[list[int] | None, typer.Option("--id", metavar="ID", help="Only this letter; may be repeated.")]
From = Annotated[
    str | None,
    typer.Argument(
        metavar="[SUBSCRIPTION]",
        help="Only those of this subscription.",
        show_default=False,
        autocompletion=complete.subscriptions,
    ),
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
    output.result(format_, done, f"{done['done']} sent again")
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
    output.result(format_, done, f"{done['done']} dropped")


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
    output.result(format_, {"matches": matches}, "matches" if matches else "does not match")
    if not matches:
        raise typer.Exit(1)
