"""Destinations as the operator compiles them: a stream of the namespace, or none where nobody would take what is put there."""

from typing import Any

from fixtures.objects import deleted, make_function, make_subscription
from wisp_api.route import Outlet
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, plan
from wisp_operator.sources import decode

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
MAIL = "events_media_function_mail_uid-of-mail"


def made(*functions: dict[str, Any], **spec: Any) -> Plan:
    """The plan for these Functions and a Subscription to the bus `done`."""
    item = make_subscription("sub", source={"bus": {"name": "done"}}, **spec)
    return plan(
        View("media", [decode(item)], functions={one["metadata"]["name"]: one for one in functions}), CONFIG, "c"
    )


def asynchronous(name: str, **wanted: Any) -> dict[str, Any]:
    """A Function with this as `async`."""
    fields: dict[str, Any] = {"async": wanted}
    return make_function(name, **fields)


def to_mail(**other: Any) -> dict[str, Any]:
    """A Function whose successes go to the bus `done` and whose failures to the Function `mail`."""
    return asynchronous("hello", onSuccess={"bus": {"name": "done"}}, onFailure={"function": {"name": "mail"}}, **other)


def test_a_bus_and_a_function() -> None:
    """Each by its stream; a Function without destinations has none."""
    routes = made(to_mail(), asynchronous("mail")).routes
    assert routes["function_hello"].on_success == Outlet(kind="bus", name="done", stream="events_media_bus_done")
    assert routes["function_hello"].on_failure == Outlet(kind="function", name="mail", stream=MAIL)
    assert (routes["function_mail"].on_success, routes["function_mail"].on_failure) == (None, None)


def test_what_takes_nothing_has_no_stream() -> None:
    """A Function that is not there, has no `async`, or is going; a bus that no Subscription names."""
    gone = Outlet(kind="function", name="mail")
    for functions in ([], [make_function("mail")], [deleted(asynchronous("mail"))]):
        assert made(to_mail(), *functions).routes["function_hello"].on_failure == gone
    elsewhere = asynchronous("hello", onSuccess={"bus": {"name": "other"}})
    assert made(elsewhere).routes["function_hello"].on_success == Outlet(kind="bus", name="other")


def test_replies() -> None:
    """Of a Subscription, to the bus that it names, its own source included."""
    assert made(reply={"bus": {"name": "done"}}).routes["sub"].reply == Outlet(
        kind="bus", name="done", stream="events_media_bus_done"
    )
    assert made().routes["sub"].reply is None
