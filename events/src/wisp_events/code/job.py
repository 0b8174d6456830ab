"""What the Jobs of a tenant's namespace do alike: be patient, hand an archive to the store, and say at their end what came of it."""

import asyncio
import http.client
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec
from wisp_api import conditions
from wisp_api.code import FetchResult

from wisp_events.code.objects import send
from wisp_events.sources.reader import Trouble

logger = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 1.0
TOKEN: Final = "/etc/wisp/code/write"  # noqa: S105 - a path
_MESSAGE: Final = 1500
"""Characters, of which a server chooses some."""
_VERDICT: Final = 4096
"""Bytes: Kubernetes keeps the end of a longer one, of which nobody could read anything."""
T = TypeVar("T")


class Transient(Exception):  # noqa: N818 - it passes
    """Raised when something is away or busy."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is what it becomes when it does not pass."""
        super().__init__(message)
        self.reason = reason


async def finish(work: Callable[[], FetchResult]) -> None:
    """Do the work and write its verdict where the kubelet reads it; end with status 1 if it can't be done."""
    try:
        result = await asyncio.to_thread(work)
    except Trouble as trouble:
        logger.error("%s: %s", trouble.reason, trouble.message)  # noqa: TRY400 - the sentence says it all
        result = FetchResult(reason=trouble.reason, message=trouble.message)
    report = Path(os.environ.get("WISP_TERMINATION_LOG", "/dev/termination-log"))
    await asyncio.to_thread(report.write_bytes, _verdict(result))
    if result.reason:
        raise SystemExit(1)


def _verdict(result: FetchResult) -> bytes:
    """The result with as much of its message as there is room for: a character may take six bytes."""
    most = _MESSAGE
    while True:
        told = msgspec.structs.replace(result, message=conditions.shortened(result.message, most))
        if len(encoded := msgspec.json.encode(told)) <= _VERDICT or not result.message:
            return encoded
        most = most * 3 // 4


def patiently(work: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Try until it works, or something is wrong for good.

    Raises:
        Trouble: it is, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except Transient as error:
            if time.monotonic() > deadline:
                raise Trouble(error.reason, f"{error}; tried for {seconds:g} s, and again later") from None
            logger.warning("%s; trying again", error)
        time.sleep(PAUSE_SECONDS)


def hand_over(url: str, token: str, file: IO[bytes]) -> None:
    """Give the archive to the store, unless it has it.

    Raises:
        Trouble, Transient: the store refuses it, or is away.
    """
    authorization = {"authorization": f"Bearer {token}"}
    try:
        with send(url, "HEAD", headers=authorization) as answer:
            if answer.status == http.client.OK:
                return
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with send(url, "PUT", file, authorization | {"content-length": str(size)}) as answer:
            said = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise Transient(conditions.CODE_STORE_UNAVAILABLE, f"the code store does not answer: {error}") from None
    if answer.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        message = f"the code store refuses this namespace's credentials ({said}); delete the Job, the operator writes the Secret anew"
        raise Trouble(conditions.CODE_STORE_UNAVAILABLE, message)
    full = answer.status == http.client.INSUFFICIENT_STORAGE
    if (
        answer.status >= http.client.INTERNAL_SERVER_ERROR and not full
    ) or answer.status == http.client.REQUEST_TIMEOUT:
        raise Transient(conditions.CODE_STORE_UNAVAILABLE, f"the code store answers {answer.status}: {said}")
    if answer.status != http.client.CREATED:
        reason, _, message = said.partition(": ")
        raise Trouble(reason, f"the code store refuses the archive: {message}")
