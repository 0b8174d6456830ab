"""`wisp dev`: what is saved in a folder stands on the cluster seconds later.

Each save is a deploy like any other, of the folder as it is: nothing reaches into pods, and a save that doesn't start leaves
the revision before it serving. Invariant: whatever came between, a save that failed or a cluster that was away, the newest
state of the folder is what is brought next; so it could only go wrong by not looking again, and an error of the folder is
looked at again when a file changes, one of the way to the cluster every RETRY_SECONDS.
"""

import functools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wisp import deploy, image, logs, output, project
from wisp.cluster import Cluster, Object
from wisp.errors import CommandError, UnreachableError, UsageError
from wisp.watch import Watch

RETRY_SECONDS: Final = 5
_WAIT_SECONDS: Final = 180
_TAIL_SINCE: Final = "10s"
"""How old the first lines of a pod may be: those of its start are written before it is found."""


def sync(folder: Path, namespace: str | None, registry: str, system: str, *, force: bool, raw: bool) -> None:
    """Deploy the folder, and again at each save, until interrupted; prints the functions' log lines meanwhile, `raw` or for people.

    `system` is the platform's namespace.

    Raises:
        UsageError: there is no wisp.yaml, or the kubeconfig is wrong.
        UnreachableError: there is no kubeconfig.
    """
    if not (folder / project.FILE).is_file() and not (registry and image.find(folder)):
        raise UsageError(project.absent(folder))
    cluster = Cluster(namespace)
    watch, tails = Watch(folder), _Tails(cluster, raw=raw)
    output.tell(f"what you save in {folder} goes to namespace {cluster.namespace}; Ctrl-C ends it")
    try:
        while True:
            load = functools.partial(_load, folder, registry, watch)
            again = _bring(cluster, load, watch, tails, system, force=force)
            watch.wait(RETRY_SECONDS if again else None)
    except KeyboardInterrupt:
        told = " and ".join(sorted(tails.names)) or "nothing"
        output.tell(f"\nends; on the cluster stays {told}, as last deployed: `wisp delete` removes it")


def _bring(
    cluster: Cluster, load: Callable[[], project.Project], watch: Watch, tails: "_Tails", system: str, *, force: bool
) -> bool:
    """Bring the folder as it is now and tell what came of it; whether to try again although nothing changes."""
    since = time.monotonic()
    watch.take()
    try:
        loaded = load()
        written = deploy.bring(cluster, loaded, system, force=force)
        for item in written:
            tails.follow(item)
        ready = deploy.settle(cluster, written, _WAIT_SECONDS, watch.changed)
    except UnreachableError as error:
        output.tell(f"wisp: {error}: trying again")
        return True
    except CommandError as error:
        output.tell(f"wisp: {error}\nwhat served before goes on serving; waiting for the next save")
        return False
    if not watch.changed():
        _tell_ready(ready, time.monotonic() - since)
    return False


def _load(folder: Path, registry: str, watch: Watch) -> project.Project:
    """What the folder holds, to be served at once: without the steps of a roll-out."""
    loaded = project.load(folder, registry)
    if watch.include([*loaded.folders.values(), *(plan.folder for plan in loaded.images.values())]):
        watch.take()
        loaded = project.load(folder, registry)
    for manifest in loaded.manifests:
        manifest["spec"].pop("rollout", None)
    return loaded


def _tell_ready(ready: list[Object], seconds: float) -> None:
    for item in ready:
        url = (item.get("status") or {}).get("url")
        output.tell(f"{deploy.name_of(item)} ready after {seconds:.1f} s{f': {url}' if url else ''}")


class _Tails:
    """The log lines of the functions, each followed once."""

    def __init__(self, cluster: Cluster, *, raw: bool) -> None:
        """Of none."""
        self._cluster = cluster
        self._raw = raw
        self._followed: dict[str, threading.Thread] = {}
        self.names: set[str] = set()

    def follow(self, item: Object) -> None:
        """Print an object's lines from now on, if it is a function."""
        name = item["metadata"]["name"]
        self.names.add(deploy.name_of(item))
        if item["kind"] == "Function" and name not in self._followed:
            self._followed[name] = threading.Thread(target=self._print, args=(name,), daemon=True)
            self._followed[name].start()

    def _print(self, name: str) -> None:
        while True:
            try:
                for line in logs.follow(self._cluster, name, _TAIL_SINCE):
                    output.show(self._shown(name, line))
                    sys.stdout.flush()
            except CommandError:  # the API is away, or the function: the deploy says so
                time.sleep(RETRY_SECONDS)

    def _shown(self, name: str, line: str) -> str:
        if self._raw:
            return line
        return f"{name}  {logs.render(line)}" if len(self._followed) > 1 else logs.render(line)
