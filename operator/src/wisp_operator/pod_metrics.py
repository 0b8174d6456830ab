"""What a revision's pods have counted, read from the runtime's own metrics (port 9464 of each pod), during roll-outs only.

Pods' counters rather than queue-proxy's: Knative keeps those for itself unless its observability is configured, and a handler's error is a
200 there. A pod that went takes its counts along; errors are looked at more often than the shortest time that an idle pod stays. What answers
is the tenant's. Invariant: of an answer no more is held than its first bytes as they come, and none leads the operator elsewhere.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import Final

import aiohttp

from wisp_operator.api import Object
from wisp_operator.rollout import Counts

PORT: Final = 9464
_SECONDS: Final = 3
_BYTES: Final = 256 * 1024
"""Of an answer; the runtime's own is a few KiB."""
_OK: Final = 200
_LIMIT: Final = 20
"""Pods that are asked; the errors of a revision show in any of them."""
_SAMPLE: Final = re.compile(r'^wisp_function_invocations_total\{status="(\w+)"\} (\d{1,18})$', re.MULTILINE)


async def read_counts(pods: Iterable[Object]) -> Counts:
    """The sum over the pods that run."""
    hosts = [
        pod["status"]["podIP"]
        for pod in pods
        if pod.get("status", {}).get("phase") == "Running"
        and pod["status"].get("podIP")
        and "deletionTimestamp" not in pod["metadata"]
    ][:_LIMIT]
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as client:
        found = await asyncio.gather(*(_read(client, host) for host in hosts))
    return Counts(
        sum(counts.ended for counts in found),
        sum(counts.failed for counts in found),
        next((counts.unread for counts in found if counts.unread), ""),
    )


def parse(text: str) -> Counts:
    """Ended and failed invocations of one pod's metrics."""
    ended = {status: int(number) for status, number in _SAMPLE.findall(text)}
    return Counts(sum(ended.values()), sum(number for status, number in ended.items() if status != "success"))


async def _read(client: aiohttp.ClientSession, host: str) -> Counts:
    address = f"[{host}]" if ":" in host else host
    try:
        async with client.get(f"http://{address}:{PORT}/metrics", allow_redirects=False) as answer:
            if answer.status != _OK:
                return Counts(unread=f"pod {host} answers {answer.status}")
            begin = b""
            while len(begin) <= _BYTES and (chunk := await answer.content.readany()):
                begin += chunk
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return Counts(unread=f"pod {host} does not answer ({type(error).__name__})")
    if len(begin) > _BYTES:
        return Counts(unread=f"pod {host} answers with more than {_BYTES} bytes")
    return parse(begin.decode(errors="replace"))
