"""Which revisions get which share of a Function's requests, now and next.

Pure: `plan` is given what is there and what the status says, and returns Knative's traffic and the status to write. Invariant: all
that a roll-out knows stands in the Function's status, so another operator goes on with it; a revision that has not started never has
a share; traffic names only revisions that exist, because Knative refuses the whole Service otherwise. It could fail where a stable
revision is deleted by hand during a roll-out: then the new one, if it started, takes all.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec
from wisp_api import conditions
from wisp_api.function import FunctionSpec, Rollout, RolloutStatus

from wisp_operator.api import Object
from wisp_operator.function_objects import LATEST
from wisp_operator.status import Aspect, mark_false, mark_true, mark_unknown, timestamp

PROGRESSING: Final = "Progressing"
DONE: Final = "Done"
ROLLED_BACK: Final = "RolledBack"
POLL_SECONDS: Final = 5.0
"""How often the new revision's errors are looked at while a roll-out goes on; less than the shortest time that an idle pod stays."""
ENOUGH: Final = 10
"""Invocations from which on a share of errors means something before the step's time is over."""
_ALL: Final = 100


class Counts(NamedTuple):
    """What the new revision's pods have counted since they started."""

    ended: int = 0
    failed: int = 0
    unread: str = ""
    """Why a running pod's figures could not be read; empty where all were."""


@dataclass(frozen=True)
class Seen:
    """What is there."""

    wanted: str
    """The revision that the present template makes."""
    revisions: dict[str, bool]
    """Those that exist, and whether they have started once."""
    before: RolloutStatus | None
    serving: str | None
    """The revision with the largest share now."""
    counts: Counts


@dataclass(frozen=True)
class Plan:
    """What Knative and the status are told."""

    traffic: list[Object]
    state: RolloutStatus | None = None
    aspect: Aspect | None = None
    """What ServiceReady says where Knative has nothing against the Service."""
    wait: float | None = None
    """In how many seconds to plan anew."""


def plan(spec: FunctionSpec, seen: Seen, now: datetime) -> Plan:
    """The shares, by `pin` where there is one, else by `rollout`, else all for the newest revision that has started."""
    made = _shares(spec, seen, now)
    tags = {name: tag.revision for name, tag in (spec.tags or {}).items()}
    there = {name: revision for name, revision in tags.items() if revision in seen.revisions}
    tagged = [{"tag": name, "revisionName": revision, "percent": 0} for name, revision in sorted(there.items())]
    lost = min(tags.keys() - there.keys(), default="")
    aspect = _no_revision(f"spec.tags.{lost}.revision", tags[lost], seen) if lost else made.aspect
    return Plan(made.traffic + tagged, made.state, aspect, made.wait)


def in_progress(spec: FunctionSpec, before: RolloutStatus | None, wanted: str) -> bool:
    """Whether a roll-out has given the new revision a share and goes by its errors."""
    measured = spec.rollout is not None and spec.rollout.max_error_rate is not None and spec.pin is None
    going = before is not None and (before.state, before.revision) == (PROGRESSING, wanted) and before.percent > 0
    return measured and going


def _shares(spec: FunctionSpec, seen: Seen, now: datetime) -> Plan:
    if spec.pin:
        if spec.pin not in seen.revisions:
            return Plan(_only(seen.serving, seen), seen.before, _no_revision("spec.pin", spec.pin, seen))
        note = f"all requests go to {spec.pin}, as spec.pin says, whatever else the spec says: take it away to go on with {seen.wanted}"
        return Plan(_only(spec.pin, seen), None, mark_true(conditions.PINNED)._replace(message=note))
    if spec.rollout is None:
        return Plan(_only(None, seen))
    state = _begin(seen, now) if seen.before is None or seen.before.revision != seen.wanted else seen.before
    if state.state == PROGRESSING and seen.revisions.get(seen.wanted):
        state = _advance(spec.rollout, state, seen.counts, now)
    return _told(spec.rollout, state, seen, now)


