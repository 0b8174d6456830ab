"""The Telemetry API: what a subscriber gets, and what one that doesn't take it costs."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.process import wait_until
from fixtures.worker import DEADLINE, STOP
from unit.runtime_api.extension import SILENT, TELEMETRY, extension_client, poll, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unit.runtime_api.conftest import Bridge, Client


class Listener:
    """An extension's HTTP server: the batches that it took, and those that it refused."""

    def __init__(self) -> None:
        """Listen."""
        self.batches: list[list[dict[str, Any]]] = []
        self.refused: list[list[dict[str, Any]]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = outer.status  # once: the test may change it meanwhile
                (outer.batches if status == 200 else outer.refused).append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, in their order."""
        return [event for batch in list(self.batches) for event in batch]

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Listen until the end of the test."""
    listener = Listener()
    yield listener
    listener.close()


def subscription(port: int, *types: str, **more: Any) -> str:
    """Make a subscription's body."""
    destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/events"}
    wish = {"schemaVersion": "2022-12-13", "types": types, "destination": destination}
    return json.dumps(wish | {"buffering": {"timeoutMs": 25}} | more)


def subscribed(worker: Bridge, listener: Listener, *types: str, **more: Any) -> Client:
    """Be the silent extension, subscribed to telemetry, and the runtime, until READY; return the runtime's client."""
    extension = extension_client(worker)
    identifier = register(extension, "silent").headers["lambda-extension-identifier"]
    worker.client()  # the runtime has printed
    wish = subscription(listener.server.server_port, *types, **more)
    answer = extension.call("PUT", TELEMETRY, wish, Lambda_Extension_Identifier=identifier)
    assert (answer.status, answer.json) == (200, "OK")
    poll(extension, identifier)
    runtime = worker.polling()
    closed = worker.client().call("PUT", TELEMETRY, wish, Lambda_Extension_Identifier=identifier)
    assert closed.error == (403, "Telemetry.SubscriptionClosed")
    return runtime


def test_telemetry_tells_all_of_an_invocation(bridge: Callable[..., Bridge], listener: Listener) -> None:
    """A subscriber gets the platform's events, also those from before it subscribed, in their order."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    runtime = subscribed(worker, listener, "platform")
    number = worker.invoke("1", id="one", xray="Root=1")
    runtime.receive()
    runtime.fail("one", "{}", Lambda_Runtime_Function_Error_Type="Bad")
    worker.answer(number)
    wait_until(lambda: "platform.report" in [event["type"] for event in listener.events], "no report", DEADLINE)
    assert [event["type"] for event in listener.events] == [
        "platform.initStart",
        "platform.telemetrySubscription",
        "platform.extension",
        "platform.initRuntimeDone",
        "platform.initReport",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]
    report = listener.events[-1]["record"]
    assert (report["requestId"], report["status"], report["errorType"]) == ("one", "error", "Bad")
    assert report["metrics"]["durationMs"] > 0
    assert report["metrics"]["initDurationMs"] > 0
    assert listener.events[0]["time"].endswith("Z")


def test_telemetry_tells_lines_of_the_log(bridge: Callable[..., Bridge], listener: Listener) -> None:
    """A runtime's lines come as texts, JSON ones as objects, and each stands in the log too."""
    printing = '#!/bin/sh\necho api $AWS_LAMBDA_RUNTIME_API\necho \'{"level": "INFO"}\'\nexec sleep 1000\n'
    worker = bridge(printing, {"/extensions/silent": SILENT})
    subscribed(worker, listener, "function")
    wait_until(lambda: len(listener.events) == 2, "not two lines", DEADLINE)
    assert [event["type"] for event in listener.events] == ["function", "function"]
    assert listener.events[0]["record"] == f"api {worker.wait_log('api ')}"
    assert listener.events[1]["record"] == {"level": "INFO"}
    assert worker.wait_log('{"level"') == ': "INFO"}'


def test_the_last_telemetry_is_sent_at_the_end(bridge: Callable[..., Bridge], listener: Listener) -> None:
    """What waits for its batch when the pod goes is sent before the bridge ends."""
    worker = bridge(opt={"/extensions/silent": SILENT})
    subscribed(worker, listener, "function", buffering={"timeoutMs": 30_000})
    assert listener.batches == []
    worker.send(STOP, 0)
    assert worker.end() == 0
    assert [event["type"] for event in listener.events] == ["function"]


PRINTING_MUCH = """#!/bin/sh
echo api $AWS_LAMBDA_RUNTIME_API
until test -e go; do sleep 0.01; done
yes 12345678901234567890 | head -n 20000
echo all
exec sleep 1000
"""


def test_a_subscriber_that_fails_costs_a_bound(bridge: Callable[..., Bridge], listener: Listener) -> None:
    """What it doesn't take is dropped beyond twice its buffer, nothing else waits, and it is told how much it missed."""
    listener.status = 500
    worker = bridge(PRINTING_MUCH, {"/extensions/silent": SILENT})
    subscribed(worker, listener, "function", buffering={"maxItems": 1000, "timeoutMs": 25})
    (worker.folder / "go").touch()
    worker.wait_log("all")
    wait_until(lambda: len(listener.refused) > 6, "two lost batches are not followed by another", DEADLINE)
    listener.status = 200

    def told(kind: str) -> list[Any]:
        return [event["record"] for event in listener.events if event["type"] == kind]

    def dropped() -> int:
        return sum(record["droppedRecords"] for record in told("platform.logsDropped"))

    wait_until(lambda: len(told("function")) + dropped() == 20_002, "not each line was sent or counted", DEADLINE)
    assert len(told("function")) <= 4000


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schemaVersion": "1999"}, "schemaVersion"),
        ({"types": []}, "types"),
        ({"types": ["logs"]}, "types"),
        ({"destination": {"protocol": "TCP", "port": 80}}, "protocol"),
        ({"destination": {"protocol": "HTTP", "URI": "http://example.com:80"}}, "URI"),
        ({"buffering": {"maxItems": 1}}, "maxItems"),
        ({"buffering": []}, "buffering"),
    ],
)
def test_subscriptions_that_are_refused(bridge: Callable[..., Bridge], change: dict[str, Any], word: str) -> None:
    """They are 400, and the message names the field."""
    client = extension_client(bridge(opt={"/extensions/silent": SILENT}))
    identifier = register(client, "silent").headers["lambda-extension-identifier"]
    refused = client.call(
        "PUT", TELEMETRY, subscription(80, "platform", **change), Lambda_Extension_Identifier=identifier
    )
    assert refused.error == (400, "ValidationError")
    assert word in refused.json["errorMessage"]
