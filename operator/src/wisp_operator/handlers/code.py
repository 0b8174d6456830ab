"""A Function's archives: fetched once a change by a Job of its namespace, remembered in its status, looked at again from time to time.

May run at any time, and be broken off anywhere: what is known stands in the Function's status and in the Job, which goes only after the
status has its result. While a changed archive can't be had, what was fetched last goes on serving.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from wisp_api import conditions
from wisp_api.code import UNPACKED_BYTES, FetchResult
from wisp_api.function import FetchedArchive, FunctionSpec
from wisp_api.requirements import BuiltRequirements

from wisp_operator.api import JOBS, PODS, ApiError, Object
from wisp_operator.code_job import JOB_POD, finished, read_result
from wisp_operator.code_objects import (
    TASK,
    PodCode,
    job_name,
    make_job,
    make_pod_code,
    sources,
    task_hash,
    used_digests,
)
from wisp_operator.code_store import CodeStore, StoreError
from wisp_operator.context import Context
from wisp_operator.function_objects import make_owner_reference
from wisp_operator.handlers import requirements
from wisp_operator.handlers.requirements import Requirements
from wisp_operator.status import (
    AS_WANTED,
    TRUE,
    Aspect,
    mark_false,
    mark_true,
    mark_unknown,
    next_try,
    timestamp,
    wrong_before,
)

_FIELD: Final = "spec.code: "
_SOON: Final = 1.0
_STORE_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 60.0
_REFUSALS: Final = {403, 422}


class Code(NamedTuple):
    """What is known of a Function's archives."""

    pod: PodCode | None = None
    """For its pods; None where it has no archives, or not all of them (yet)."""
    problem: Aspect | None = None
    """Why not."""
    warning: Aspect | None = None
    """Where a changed archive can't be had: why, while what was fetched before serves on."""
    archives: list[FetchedArchive] = []  # noqa: RUF012 - never changed
    """To be remembered."""
    requirements: BuiltRequirements | None = None
    """To be remembered."""
    again: float | None = None
    """In how many seconds to look again."""

    def fields(self) -> dict[str, Any]:
        """For the status; None takes a field away."""
        made: dict[str, Any] = {
            "archives": msgspec.to_builtins(self.archives) or None,
            "requirements": msgspec.to_builtins(self.requirements),
        }
        return made | ({"codeSha256": self.pod.code} if self.pod and self.pod.code else {})


async def resolve(context: Context, function: Object, spec: FunctionSpec, now: datetime) -> Code:
    """Find out what the archives of a Function are, its requirements' layer among them, with Jobs where it isn't known.

    Raises:
        ApiError: the API refused.
    """
    wanted = bool(sources(spec) or spec.requirements or spec.code.stored)
    if not wanted and "archives" not in function.get("status", {}):
        return Code()
    fetching = _Fetching(context, function, spec, now)
    if not sources(spec) and "archives" in function.get("status", {}):
        await fetching.forget()
    if not wanted:
        return Code()
    if context.code_store is None:
        message = "this installation has no code store (chart value store): put the code into code.files or an image"
        return Code(problem=mark_false(conditions.CODE_STORE_UNAVAILABLE, message))
    await context.code_store.equip(context.api, fetching.namespace)
    code = await fetching.advance()
    if not spec.requirements:
        return code
    return _joined(code, await requirements.resolve(context, context.code_store, function, spec, now))


def _joined(code: Code, found: Requirements) -> Code:
    """Archives and requirements: the latter's layer is the lowest."""
    code = code._replace(requirements=found.built, again=earlier(code.again, found.again))
    problem = code.problem or found.problem or _too_large(code)
    if problem or not code.pod or not found.built:
        return code._replace(pod=None, problem=problem)
    return code._replace(pod=code.pod._replace(layers=(found.built.sha256, *code.pod.layers)))


