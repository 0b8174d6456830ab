"""Destinations as the operator compiles them: a stream of the namespace, or none where nobody would take what is put there."""

from typing import Any

from fixtures.objects import deleted, make_function, make_subscription
from wisp_api.route import Outlet, Target
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, plan
from wisp_operator.sinks import FoundSink
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


def test_what_a_subscription_gave_up() -> None:
    """To a bus or a Function, each by its stream; the route names the Function that failed."""
    route = made(deadLetter={"bus": {"name": "done"}}).routes["sub"]
    assert route.on_failure == Outlet(kind="bus", name="done", stream="events_media_bus_done")
    assert (route.receiver, route.function) == ("hello", "")
    to_function = made(asynchronous("mail"), deadLetter={"function": {"name": "mail"}})
    assert to_function.routes["sub"].on_failure == Outlet(kind="function", name="mail", stream=MAIL)
    assert made().routes["sub"].on_failure is None


def test_what_is_posted_to_has_a_stream_and_a_route_of_its_own() -> None:
    """Of a Subscription and of each outcome of invocations; nothing of it is a Subscription's, and it has no destination."""
    hook: dict[str, Any] = {"uri": "https://hooks.example.com/"}
    sink = FoundSink(Target(url=hook["uri"], reach="public"))
    item = make_subscription("sub", source={"bus": {"name": "done"}}, deadLetter=hook)
    caller = asynchronous(
        "hello", onSuccess=hook, onFailure={"ref": {"apiVersion": "v1", "kind": "Service", "name": "s"}}
    )
    view = View("media", [decode(item)], functions={"hello": caller}, sinks={"failure_subscription_sub": sink})
    found = plan(view, CONFIG, "c")
    for owner, wanted in (
        ("sub", {"failure_subscription_sub": ("sub", [sink.target])}),
        ("function_hello", {"success_function_hello": ("hello", []), "failure_function_hello": ("hello", [])}),
    ):
        for name, (of, targets) in wanted.items():
            outcome, stream = (
                name.partition("_")[0],
                f"events_media_destination_{of}_uid-of-{of}_{name.partition('_')[0]}",
            )
            outlet = Outlet(kind="destination", name=name, stream=stream)
            assert outlet == (
                found.routes[owner].on_success if outcome == "success" else found.routes[owner].on_failure
            )
            made_route = found.routes[name]
            assert (made_route.stream, made_route.targets, made_route.records) == (stream, targets, True)
            assert (made_route.on_failure, made_route.reply, made_route.uid) == (None, None, f"uid-of-{of}-{outcome}")
            assert found.streams[stream] == f"wisp.events.media.destination.{of}_uid-of-{of}_{outcome}.>"
    kept = View(
        "media", [decode(item)], routes=found.routes, sinks={"failure_subscription_sub": FoundSink(unsure=True)}
    )
    assert plan(kept, CONFIG, "c").routes["failure_subscription_sub"].targets == [sink.target]
    item["metadata"]["generation"] += 1  # it may name another now, and nobody can say where that is
    kept.wishes = [decode(item)]
    assert plan(kept, CONFIG, "c").routes["failure_subscription_sub"].targets == []


def test_an_async_that_cannot_be_read_keeps_what_there_is() -> None:
    """One that was stored before a rule stops nothing else of its namespace and loses nothing that waits; without anything there is nothing made."""
    hook: dict[str, Any] = {"uri": "https://hooks.example.com/"}
    item = make_subscription("sub", source={"bus": {"name": "done"}})
    view = View("media", [decode(item)], functions={"hello": asynchronous("hello", onFailure=hook)})
    before = plan(view, CONFIG, "c")
    assert {"function_hello", "failure_function_hello", "sub"} == before.routes.keys()
    view.functions = {"hello": asynchronous("hello", onFailure={"uri": 7})}
    assert plan(view, CONFIG, "c").routes.keys() == {"sub"}
    view.routes, view.inboxes = before.routes, before.inboxes
    view.streams = {name: {} for name in before.streams}
    after = plan(view, CONFIG, "c")
    assert (after.routes, after.inboxes, after.streams) == (before.routes, before.inboxes, before.streams)


def test_replies() -> None:
    """Of a Subscription, to the bus that it names, its own source included."""
    assert made(reply={"bus": {"name": "done"}}).routes["sub"].reply == Outlet(
        kind="bus", name="done", stream="events_media_bus_done"
    )
    assert made().routes["sub"].reply is None
