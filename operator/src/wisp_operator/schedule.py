"""A Subscription with a schedule: what the ingest is told of it, what is wrong with it, and what its status says. Pure."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from wisp_api import conditions, names, timing
from wisp_api.source import ScheduleConfig, ScheduleStatus
from wisp_api.subscription import SCHEDULE, ScheduleSource

from wisp_operator.sources import Wish
from wisp_operator.status import Aspect, mark_false, mark_true, mark_unknown

DATA_BYTES: Final = 64 * 1024
DATA_LEVELS: Final = 64
LATE: Final = timedelta(minutes=2)
"""A tick that is not in the log by then has something in its way."""
_PATH: Final = "spec.source.schedule"


def schedule_stream(wish: Wish) -> str:
    """The stream of a schedule: its own, so that it goes with the Subscription and one made anew starts empty."""
    meta = wish.live["metadata"]
    return names.stream(meta["namespace"], SCHEDULE, names.owned_source(wish.name, wish.uid))


def schedule_mistake(wish: Wish) -> str:
    """What is wrong with a schedule that the schema can't see, empty if nothing."""
    source = _source(wish)
    try:
        parsed = timing.parse(source.cron, source.timezone, source.at)
    except timing.TimingError as error:
        return f"{_PATH}.{error}"
    made = datetime.fromisoformat(wish.live["metadata"]["creationTimestamp"])
    if parsed.at and parsed.at <= made:
        return f"{_PATH}.at: {source.at} was over when this Subscription was made; write a time to come"
    if _nests_too_deeply(source.data):
        return f"{_PATH}.data: more than {DATA_LEVELS} levels; write what is so deep as a string"
    size = len(msgspec.json.encode(source.data))
    if size > DATA_BYTES:
        return f"{_PATH}.data: {size} bytes as JSON, at most {DATA_BYTES} are taken; write where to find the rest"
    return ""


def _nests_too_deeply(data: Any) -> bool:
    """Whether it has too many levels; what reads the schedule, for all namespaces, could not."""
    level = [data]
    for _ in range(DATA_LEVELS):
        within = [value for value in level if isinstance(value, dict | list)]
        level = [below for value in within for below in (value.values() if isinstance(value, dict) else value)]
    return any(isinstance(value, dict | list) for value in level)


def make_schedule(wish: Wish) -> ScheduleConfig:
    """What the ingest is told."""
    meta, source = wish.live["metadata"], _source(wish)
    return ScheduleConfig(
        namespace=meta["namespace"],
        name=wish.name,
        uid=wish.uid,
        generation=meta["generation"],
        since=meta["creationTimestamp"],
        stream=schedule_stream(wish),
        cron=source.cron,
        timezone=source.timezone,
        at=source.at,
        missed=source.missed or ("once" if source.at else "skip"),
        data=None if source.data is None else msgspec.Raw(msgspec.json.encode(source.data)),
        suspend=wish.spec.suspend,
    )


def schedule_aspect(wish: Wish, report: ScheduleStatus | None, now: datetime) -> Aspect:
    """SourceReady."""
    if mistake := schedule_mistake(wish):
        return mark_false(conditions.INVALID_SCHEDULE, mistake)
    generation = wish.live["metadata"]["generation"]
    if report is None or (report.uid, report.generation) != (wish.uid, generation):
        return mark_unknown(
            conditions.SCHEDULE_PENDING, "the ingest (Deployment wisp-ingest) has not taken the schedule up yet"
        )
    if report.reason:
        return mark_false(report.reason, report.message)
    if report.next and now - datetime.fromisoformat(report.next) > LATE:
        return mark_unknown(
            conditions.SCHEDULE_LATE,
            f"the tick of {report.next} has not come, the ingest is away: "
            "kubectl get pods -A -l app.kubernetes.io/part-of=wisp,app.kubernetes.io/component=ingest",
        )
    return mark_true()


def schedule_in_short(wish: Wish) -> str:
    """For people: the expression, or the time."""
    source = _source(wish)
    return f"{SCHEDULE}/{source.cron or source.at}"


def _source(wish: Wish) -> ScheduleSource:
    assert wish.spec.source.schedule  # noqa: S101 - only called for schedules
    return wish.spec.source.schedule