def _too_large(code: Code) -> Aspect | None:
    size = sum(one.unpacked_bytes for one in code.archives)
    size += code.requirements.unpacked_bytes if code.requirements else 0
    if size <= UNPACKED_BYTES:
        return None
    told = f"requirements, the code's archive and layers take {size >> 20} MiB unpacked; the limit is {UNPACKED_BYTES >> 20} MiB"
    return mark_false(conditions.CODE_TOO_LARGE, f"{told}: leave some out, or build an image")


async def verified(context: Context, store: CodeStore, function: Object, code: Code, live: Object | None) -> Code:
    """The code itself where the store holds its archives, or the Service names them already; else one without pods, and with the problem.

    To be called under the namespace's lock, until the Service is written.

    Raises:
        ApiError: the API refused.
    """
    meta, wanted = function["metadata"], code.pod.digests if code.pod else set()
    if live is not None and wanted <= used_digests(live["spec"]["template"]["spec"]):
        return code
    try:
        lacking = await store.lacks(meta["namespace"], wanted)
    except StoreError as error:
        problem = mark_unknown(conditions.CODE_STORE_UNAVAILABLE, f"{error}; tried again")
        return code._replace(pod=None, problem=problem, again=_STORE_SECONDS)
    if not lacking:
        return code
    await context.api.delete(JOBS, meta["namespace"], job_name(meta["name"]))
    problem = mark_unknown(
        conditions.FETCHING_CODE, "the code store holds the archives no longer: they are fetched again"
    )
    if (stored := function["spec"]["code"].get("stored", {}).get("sha256")) in lacking:
        return code._replace(pod=None, problem=_not_stored(stored), again=_next_look(function))
    held = [one for one in code.archives if one.sha256 not in lacking]
    built = code.requirements if code.requirements and code.requirements.sha256 not in lacking else None
    return Code(problem=problem, archives=held, requirements=built, again=_SOON)


def _not_stored(sha256: str) -> Aspect:
    told = f"spec.code.stored: the code store holds no archive {sha256} of this namespace: run `wisp deploy` again, which uploads it"
    return mark_false(conditions.CODE_NOT_FOUND, f"{told}; what served before goes on serving")


def _next_look(function: Object) -> float:
    """In how many seconds somebody may have uploaded what is missing, which nothing tells of: later and later."""
    now = datetime.now(UTC)
    return min(max((next_try(function, now) - now).total_seconds() / 3, _STORE_SECONDS), _LONGEST_SECONDS)


