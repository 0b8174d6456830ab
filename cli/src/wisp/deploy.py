"""`wisp deploy`: make the functions and subscriptions of a folder stand on the cluster, and wait until they work.

Applied server-side under a field manager of our own: fields that others set stay theirs. An object is done when Ready is True for the
generation that was written, and failed when a condition of that generation has stayed False for SETTLE_SECONDS: what heals by itself in
this time (a pod that waits for its image) is no failure.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from wisp_api import names

from wisp import image, output, project, start, stored
from wisp.cluster import FUNCTION, OURS, Cluster, Object
from wisp.errors import CommandError, RefusedError, UsageError
from wisp.rollback import unpin
from wisp.upload import upload

SETTLE_SECONDS: Final = 5
_POLL_SECONDS: Final = 0.5
_INVALID: Final = 422
_CONFLICT: Final = 409
_NOT_CHECKED: Final = "some validation rules were not checked"
"""What the API adds where a mistake of another kind kept it from looking at all."""
_SUMMARY: Final = "Ready"


def deploy(
    folder: Path, namespace: str | None, registry: str, system: str, *, force: bool, wait_seconds: float
) -> list[Object]:
    """Apply what the folder holds and wait for it; 0 seconds don't wait. Returns the objects as they are then. `system` is the platform's namespace.

    Raises:
        CommandError: refused, or not ready; the message holds the condition's own, which has the function's traceback.
    """
    loaded = project.load(folder, registry)
    cluster = Cluster(namespace)
    written = bring(cluster, loaded, system, force=force)
    return settle(cluster, written, wait_seconds) if wait_seconds else written


def bring(cluster: Cluster, loaded: project.Project, system: str, *, force: bool) -> list[Object]:
    """Build images, upload and apply; returns the objects as they were written. `system` is the platform's namespace.

    Raises:
        CommandError: refused, or an image can't be built or pushed.
    """
    for manifest in loaded.manifests:
        if manifest["kind"] == FUNCTION.kind and (plan := loaded.images.get(manifest["metadata"]["name"])):
            manifest["spec"]["code"] = {"image": image.bring(plan, cluster, manifest["spec"])}
    sent: set[str] = set()
    # After the builds, which may take longer than an archive is kept that nothing names.
    for manifest in loaded.manifests:
        code = manifest["spec"].get("code", {})
        zipped, digest = code.get("zip") or {}, (code.get("stored") or {}).get("sha256", "")
        if data := loaded.archives.get(zipped.get("key", "")):
            upload(cluster, zipped, data)
        elif (
            (data := loaded.archives.get(digest)) and digest not in sent and stored.bring(cluster, digest, data, system)
        ):
            sent.add(digest)
        if digest in sent:
            # A Function that has waited for this archive is looked at again, although its spec is the same.
            manifest["metadata"]["annotations"] = {names.UPLOADED_ANNOTATION: _now()}
    return [_apply(cluster, manifest, force=force) for manifest in loaded.manifests]


def settle(
    cluster: Cluster, written: list[Object], seconds: float, outdated: Callable[[], bool] = lambda: False
) -> list[Object]:
    """The objects when they are ready, or as they are as soon as what was written is outdated.

    Raises:
        CommandError: one is not ready; the message holds the condition's own, which has the function's traceback.
    """
    deadline = time.monotonic() + seconds
    with _progress() as progress:
        outcomes = [_wait(cluster, item, deadline, progress, outdated) for item in written]
    if failures := [text for _, text in outcomes if text]:
        raise CommandError("\n".join(failures))
    return [item for item, _ in outcomes]


def name_of(item: Object) -> str:
    """`function/hello`."""
    return f"{item['kind'].lower()}/{item['metadata']['name']}"


def _apply(cluster: Cluster, manifest: Object, *, force: bool) -> Object:
    before = cluster.get(OURS[manifest["kind"]], manifest["metadata"]["name"])
    try:
        after = cluster.apply(manifest, force=force)
    except RefusedError as error:
        raise _explained(manifest, error) from None
    if "pin" not in manifest["spec"]:
        after = unpin(cluster, after)
    if before is None:
        done = "created"
    else:
        same = before["metadata"]["generation"] == after["metadata"]["generation"]
        done = "unchanged" if same else "updated"
    output.tell(f"{name_of(after)} {done}")
    return after


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _explained(manifest: Object, error: RefusedError) -> CommandError:
    """A refusal in terms of wisp.yaml."""
    if error.status == _INVALID and error.causes:
        causes = [cause for cause in error.causes if _NOT_CHECKED not in cause[1]] or error.causes
        told = [f"{project.FILE}: {project.place(manifest, field)}: {_plain(text)}" for field, text in causes]
        return UsageError("\n".join(dict.fromkeys(told)))
    if error.status == _CONFLICT:
        return CommandError(f"{name_of(manifest)}: {error}: --force takes the fields over")
    return CommandError(f"{name_of(manifest)}: {error}")


def _plain(text: str) -> str:
    """The API's words without what it begins with: `Invalid value: "object": write ...`."""
    return re.sub(r'^Invalid value: ("\w+": )?', "", text)


class _Progress(Protocol):
    def __call__(self, item: Object, state: str) -> None:
        """Show the state of one object."""


@contextmanager
def _progress() -> Iterator[_Progress]:
    """A live line on a terminal, a line for each change elsewhere."""
    if not sys.stderr.isatty():
        seen: dict[str, str] = {}

        def plain(item: Object, state: str) -> None:
            if seen.get(name_of(item)) != state:
                seen[name_of(item)] = state
                output.tell(f"{name_of(item)}: {state}")

        yield plain
        return
    from rich.console import Console  # noqa: PLC0415 - 50 ms, for terminals only

    with Console(stderr=True).status("") as status:
        yield lambda item, state: status.update(f"{name_of(item)}: {state}")


def _wait(
    cluster: Cluster, item: Object, deadline: float, progress: _Progress, outdated: Callable[[], bool]
) -> tuple[Object, str]:
    """The object when it is ready, or as it was last, with what is wrong."""
    kind, meta = OURS[item["kind"]], item["metadata"]
    failed_since: float | None = None
    while True:
        found = cluster.get(kind, meta["name"])
        if found is None or found["metadata"]["uid"] != meta["uid"]:
            return item, f"{name_of(item)}: somebody deleted it meanwhile"
        if outdated():
            return found, ""
        current = (found.get("status") or {}).get("observedGeneration", 0) >= meta["generation"]
        ready = output.condition(found) if current else {}
        if ready.get("status") == "True":
            progress(found, "ready")
            return found, ""
        progress(found, ready.get("reason") or "waiting for the operator")
        if current and kind is FUNCTION and (said := start.crash(cluster, meta["name"])):
            return found, f"{name_of(found)}: its container ends while it starts: {said}"
        now = time.monotonic()
        failed_since = (failed_since or now) if ready.get("status") == "False" else None
        if now > deadline or (failed_since and now - failed_since > SETTLE_SECONDS):
            return found, _failure(found, current=current)
        time.sleep(_POLL_SECONDS)


def _failure(found: Object, *, current: bool) -> str:
    """What keeps it from being ready."""
    if not current:
        return f"{name_of(found)}: nobody has looked at it yet; is Wisp's operator running?"
    conditions = found["status"].get("conditions", [])
    wrong = [each for each in conditions if each["status"] != "True" and each["type"] != _SUMMARY] or [
        output.condition(found)
    ]
    wrong = [each for each in wrong if each.get("status") == "False"] or wrong
    return "\n".join(f"{name_of(found)}: {each['type']}: {each['reason']}: {each['message']}" for each in wrong)
