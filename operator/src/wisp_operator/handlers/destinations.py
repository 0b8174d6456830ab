"""Tells by Events of Functions' destinations that take nothing: a Function's status is written by its own handler, which knows no routes.

An Event tells of each reason once, and once more after a restart of the operator. A destination that comes and goes writes no flood of them: the same
reason is told of again where it had been well, and `_AGAIN_SECONDS` after the last Event.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from wisp_operator.context import Context
from wisp_operator.destinations import Posting, postings
from wisp_operator.event_plane import View
from wisp_operator.status import TRUE, Aspect, write_event
from wisp_operator.subscription_status import destination_aspect

_PENDING_SECONDS: Final = 5.0
_SETTLED_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 600.0


def posted_aspect(view: View, one: Posting, refused: Mapping[str, str]) -> Aspect:
    """Whether a destination takes its records; `refused` is why streams could not be made."""
    found, report = view.sinks.get(one.route), view.route_reports.get(one.route)
    return destination_aspect(found, report, refused.get(one.stream))


async def tell_of_destinations(context: Context, view: View, refused: Mapping[str, str]) -> list[float]:
    """Tell what is new, and forget those that are gone; in how many seconds to look again."""
    before, told, now = context.destinations_told.get(view.namespace, {}), {}, time.monotonic()
    waits = []
    for one in postings((), view.functions.values()):
        aspect = posted_aspect(view, one, refused)
        said = before.get(one.uid)
        if aspect.status != TRUE and (said is None or said[0] != aspect.reason):
            await write_event(context.api, one.owner, aspect.reason, aspect.message, datetime.now(UTC))
            said = aspect.reason, now
        if said and (aspect.status != TRUE or now - said[1] < _AGAIN_SECONDS):
            told[one.uid] = said
        waits.append(_SETTLED_SECONDS if aspect.status == TRUE else _PENDING_SECONDS)
    context.destinations_told[view.namespace] = told
    if not told:
        del context.destinations_told[view.namespace]
    return waits