class _Fetching:
    """One look at a Function's archives and its Job."""

    def __init__(self, context: Context, function: Object, spec: FunctionSpec, now: datetime) -> None:
        """Remember what the status knows of the archives."""
        self._context = context
        self._function = function
        self._spec = spec
        self._now = now
        self.namespace: str = function["metadata"]["namespace"]
        self._wanted = sources(spec)
        held = msgspec.convert(function.get("status", {}).get("archives", []), list[FetchedArchive])
        self._known = [next((one for one in held if one.source == source), None) for source in self._wanted]

    async def advance(self) -> Code:
        """Take the next step: make the Job, take its result over, or wait."""
        if not self._wanted:
            return self._code([], None)
        job = await self._job()
        if job is None:
            wait = self._next_check()
            return self._code(self._known, wait) if wait > 0 else await self._make_job()
        if job["metadata"].get("annotations", {}).get(TASK) != task_hash(self._wanted):
            await self.forget()
            return self._code(self._known, _SOON)
        ended = finished(job)
        if ended is None:
            return self._code(self._known, None)._replace(warning=self._warning())
        if all(one and datetime.fromisoformat(one.time) >= ended for one in self._known):  # the status has it
            await self.forget()
            return self._code(self._known, _SOON)
        return await self._take_over(job, ended)

    async def forget(self) -> None:
        """Delete the Job."""
        await self._context.api.delete(JOBS, self.namespace, job_name(self._function["metadata"]["name"]))

    async def _job(self) -> Object | None:
        meta = self._function["metadata"]
        job = await self._context.api.get(JOBS, self.namespace, job_name(meta["name"]))
        ours = job and any(owner["uid"] == meta["uid"] for owner in job["metadata"].get("ownerReferences", []))
        return job if ours else None

    async def _make_job(self) -> Code:
        owner = make_owner_reference(self._function)
        job = make_job(self._function, owner, self._wanted, self._known, self._context.config)
        try:
            await self._context.api.create(JOBS, self.namespace, job)
        except ApiError as error:
            if error.status not in _REFUSALS or all(self._known):
                raise
            message = (
                f"the Job that fetches the code is refused; does a quota or policy of the namespace forbid it? {error}"
            )
            return Code(problem=mark_false(conditions.FETCH_FAILED, message), archives=self._found())
        return self._code(self._known, None)._replace(warning=self._warning())

    async def _take_over(self, job: Object, ended: datetime) -> Code:
        """Take a finished Job's result over; the Job goes once the status has it."""
        pods = await self._context.api.list(PODS, self.namespace, f"{JOB_POD}={job['metadata']['name']}")
        result = read_result(job, pods, len(self._wanted))
        if result.reason:
            return await self._failed(result, ended)
        time = timestamp(max(self._now, ended))
        fresh = [
            FetchedArchive(source=source, sha256=one.sha256, etag=one.etag, unpacked_bytes=one.unpacked, time=time)
            for source, one in zip(self._wanted, result.archives, strict=True)
        ]
        return self._code(fresh, _SOON)

    async def _failed(self, result: FetchResult, ended: datetime) -> Code:
        """Tell why, and try again after a while, for what is wrong may be put right without a change of the Function."""
        checked = all(self._known)
        check = timedelta(seconds=self._context.config.code_check_seconds)
        due = ended + check if checked else next_try(self._function, ended)
        if self._now >= due:
            await self.forget()
            if self._context.code_store:
                self._context.code_store.forget(self.namespace)
        again = max((due - self._now).total_seconds(), _SOON)
        told = f"{result.message}; tried again at {timestamp(due)}"
        if checked:
            message = f"what was fetched before serves on: {told}"
            return self._code(self._known, again)._replace(warning=mark_true(result.reason, message))
        return Code(problem=mark_false(result.reason, _FIELD + told), archives=self._found(), again=again)

    def _code(self, known: Sequence[FetchedArchive | None], again: float | None) -> Code:
        """The archives as they were last time, where all of them are known."""
        found = [one for one in known if one]
        if len(found) == len(known):
            pod = make_pod_code(self.namespace, self._spec, found, self._context.config.store_url)
            return Code(pod, archives=found, again=again if again != float("inf") else None)
        lacking = next(source for source, one in zip(self._wanted, known, strict=True) if one is None)
        message = f"s3://{lacking.bucket}/{lacking.key} is being fetched and checked, by a Job of this namespace"
        problem = wrong_before(self._function, _FIELD) or mark_unknown(conditions.FETCHING_CODE, message)
        return Code(problem=problem, archives=found, again=again)

    def _found(self) -> list[FetchedArchive]:
        return [one for one in self._known if one]

    def _next_check(self) -> float:
        """In how many seconds the archives are to be fetched, or looked at, again; for ever away where all are pinned."""
        if None in self._known:
            return 0
        loose = [one for one in self._found() if not (one.source.version_id or one.source.sha256)]
        ages = [(self._now - datetime.fromisoformat(one.time)).total_seconds() for one in loose]
        return self._context.config.code_check_seconds - max(ages) if ages else float("inf")

    def _warning(self) -> Aspect | None:
        """What the last look found wrong; it stands until another one has ended."""
        for state in self._function.get("status", {}).get("conditions", []):
            if state["type"] == conditions.CODE_READY and state["status"] == TRUE and state["reason"] != AS_WANTED:
                return mark_true(state["reason"], state["message"])
        return None


def earlier(*waits: float | None) -> float | None:
    """The first of several times to look again, None where there is none."""
    return min((wait for wait in waits if wait is not None), default=None)
