"""A Function with `async` gets a stream, an inbox and a route; they go with it, and with the field."""

from typing import Any

import pytest
from fixtures.objects import deleted, make_function, make_subscription, schedule
from wisp_api import names
from wisp_api.source import Inbox
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, leftovers, plan
from wisp_operator.sources import decode, stream_bytes

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
STREAM = "events_media_function_hello_uid-of-hello"
TRAFFIC = {"traffic": [{"revision": "hello-1", "percent": 100}]}


def asynchronous(wanted: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Function with this as `async`."""
    fields: dict[str, Any] = {"async": wanted, **spec}
    return make_function(**fields)


def made(function: dict[str, Any]) -> tuple[View, Plan]:
    """The plan for a namespace with one Subscription and this Function."""
    view = View("media", [decode(make_subscription("clock", source=schedule()))], functions={"hello": function})
    return view, plan(view, CONFIG, "cluster")


def test_stream_inbox_and_route() -> None:
    """The route has Lambda's retries and goes to the Function's revisions, as many at once as it scales to."""
    wanted = {"maxAttempts": 2, "maxAgeSeconds": 600, "allowFrom": ["shop/checkout"]}
    _, found = made(asynchronous(wanted, scale={"max": 4, "perInstance": 2}) | {"status": TRAFFIC})
    assert found.streams[STREAM] == "wisp.events.media.function.hello_uid-of-hello.>"
    assert found.inboxes == {"inbox.function.media.hello": Inbox(stream=STREAM, allow_from=["shop/checkout"])}
    route = found.routes["function_hello"]
    assert (route.stream, route.start, route.order, route.function) == (STREAM, "earliest", "none", "hello")
    assert route.subjects[0] == "wisp.events.media.function.hello_uid-of-hello.invocation"
    assert route.subjects[1:] == [names.redrive_subject(STREAM, "uid-of-hello")]
    assert [target.url for target in route.targets] == ["http://hello-1.media.svc.cluster.local/"]
    assert (route.parallelism, route.retry.max_attempts, route.retry.max_age_seconds) == (8, 2, 600)
    assert stream_bytes(STREAM) == 64 * 1024 * 1024


def test_defaults_are_lambdas() -> None:
    """`async: {}` is three attempts within six hours."""
    route = made(asynchronous({}))[1].routes["function_hello"]
    assert (route.retry.max_attempts, route.retry.max_age_seconds) == (3, 21600)


def test_they_go_with_the_function_and_with_the_field() -> None:
    """Without `async`, and while it is being deleted, nothing is wanted; what the router keeps is left over only then."""
    for function in (make_function(), deleted(asynchronous({}))):
        view, found = made(function)
        view.cursors = {"uid-of-hello", "uid-of-clock"}
        assert found.inboxes == {}
        assert found.routes.keys() == {"clock"}
        assert leftovers(view, found) == [("wisp-cursors", "media.uid-of-hello")]
    view, found = made(asynchronous({}))
    view.cursors = {"uid-of-hello", "uid-of-clock"}
    assert leftovers(view, found) == []


@pytest.mark.parametrize(
    ("scale", "parallelism", "expected"),
    [
        ({"max": 1}, 10, 1),
        ({"max": 2, "perInstance": 3}, 10, 6),
        ({}, 10, 10),
        ({"max": 1000, "perInstance": 1000}, 20, 20),
        ({"max": 5000}, 20, 20),
        (None, 20, 20),
    ],
)
def test_no_more_than_the_function_runs(scale: dict[str, int] | None, parallelism: int, expected: int) -> None:
    """A Subscription sends a Function no more at once than its pods run: what waited in front of them would count as failed.

    A scale from before a rule stops nothing of the namespace.
    """
    subscription = make_subscription("clock", source=schedule(), parallelism=parallelism)
    function = make_function(scale=scale) | {"status": TRAFFIC}
    view = View("media", [decode(subscription)], functions={"hello": function})
    assert plan(view, CONFIG, "cluster").routes["clock"].parallelism == expected


def test_a_tagged_revision_keeps_its_own_scale() -> None:
    """What today's spec says of scale is not said of the revision that a tag names."""
    subscription = make_subscription("clock", source=schedule(), parallelism=10)
    subscription["spec"]["function"]["tag"] = "stable"
    function = make_function(scale={"max": 1}, tags={"stable": {"revision": "hello-1"}}) | {"status": TRAFFIC}
    view = View("media", [decode(subscription)], functions={"hello": function})
    assert plan(view, CONFIG, "cluster").routes["clock"].parallelism == 10


def test_what_waits_for_a_function_keeps_its_parallelism() -> None:
    """Without a Function there is nothing to go by."""
    view = View("media", [decode(make_subscription("clock", source=schedule(), parallelism=7))])
    assert plan(view, CONFIG, "cluster").routes["clock"].parallelism == 7