def _begin(seen: Seen, now: datetime) -> RolloutStatus:
    """A roll-out of the wanted revision; done where nothing else could serve."""
    before = seen.before
    stable = (before.revision if before.state == DONE else before.stable) if before else seen.serving
    done = stable is None or stable == seen.wanted or not seen.revisions.get(stable)
    return RolloutStatus(
        revision=seen.wanted,
        stable=None if done and stable != seen.wanted else stable,
        state=DONE if done else PROGRESSING,
        percent=_ALL if done else 0,
        since=timestamp(now),
    )


def _advance(rollout: Rollout, state: RolloutStatus, counts: Counts, now: datetime) -> RolloutStatus:
    """One step on, back, or nothing; the new revision has started."""
    over = now - datetime.fromisoformat(state.since) >= timedelta(seconds=rollout.interval_seconds)
    if state.percent and rollout.max_error_rate is not None:
        rate = counts.failed / counts.ended if counts.ended else 0.0
        if rate > float(rollout.max_error_rate) and (over or counts.ended >= ENOUGH):
            note = f"{counts.failed} of {counts.ended} invocations failed, spec.rollout.maxErrorRate is {rollout.max_error_rate}"
            return msgspec.structs.replace(
                state, state=ROLLED_BACK, percent=0, since=timestamp(now), message=f"at {state.percent} %: {note}"
            )
        if counts.unread:
            return state
    if state.percent and not over:
        return state
    percent = next(step for step in rollout.steps if step > state.percent)
    done = percent == _ALL
    return msgspec.structs.replace(state, percent=percent, state=DONE if done else PROGRESSING, since=timestamp(now))


def _told(rollout: Rollout, state: RolloutStatus, seen: Seen, now: datetime) -> Plan:
    """The shares that a state means, and what is said of it."""
    stable = state.stable if state.stable in seen.revisions else None
    if state.state == DONE or stable is None:
        named = seen.wanted if state.stable and seen.revisions.get(seen.wanted) else None
        return Plan(_only(named, seen), state)
    back = [{"revisionName": stable, "percent": _ALL}]
    if state.state == ROLLED_BACK:
        note = (
            f"revision {state.revision} went back {state.message}. All requests go to {stable}. Correct the code; to try this "
            "revision again take spec.rollout away, or change the spec"
        )
        return Plan(back, state, mark_false(conditions.ROLLED_BACK, note))
    if not state.percent:
        return Plan(back, state)
    shares = [
        {"revisionName": stable, "percent": _ALL - state.percent},
        {"revisionName": state.revision, "percent": state.percent},
    ]
    end = datetime.fromisoformat(state.since) + timedelta(seconds=rollout.interval_seconds)
    wait = min(max((end - now).total_seconds(), 0.5), POLL_SECONDS)
    note = f"{state.percent} % of the requests go to {state.revision} since {state.since}, the others to {stable}"
    if seen.counts.unread:
        note += (
            f"; it goes no further, because the new revision's errors can't be read: {seen.counts.unread}. "
            "Let the operator reach port 9464 of the pods, or take maxErrorRate away"
        )
        return Plan(shares, state, mark_unknown(conditions.ROLLOUT_BLOCKED, note), wait)
    return Plan(shares, state, mark_true(conditions.ROLLING_OUT)._replace(message=note), wait)


def _only(revision: str | None, seen: Seen) -> list[Object]:
    """All for one revision; None or one that is gone: Knative's newest that has started."""
    if revision is None or revision not in seen.revisions:
        return LATEST
    return [{"revisionName": revision, "percent": _ALL}]


def _no_revision(path: str, revision: str, seen: Seen) -> Aspect:
    known = ", ".join(sorted(seen.revisions)) or "none"
    return mark_false(conditions.REVISION_NOT_FOUND, f"{path}: there is no revision {revision}; there are: {known}")
