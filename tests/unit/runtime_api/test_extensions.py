"""The Extensions API: executables beside the runtime, what they are told and when."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from fixtures.worker import DEADLINE, ERROR, FAILED, RESULT, STOP
from unit.runtime_api.conftest import NEXT
from unit.runtime_api.extension import EXTENSION, SILENT, TELEMETRY, extension_client, poll, ready_with, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime_api.conftest import Bridge

# One that registers, asks for events and prints them; ends after SHUTDOWN.
PRINTING = """#!/bin/sh
api=http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension
id=$(curl -sS -D - -o /dev/null -H 'Lambda-Extension-Name: printing' -d '{"events": ["INVOKE", "SHUTDOWN"]}' "$api/register" |
    grep -i lambda-extension-identifier | tr -d '[:space:]' | cut -d: -f2)
while true; do
    event=$(curl -sS -H "Lambda-Extension-Identifier: $id" "$api/event/next")
    echo "event $event"
    case $event in *SHUTDOWN*) exit 0 ;; esac
done
"""


def test_an_extension_sees_invocations_and_the_end(bridge: Callable[..., Bridge]) -> None:
    """It is started before the runtime, gets INVOKE and SHUTDOWN with what they are about, and ends in peace."""
    worker = bridge(opt={"/extensions/printing": PRINTING})
    runtime = worker.polling()
    number = worker.invoke("1", id="one", deadline=99, xray="Root=1")
    runtime.receive()
    runtime.respond("one", "2")
    assert worker.answer(number)[0].kind == RESULT
    invoke = json.loads(worker.wait_log("event "))
    assert invoke == {
        "eventType": "INVOKE",
        "deadlineMs": 99,
        "requestId": "one",
        "invokedFunctionArn": "arn:wisp:lambda:::function:tests:hello",
        "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"},
    }
    worker.send(STOP, 0)
    assert worker.end() == 0
    shutdown = json.loads(worker.log()[-1].removeprefix("event "))
    assert (shutdown["eventType"], shutdown["shutdownReason"]) == ("SHUTDOWN", "spindown")
    assert shutdown["deadlineMs"] > 1_700_000_000_000


def test_the_runtime_waits_for_the_extensions(bridge: Callable[..., Bridge]) -> None:
    """The runtime is started when all have registered; READY comes when all have asked for an event."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    extension = extension_client(worker)
    assert not [line for line in worker._log if line.startswith("api ")]  # noqa: SLF001 - what hasn't been printed yet
    answer = register(extension, "silent", "INVOKE", Lambda_Extension_Accept_Feature="accountId")
    assert answer.json == {
        "functionName": "hello",
        "functionVersion": "hello-00001",
        "handler": "app.handler",
        "accountId": "",
    }
    runtime = worker.client()
    runtime.send("GET", NEXT)
    worker.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        worker.receive()
    worker.socket.settimeout(DEADLINE)
    poll(extension, answer.headers["lambda-extension-identifier"])
    worker.ready()


def test_the_next_invocation_waits_for_the_extensions(bridge: Callable[..., Bridge]) -> None:
    """An extension that still works on the last event holds up the next one, as in Lambda, and none is lost."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    extension, identifier, runtime = ready_with(worker, "INVOKE")
    first = worker.invoke("1", id="one")
    assert extension.receive().json["requestId"] == "one"
    runtime.receive()
    runtime.respond("one", "1")
    assert worker.answer(first)[0].kind == RESULT
    runtime.send("GET", NEXT)
    second = worker.invoke("2", id="two")
    runtime.raw().settimeout(0.2)
    with pytest.raises(TimeoutError):
        runtime.raw().recv(1)
    runtime.raw().settimeout(DEADLINE)
    poll(extension, identifier)
    assert extension.receive().json["requestId"] == "two"
    assert runtime.receive().body == b"2"
    runtime.respond("two", "2")
    assert worker.answer(second)[0].kind == RESULT


@pytest.mark.parametrize(
    ("name", "body", "error"),
    [
        ("", '{"events": []}', "Extension.InvalidExtensionName"),
        ("silent", "{", "InvalidRequestFormat"),
        ("silent", "[]", "InvalidRequestFormat"),
        ("silent", '{"events": ["NOTHING"]}', "Extension.InvalidEventType"),
        ("internal", '{"events": ["SHUTDOWN"]}', "Extension.InvalidEventType"),
    ],
)
def test_registrations_that_are_refused(bridge: Callable[..., Bridge], name: str, body: str, error: str) -> None:
    """They are 403 with Lambda's error type."""
    client = extension_client(bridge(opt={"/extensions/silent": SILENT}))
    headers = {"Lambda_Extension_Name": name} if name else {}
    assert client.call("POST", f"{EXTENSION}/register", body, **headers).error == (403, error)


