"""A Subscription's finalizer: it stands before anything is made for the Subscription, and goes when nothing is left."""

from wisp_api import names

from wisp_operator.api import SUBSCRIPTIONS, Api, Object
from wisp_operator.event_plane import View
from wisp_operator.sources import Wish


async def add_finalizers(api: Api, view: View) -> None:
    """Before anything is made for a Subscription, see to it that it can't go without us."""
    for index, wish in enumerate(view.wishes):
        held = wish.live["metadata"].get("finalizers", [])
        if wish.deleting or names.FINALIZER in held:
            continue
        patched = await api.merge(SUBSCRIPTIONS, view.namespace, wish.name, _finalizers(wish, [*held, names.FINALIZER]))
        if patched is not None:
            view.wishes[index] = Wish(patched, wish.spec)


async def remove_finalizer(api: Api, wish: Wish) -> None:
    """Let a Subscription go."""
    held = wish.live["metadata"].get("finalizers", [])
    if names.FINALIZER in held:
        kept = [item for item in held if item != names.FINALIZER]
        await api.merge(SUBSCRIPTIONS, wish.live["metadata"]["namespace"], wish.name, _finalizers(wish, kept))


def _finalizers(wish: Wish, finalizers: list[str]) -> Object:
    version = wish.live["metadata"]["resourceVersion"]
    return {"metadata": {"finalizers": finalizers, "resourceVersion": version}}
