"""A route made ready to execute, or the reason why it can't be. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from wisp_api import pattern
from wisp_api.route import Route

from wisp_events.router.formats.form import Form, form
from wisp_events.router.request import Address, address, render, render_batch, render_plain
from wisp_events.router.schedule import Item


class InvalidRoute(ValueError):  # noqa: N818 - the state that it puts the route in
    """Raised when a route can't be executed; the message says why."""

    def __init__(self, message: str, uid: str = "", generation: int = 0) -> None:
        """`uid` and `generation` as far as they can be read."""
        super().__init__(message)
        self.uid = uid
        self.generation = generation


@dataclass(slots=True, frozen=True)
class Plan:
    """A route with its filters compiled and its addresses parsed."""

    route: Route
    matcher: pattern.Matcher
    addresses: list[Address]
    form: Form | None = None
    """What is delivered instead of CloudEvents."""

    def render(self, item: Item, to: Address, signed: bytes = b"", trace: str = "") -> bytes:
        """The request that delivers an event alone.

        Raises:
            ValueError, RecursionError: it can't be carried, or not told in the route's format.
        """
        if self.form is None:
            return render(item.event, to, signed, trace)
        body = self.form.alone(self.form.record(item.event, item.stored))
        return render_plain(body, item.event, to, signed, trace)

    def render_batch(self, items: Sequence[Item], to: Address, signed: bytes = b"", trace: str = "") -> bytes:
        """The request that delivers events together.

        Raises:
            ValueError, RecursionError: one can't be told in the route's format.
        """
        if self.form is None:
            return render_batch([(item.event, item.raw) for item in items], to, signed, trace)
        body = self.form.together([self.form.record(item.event, item.stored) for item in items])
        return render_plain(body, items[0].event, to, signed, trace, alone=False)

    @property
    def cursor_key(self) -> str:
        """Where the cursor stands in KV_CURSORS."""
        return f"{self.route.namespace}.{self.route.uid}"

    def reads_like(self, other: "Plan") -> bool:
        """Whether what was read under the other plan is good for this one."""
        return _reading(self.route) == _reading(other.route)


def _reading(route: Route) -> tuple[object, ...]:
    batch = route.batch
    form = (batch is None, batch is not None and batch.tumbling_seconds > 0)
    return route.uid, route.stream, route.subjects, route.order, form, route.replay


class _Head(msgspec.Struct):
    """What a status needs to name a route that does not decode."""

    uid: str = ""
    generation: int = 0


def compile_route(raw: bytes) -> Plan:
    """Decode and compile.

    Raises:
        InvalidRoute: it does not decode, a pattern is wrong, or a field has a value that can't be executed.
    """
    try:
        route = msgspec.json.decode(raw, type=Route)
    except ValueError as error:
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except ValueError:
            head = _Head()
        raise InvalidRoute(f"the route does not decode: {error}", head.uid, head.generation) from error
    try:
        if not route.subjects:
            raise ValueError("subjects is empty")  # noqa: TRY301
        if route.order not in ("key", "none"):
            raise ValueError(f"order is {route.order!r}; write key or none")  # noqa: TRY301
        if route.parallelism < 1:
            raise ValueError(f"parallelism is {route.parallelism}; write 1 or more")  # noqa: TRY301
        if route.batch and route.batch.size < 1:
            raise ValueError(f"batch.size is {route.batch.size}; write 1 or more")  # noqa: TRY301
        if route.batch and route.batch.tumbling_seconds and route.order != "key":
            raise ValueError(f"order is {route.order!r}; write key: windows pass a state on in order")  # noqa: TRY301
        if route.start not in ("latest", "earliest"):
            start_time(route.start)
        addresses = [address(target.url, target.reach, target.service) for target in route.targets]
        return Plan(route, pattern.compile(*route.filters), addresses, form(route))
    except ValueError as error:
        raise InvalidRoute(str(error), route.uid, route.generation) from error


def start_time(text: str) -> datetime:
    """A route's start as a time.

    Raises:
        ValueError: it is not RFC 3339 with an offset.
    """
    try:
        return parse_time("start", text)
    except ValueError:
        raise ValueError(f"start is {text!r}; write latest, earliest or a time as 2026-01-31T12:00:00Z") from None


def parse_time(what: str, text: str) -> datetime:
    """RFC 3339 with an offset.

    Raises:
        ValueError: it is not.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{what} is {text!r}; write a time as 2026-01-31T12:00:00Z")
    return time