def test_who_may_register_when(bridge: Callable[..., Bridge]) -> None:
    """Each name once, ten in all, and none after the start."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    client = extension_client(worker)
    identifiers = [register(client, "silent").headers["lambda-extension-identifier"]]
    assert register(client, "silent").error == (403, "Extension.InvalidExtensionState")
    more = [register(client, f"internal-{number}", "INVOKE") for number in range(9)]
    identifiers += [answer.headers["lambda-extension-identifier"] for answer in more]
    assert register(client, "one-more").error == (403, "Extension.TooManyExtensions")
    for identifier in identifiers:
        poll(worker.connect(worker.wait_log("api ")), identifier)
    worker.polling()
    assert register(client, "late").error == (403, "Extension.RegistrationClosed")


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "Extension.MissingExtensionIdentifier"),
        ({"Lambda_Extension_Identifier": "me"}, "Extension.InvalidExtensionIdentifier"),
        (
            {"Lambda_Extension_Identifier": "00000000-0000-4000-a000-000000000000"},
            "Extension.UnknownExtensionIdentifier",
        ),
    ],
)
def test_who_asks_must_be_known(bridge: Callable[..., Bridge], headers: dict[str, str], error: str) -> None:
    """For events, errors and telemetry alike."""
    client = extension_client(bridge(opt={"/extensions/silent": SILENT}))
    for method, path in (
        ("GET", f"{EXTENSION}/event/next"),
        ("POST", f"{EXTENSION}/init/error"),
        ("POST", f"{EXTENSION}/exit/error"),
        ("PUT", TELEMETRY),
    ):
        assert client.call(method, path, **headers).error == (403, error)


def test_an_extension_that_fails_at_the_start(bridge: Callable[..., Bridge]) -> None:
    """Its error is the start's."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    client = extension_client(worker)
    identifier = register(client, "silent").headers["lambda-extension-identifier"]
    who = {"Lambda_Extension_Identifier": identifier}
    assert client.call("POST", f"{EXTENSION}/init/error", "{}", **who).error == (403, "Extension.MissingHeader")
    error = {"Lambda_Extension_Function_Error_Type": "Ext.NoConfig"}
    assert client.call("POST", f"{EXTENSION}/init/error", "{}", **who, **error).status == 202
    frame = worker.receive()
    assert (frame.kind, frame.head["errorType"]) == (FAILED, "Extension.InitError")
    assert "silent: Ext.NoConfig" in frame.head["errorMessage"]
    assert worker.end() == 1


def test_an_extension_that_ends_before_the_start(bridge: Callable[..., Bridge]) -> None:
    """That is Extension.Crash."""
    frame = bridge(opt={"/extensions/short": "#!/bin/sh\nexit 4\n"}).receive()
    assert (frame.kind, frame.head["errorType"]) == (FAILED, "Extension.Crash")
    assert frame.head["errorMessage"] == "Error: extension short: exit status 4"


def test_an_extension_that_can_not_be_executed(bridge: Callable[..., Bridge]) -> None:
    """That is Extension.LaunchError."""
    frame = bridge(opt={"/extensions/text": "text"}).receive()
    assert (frame.kind, frame.head["errorType"]) == (FAILED, "Extension.LaunchError")


def test_an_extension_that_crashes_later(bridge: Callable[..., Bridge]) -> None:
    """It takes the worker along; what runs is answered with its error, which says that the worker ends."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    _, _, runtime = ready_with(worker, "INVOKE")
    number = worker.invoke("1", id="one")
    runtime.receive()
    os.kill(int(worker.wait_log("pid ")), signal.SIGKILL)
    message = "RequestId: one Error: extension silent: signal: killed"
    error = {"errorType": "Extension.Crash", "errorMessage": message, "ends": True}
    assert worker.answer(number) == [(ERROR, number, error, b"")]
    assert worker.end() == 1
    assert worker.wait_log("Extension.Crash: ") == "extension silent: signal: killed"


def test_lambdas_own_variables_are_not_for_extensions(bridge: Callable[..., Bridge]) -> None:
    """_HANDLER is the runtime's."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    assert worker.wait_log("extension api ").endswith(" handler .")
