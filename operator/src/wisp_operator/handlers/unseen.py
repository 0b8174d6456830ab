"""From when till when nobody could see what changed in a bucket, in the status of its Subscriptions (docs/decisions/0072).

Invariant: to the second, the time written down is never shorter than the real one. Its begin is written before the ingest is told to store no more, its end
after it is told to store again; a crash in between repeats the step.
"""

from datetime import UTC, datetime

from wisp_operator.api import SUBSCRIPTIONS, Api, Object
from wisp_operator.event_plane import Plan, View, is_bound, server_name
from wisp_operator.sources import Wish, binding_key
from wisp_operator.status import timestamp


def unseen_times(view: View, made: Plan, wish: Wish, now: str) -> Object | None:
    """When nobody could see the changes of a Subscription's bucket, once the plan is carried out; None where it never was so."""
    if not wish.spec.source.bucket or not wish.reader:
        return None
    server, bucket = server_name(view, wish), wish.items[0]
    report = view.reports.get(wish.reader)
    item = report.items.get(bucket) if report else None
    bound = binding_key(server, bucket) in made.bindings
    found: Object | None = wish.live.get("status", {}).get("unseen")
    if found and "until" not in found:
        return {**found, "until": now} if bound else found
    if not bound:
        return {"since": now} if is_bound(view, server, bucket) else found
    if item and item.ready and item.unseen_since > (found["since"] if found else ""):
        return {"since": item.unseen_since, "until": now}
    return found


async def tell_unseen(api: Api, view: View, made: Plan, wish: Wish) -> Wish:
    """Write down from when on a bucket's changes are not seen: before it is so, as nothing shows it afterwards."""
    found = unseen_times(view, made, wish, timestamp(datetime.now(UTC)))
    if wish.deleting or found is None or "until" in found or wish.live.get("status", {}).get("unseen") == found:
        return wish
    meta, patch = wish.live["metadata"], {"status": {"unseen": {"until": None, **found}}}
    written = await api.merge(SUBSCRIPTIONS, meta["namespace"], meta["name"], patch, "status")
    return wish._replace(live={**wish.live, "status": written["status"]}) if written else wish
