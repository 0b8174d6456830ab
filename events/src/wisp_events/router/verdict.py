"""What an attempt's outcome means for the event, and how long to wait for the next attempt. Pure.

Only answers that the function gave, and its timeouts, count against `maxAttempts`; what the network, the ingress or the
activator did is retried until `maxAgeSeconds`. The runtime marks its answers with the header `wisp-request-id`.

A 401 of the runtime's own gate is retried like that, too: the router's token is the platform's affair, a key on its way to the
pod or a Function whose `auth` has just changed, and no reason to bury a single event. A 401 of the function's code is final.
"""

import enum
import random
from dataclasses import dataclass

from wisp_api.route import Retry

MARK = b"wisp-request-id"
ERROR = b"wisp-function-error"
"""The runtime's: Unhandled or Timeout."""
REALM = b'realm="wisp"'
"""In `www-authenticate`: the runtime refused the caller before any code of the function ran."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A complete HTTP response."""

    status: int
    marked: bool = False
    """Whether the function's runtime gave it."""
    retry_after: float = 0
    """Seconds; 0 where the header is absent or a date."""
    body: bytes = b""
    """Its beginning: 4 KiB, or of a success what was asked for."""
    stranger: bool = False
    """Whether the runtime refused the caller's token, ours: the function has not seen the event."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those that speak of the body: its type, a CloudEvent's attributes, the trace, the runtime's word on an error."""


@dataclass(slots=True, frozen=True)
class Failure:
    """No complete response."""

    message: str
    timeout: bool = False
    """Whether the function had its time: the request was sent and nothing came before the deadline."""


Outcome = Answer | Failure


class Verdict(enum.Enum):
    """What follows from an outcome."""

    DELIVERED = enum.auto()
    FUNCTION_FAILED = enum.auto()
    """Counts as one of `maxAttempts`."""
    UNREACHED = enum.auto()
    """Try again until `maxAgeSeconds`."""
    REJECTED = enum.auto()
    """Final: no attempt will do better."""


def judge(outcome: Outcome) -> Verdict:
    """The verdict on one attempt."""
    if isinstance(outcome, Failure):
        return Verdict.FUNCTION_FAILED if outcome.timeout else Verdict.UNREACHED
    status = outcome.status
    if outcome.stranger and status == 401:  # noqa: PLR2004
        return Verdict.UNREACHED
    if 200 <= status < 300:  # noqa: PLR2004
        return Verdict.DELIVERED
    if status == 429 or (status in (404, 408, 409, 502, 503) and not outcome.marked):  # noqa: PLR2004
        return Verdict.UNREACHED
    if 400 <= status < 500 and status not in (408, 409):  # noqa: PLR2004
        return Verdict.REJECTED
    return Verdict.FUNCTION_FAILED


def overloaded(outcome: Outcome) -> bool:
    """Whether the target asks for less at once."""
    return isinstance(outcome, Answer) and (outcome.status == 429 or (outcome.status == 503 and not outcome.marked))  # noqa: PLR2004


def describe(outcome: Outcome) -> str:
    """The outcome in a few words, for messages."""
    if isinstance(outcome, Failure):
        return outcome.message
    text = " ".join(outcome.body[:200].decode(errors="replace").split())
    return f"HTTP {outcome.status}" + (f": {text}" if text else "")


def pause(retry: Retry, tries: int, outcome: Outcome) -> float:
    """Seconds until the next attempt after `tries` attempts: exponential with full jitter, at least what Retry-After asks."""
    ceiling = min(retry.max_seconds, retry.initial_seconds * 2.0 ** min(tries - 1, 60))
    asked = min(outcome.retry_after, retry.max_seconds) if isinstance(outcome, Answer) else 0.0
    return max(asked, random.random() * ceiling)  # noqa: S311 - spreads load, guards nothing
