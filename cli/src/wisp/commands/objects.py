"""Commands on what is there: list, describe, rollback, restart, delete."""

from typing import Annotated

import typer

from wisp import output
from wisp.commands.options import AnyName, Name, Namespace, Output
from wisp.output import Format

app = typer.Typer()


@app.command("list")
def list_(
    *,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Those of all namespaces.")] = False,
    namespace: Namespace = None,
    format_: Output = Format.text,
) -> None:
    """List the functions and subscriptions of the namespace."""
    from wisp import objects
    from wisp.cluster import Cluster

    cluster = Cluster(namespace)
    found = objects.list_all(cluster, everywhere=everywhere)
    if format_ is Format.json:
        output.show_json(output.as_list(found))
    elif found:
        output.show(objects.as_tables(found, everywhere=everywhere))
    else:
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        output.tell(f"no functions and no subscriptions in {where}")


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
    output.result(format_, done, f"function/{name} goes back to {done['spec']['pin']}, until the next deploy")


@app.command()
def restart(name: Name, *, namespace: Namespace = None, format_: Output = Format.text) -> None:
    """Roll a function out again as it is, so that its pods read their Secrets anew."""
    from wisp.cluster import Cluster
    from wisp.rollback import restart as restarted

    done = restarted(Cluster(namespace), name)
    output.result(format_, done, f"function/{name} is rolled out again; wisp describe {name} tells how far it is")


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
    output.result(format_, {"deleted": deleted.partition(" ")[0]}, deleted)
    for note in notes:
        output.tell(note)
