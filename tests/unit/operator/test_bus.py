"""A Subscription with a bus: what the ingest is told, what the router reads, and what goes with the last one."""

from typing import Any

import pytest
from fixtures.objects import deleted, make_subscription
from wisp_api.source import Inbox
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, plan
from wisp_operator.sources import Wish, decode

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
STREAM = "events_media_bus_orders"


def wish(name: str = "mail", *, allow_from: tuple[str, ...] = (), pattern: dict[str, Any] | None = None) -> Wish:
    """A Subscription to the bus `orders`."""
    source = {"bus": {"name": "orders", **({"allowFrom": list(allow_from)} if allow_from else {})}}
    spec: dict[str, Any] = {"filter": pattern} if pattern else {}
    return decode(make_subscription(name, source=source, **spec))


def made(*wishes: Wish, **view: Any) -> Plan:
    """The plan for a namespace with these."""
    return plan(View("media", list(wishes), **view), CONFIG, "cluster")


def test_subscriptions_share_a_bus() -> None:
    """One stream and one entry for all that name it; whoever one of them allows may post; no reader runs."""
    found = made(wish("mail", allow_from=("shop/checkout",)), wish("audit", allow_from=("tools/*", "shop/checkout")))
    assert found.streams == {STREAM: "wisp.events.media.bus.orders.>"}
    assert found.inboxes == {"inbox.bus.media.orders": Inbox(stream=STREAM, allow_from=["shop/checkout", "tools/*"])}
    assert found.readers == {}
    route = found.routes["mail"]
    assert (route.stream, route.start, route.order, route.barriers) == (STREAM, "latest", "none", False)


@pytest.mark.parametrize(
    ("pattern", "types"),
    [
        (None, ["*"]),
        ({"data": {"n": [1]}}, ["*"]),
        ({"type": ["b.c", "a"], "data": {"n": [1]}}, ["a", "b%2Ec"]),
        ({"type": [{"prefix": "a"}]}, ["*"]),
        ({"type": ["a", {"prefix": "b"}]}, ["*"]),
        ({"type": ["a", "*"]}, ["*"]),
        ({"type": [f"t{n}" for n in range(40)]}, ["*"]),
    ],
)
def test_the_log_sends_only_the_types_that_are_asked_for(pattern: dict[str, Any] | None, types: list[str]) -> None:
    """Where the pattern names them exactly; the pattern itself is applied all the same."""
    route = made(wish(pattern=pattern)).routes["mail"]
    assert route.subjects[:-1] == [f"wisp.events.media.bus.orders.{kind}.*" for kind in types]
    assert route.filters == ([pattern] if pattern else [])


def test_a_bus_goes_with_its_last_subscription() -> None:
    """While one is left, bus and stream stay; then nothing is wanted, and the Subscription may go at once."""
    gone = decode(deleted(make_subscription("mail", source={"bus": {"name": "orders"}})))
    assert made(gone, wish("audit")).inboxes.keys() == {"inbox.bus.media.orders"}
    found = made(gone)
    assert (found.inboxes, found.streams, found.routes) == ({}, {}, {})
    assert found.released == {"mail"}


def test_a_bus_whose_stream_is_refused_takes_nothing() -> None:
    """Neither entry nor route: posting is 404, and nothing waits for what is not there."""
    found = made(wish())
    found.without_streams([STREAM])
    assert (found.inboxes, found.routes) == ({}, {})
