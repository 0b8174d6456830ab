"""A Function's requirements: built once into a layer, by a Job of its namespace, and remembered in its status.

May run at any time, and be broken off anywhere. Functions with the same key share a layer: who finds it in another Function's status
takes it over, who finds a Job of that name waits for it. A layer that the store holds no longer is built again.
"""

from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from wisp_api import conditions, names
from wisp_api.code import FetchResult
from wisp_api.function import FunctionSpec
from wisp_api.requirements import BuiltRequirements

from wisp_operator.api import FUNCTIONS, JOBS, PODS, ApiError, Object
from wisp_operator.code_job import JOB_POD, finished, read_result
from wisp_operator.code_store import CodeStore, StoreError
from wisp_operator.context import Context
from wisp_operator.function_objects import make_owner_reference
from wisp_operator.requirements_objects import build_job_name, build_key, make_build_job
from wisp_operator.status import Aspect, mark_false, mark_unknown, next_try, timestamp, wrong_before

_SOON: Final = 1.0
_OTHERS_SECONDS: Final = 5.0
"""How often to look at a Job that another Function made: its events don't come here."""
_STORE_SECONDS: Final = 5.0
_REFUSALS: Final = {403, 422}
_CONFLICT: Final = 409
_FIELD: Final = "spec.requirements: "


class Requirements(NamedTuple):
    """What is known of a Function's requirements."""

    built: BuiltRequirements | None = None
    """To be remembered."""
    problem: Aspect | None = None
    """Why there is no layer (yet) of what the spec says now."""
    again: float | None = None
    """In how many seconds to look again."""


async def resolve(
    context: Context, store: CodeStore, function: Object, spec: FunctionSpec, now: datetime
) -> Requirements:
    """Find out what layer the requirements make, with a Job where it isn't known.

    Raises:
        ApiError: the API refused.
    """
    if not spec.requirements:
        return Requirements()
    held, key = remembered(function), build_key(spec, context.config)
    if held and held.key == key:
        return Requirements(held)
    try:
        built = await _Building(context, store, function, spec, key).advance(now)
    except StoreError as error:
        built = _waits(conditions.CODE_STORE_UNAVAILABLE, f"{error}; tried again", _STORE_SECONDS)
    return built if built.built else built._replace(built=held)


def remembered(function: Object) -> BuiltRequirements | None:
    """What was built of a Function's requirements, maybe of earlier ones."""
    found = function.get("status", {}).get("requirements")
    return msgspec.convert(found, BuiltRequirements) if found else None


class _Building:
    """One look at a layer that a Function lacks, and at its Job."""

    def __init__(self, context: Context, store: CodeStore, function: Object, spec: FunctionSpec, key: str) -> None:
        """Nothing is asked yet."""
        self._context = context
        self._store = store
        self._function = function
        self._spec = spec
        self._key = key
        self._namespace: str = function["metadata"]["namespace"]
        self._job_name = build_job_name(key)

    async def advance(self, now: datetime) -> Requirements:
        """Take the next step: take over what another Function has, make the Job, take its result over, or wait.

        Raises:
            ApiError, StoreError: the API or the store can't tell.
        """
        if (found := await self._elsewhere()) and await self._there(found.sha256):
            return Requirements(found)
        job = await self._context.api.get(JOBS, self._namespace, self._job_name)
        if job is None:
            return await self._make_job()
        ended = finished(job)
        if ended is None or "deletionTimestamp" in job["metadata"]:
            return self._waits_for(job)
        pods = await self._context.api.list(PODS, self._namespace, f"{JOB_POD}={self._job_name}")
        result = read_result(job, pods, 1, conditions.BUILD_FAILED)
        if result.reason:
            return await self._failed(result, next_try(self._function, ended), now)
        (layer,) = result.archives
        if not await self._there(layer.sha256):
            await self._forget()
            return self._waits_for(job)
        built = BuiltRequirements(
            key=self._key,
            sha256=layer.sha256,
            unpacked_bytes=layer.unpacked,
            packages=result.packages,
            time=timestamp(max(now, ended)),
        )
        return Requirements(built)

    async def _elsewhere(self) -> BuiltRequirements | None:
        """What another Function of the namespace remembers of the same layer."""
        for other in await self._context.api.list(FUNCTIONS, self._namespace):
            if (found := remembered(other)) and found.key == self._key:
                return found
        return None

    async def _there(self, sha256: str) -> bool:
        return not await self._store.lacks(self._namespace, {sha256})

    async def _make_job(self) -> Requirements:
        owner = make_owner_reference(self._function)
        job = make_build_job(self._function, owner, self._spec, self._context.config)
        try:
            await self._context.api.create(JOBS, self._namespace, job)
        except ApiError as error:
            if error.status == _CONFLICT:  # another Function was faster
                return self._waits_for(job, _OTHERS_SECONDS)
            if error.status not in _REFUSALS:
                raise
            told = f"the Job that builds the requirements is refused; does a quota or policy of the namespace forbid it? {error}"
            return Requirements(problem=mark_false(conditions.BUILD_FAILED, told))
        return self._waits_for(job)

    async def _failed(self, result: FetchResult, due: datetime, now: datetime) -> Requirements:
        """Tell why, and try again after a while, for what is wrong may be put right without a change of the Function."""
        if now >= due:
            await self._forget()
            self._store.forget(self._namespace)
        problem = mark_false(result.reason, f"{_FIELD}{result.message}; tried again at {timestamp(due)}")
        return Requirements(problem=problem, again=max((due - now).total_seconds(), _SOON))

    async def _forget(self) -> None:
        await self._context.api.delete(JOBS, self._namespace, self._job_name)

    def _waits_for(self, job: Object, again: float | None = None) -> Requirements:
        """Events of the Job lead to the Function that made it; others look themselves."""
        ours = job["metadata"].get("labels", {}).get(names.FUNCTION_LABEL) == self._function["metadata"]["name"]
        if before := wrong_before(self._function, _FIELD):
            return Requirements(problem=before, again=again or (None if ours else _OTHERS_SECONDS))
        told = f"the requirements are being resolved and built, by Job {self._job_name} of this namespace"
        return _waits(conditions.BUILDING_REQUIREMENTS, told, again or (None if ours else _OTHERS_SECONDS))


def _waits(reason: str, message: str, again: float | None) -> Requirements:
    return Requirements(problem=mark_unknown(reason, message), again=again)
