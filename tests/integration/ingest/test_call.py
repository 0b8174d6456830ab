"""Calls through the ingest whose callers wait: what the function gets and what comes back, who may, and what holds them within bounds."""

import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from fixtures.called import Activator, say, say_raw
from fixtures.dataplane import DataPlane, data_plane
from fixtures.nats import nats_server
from fixtures.process import free_port, wait_until
from fixtures.tokens import Issuer, token_keys
from fixtures.webhook import Webhook, webhook_on
from wisp_api import calling, names
from wisp_events.ingest.call import SHARE

PATH = "/v1/namespaces/media/functions/hello/invocations"
_answer = say(200, b'{"ok": true}', content_type="application/json")


@dataclass
class Door:
    """A running ingest, and the activator that it knows."""

    webhook: Webhook
    issuer: Issuer
    activator: Activator

    def connect(self, body: bytes = b"{}", token: str | None = None, **headers: str) -> http.client.HTTPConnection:
        """A connection on which a call was sent."""
        sent = {"authorization": f"Bearer {self.issuer.token() if token is None else token}"}
        sent |= {calling.TYPE: calling.RESPONSE, calling.REVISION: "hello-00001", "content-type": "application/json"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.webhook.port, timeout=120)
        connection.request("POST", PATH, body, sent)
        return connection

    def counted(self, status: int | str, metric: str = "calls") -> float:
        """How many were answered so."""
        return self.webhook.metric(f'wisp_ingest_{metric}_total{{status="{status}"}}')

    def has_counted(self, status: int | str, calls: int) -> bool:
        """Whether that many calls were answered so."""
        return self.counted(status) == calls

    def call(self, body: bytes = b"{}", token: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer; a cut-off one raises."""
        connection = self.connect(body, token, **headers)
        try:
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DataPlane, Issuer]]:
    """A log that knows who signs tokens; nothing of these tests is stored in it."""
    folder, issuer = tmp_path_factory.mktemp("log"), Issuer()
    with nats_server(folder) as server, data_plane(server, folder) as plane:
        plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(issuer))
        yield plane, issuer


@pytest.fixture(scope="module")
def running(log: tuple[DataPlane, Issuer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A running ingest and an activator."""
    activator = Activator(_answer)
    with activator.serving():
        environment = {"WISP_ACTIVATOR": f"127.0.0.1:{activator.port}"}
        with webhook_on(log[0], tmp_path_factory.mktemp("ingest"), environment=environment) as webhook:
            yield Door(webhook, log[1], activator)


@pytest.fixture
def door(running: Door) -> Door:
    """The same, with a function that answers and was not called yet."""
    running.activator.seen.clear()
    running.activator.answer = _answer
    return running


def test_the_function_answers_its_caller(door: Door) -> None:
    """It gets one POST to `/` with the event, and the caller its status and body; of headers only what is listed passes, either way."""
    door.activator.answer = say(
        201, b"[1]", content_type="application/json", x_amz_log_result="bG9n", set_cookie="a=1", server_timing="x"
    )
    status, headers, body = door.call(
        b'{"n": 1}',
        x_amz_log_type="Tail",
        cookie="a=1",
        x_forwarded_for="6.6.6.6",
        wisp_function_authorization="Bearer mine",
        knative_serving_namespace="wisp-system",
    )
    assert (status, body, headers["content-type"]) == (201, b"[1]", "application/json")
    assert (headers["x-amz-log-result"], headers["wisp-request-id"]) == ("bG9n", "r-1")
    assert headers[calling.VERSION] == "hello-00001"
    assert not headers.keys() & {"set-cookie", "server-timing"}
    [seen] = door.activator.seen
    assert (seen.line, seen.body) == ("POST / HTTP/1.1", b'{"n": 1}')
    assert seen.headers == {
        "host": "hello.media.svc",
        "user-agent": "wisp-ingest",
        "connection": "close",
        "knative-serving-namespace": "media",
        "knative-serving-revision": "hello-00001",
        "content-length": "8",
        "content-type": "application/json",
        "x-amz-log-type": "Tail",
        "wisp-authorization": "Bearer mine",
    }


def test_who_may_call(door: Door) -> None:
    """ServiceAccounts of the function's own namespace, and nobody else; nothing reaches the function of any other."""
    for token, status, told in (
        ("", 401, "who calls?"),
        ("no token", 401, "no JSON Web Token"),
        (door.issuer.token(aud=["wisp.dev/media/hello"]), 401, "was not made for the ingest"),
        (Issuer(kid="key-2").token(), 401, "no key of this cluster"),
        (door.issuer.token("shop"), 403, "others call the function's URL"),
    ):
        found = door.call(token=token)
        assert (found[0], told in found[2].decode()) == (status, True), found
        assert calling.VERSION not in found[1]
    assert door.activator.seen == []
    assert door.call(token=door.issuer.token("media", "other"))[0] == 200


def test_what_is_asked_wrongly_is_told(door: Door) -> None:
    """A revision of another function or none, a time that no function has, a type that is none, and a body beyond 6 MiB."""
    for headers in (
        {calling.REVISION: ""},
        {calling.REVISION: "other-00001"},
        {calling.REVISION: "hello-1.wisp-system"},
        {calling.TIMEOUT: "0"},
        {calling.TIMEOUT: "901"},
        {calling.TIMEOUT: "-1"},
        {calling.TIMEOUT: "1e3"},
    ):
        [name] = headers
        status, _, body = door.call(b"{}", None, **headers)
        assert (status, name in body.decode()) == (400, True), headers
    assert door.call(x_amz_invocation_type="DryRun")[0] == 400
    assert door.call(b"x" * (calling.LONGEST + 1))[0] == 413
    assert door.activator.seen == []


def test_an_answer_that_is_none_is_told(door: Door) -> None:
    """Whatever comes in an answer's place is 502 with what to do, without the mark of an executed revision; without Knative it is 503."""
    before = door.counted(502)
    for answer, told in (
        (b"no http\r\n\r\n", "no answer in HTTP"),
        (b"", "the connection ended before the answer did"),
        (b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n", "status 700"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (calling.LONGEST + 1), "at most 6291456 are passed on"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "a head of more than"),
    ):
        door.activator.answer = say_raw(answer)
        status, headers, body = door.call()
        assert (status, told in body.decode(), calling.VERSION in headers) == (502, True, False), (answer[:50], body)
        assert "`wisp logs hello -n media` says more" in body.decode()
    wait_until(lambda: door.counted(502) == before + 5, "they are counted as calls")
    assert door.counted(502, "requests") == 0


def test_answers_are_passed_on_as_they_are_framed(door: Door) -> None:
    """With a length, in chunks, up to the connection's end, without a body, after an interim one; one that is cut off is cut off."""
    for answer, wanted in (
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", (200, b"ab")),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 1\r\n\r\nx", (404, b"x")),
        (b"HTTP/1.1 204 None\r\ncontent-length: 5\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 304 Same\r\ncontent-length: 5\r\n\r\n", (304, b"")),
    ):
        door.activator.answer = say_raw(answer)
        assert door.call()[0::2] == wanted
    door.activator.answer = say(200, b"y" * calling.LONGEST)
    status, headers, body = door.call(b"x" * 5_000_000)
    assert (status, len(body), headers["content-length"]) == (200, calling.LONGEST, str(calling.LONGEST))
    assert len(door.activator.seen[-1].body) == 5_000_000
    trailer = b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: " + b"z" * 200_000 + b"\r\n\r\n"
    for answer in (b"content-length: 5\r\n\r\nab", b"\r\n" + b"z" * (calling.LONGEST + 1), trailer):
        door.activator.answer = say_raw(b"HTTP/1.1 200 OK\r\n" + answer)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            door.call()


def test_a_functions_failure_is_not_the_logs(door: Door) -> None:
    """Its 503 is passed on and counted as a call's, so that no alert of the event log fires; events are counted as before."""
    door.activator.answer = say(503, b"busy")
    calls, events = door.counted(503), door.counted(404, "requests")
    assert door.call()[0::2] == (503, b"busy")
    wait_until(lambda: door.counted(503) == calls + 1, "it is counted")
    assert door.counted(503, "requests") == 0
    assert door.call(x_amz_invocation_type="Event")[0] == 404
    wait_until(lambda: door.counted(404, "requests") == events + 1, "it is counted")


def test_many_at_once_have_their_share(door: Door) -> None:
    """A namespace has SHARE calls under way, then 429; another's go on, and a caller that leaves gives its place back while the function goes on."""
    ended, left = threading.Event(), door.counted("left")

    def wait(to: BaseHTTPRequestHandler) -> None:
        ended.wait(120)
        _answer(to)

    door.activator.answer = wait
    connections = [door.connect() for _ in range(SHARE)]
    try:
        wait_until(lambda: len(door.activator.seen) == SHARE, "all are under way")
        status, headers, body = door.call()
        assert (status, headers["retry-after"], b"32 calls under way" in body) == (429, "1", True)
        door.activator.answer = _answer
        connections.pop().close()
        wait_until(lambda: door.call()[0] == 200, "the place of who left is free")
        ended.set()
        with ThreadPoolExecutor(SHARE) as readers:
            assert {answer.status for answer in readers.map(lambda one: one.getresponse(), connections)} == {200}
    finally:
        ended.set()
        for connection in connections:
            connection.close()
    assert door.call()[0] == 200
    wait_until(lambda: door.counted("left") == left + 1, "who left is counted")


def test_without_knative_and_with_one_that_hangs(log: tuple[DataPlane, Issuer], tmp_path: Path) -> None:
    """Without an activator the caller is told. While one does not read, what an event holds is free as soon as its caller is gone: there is room for one."""
    port = free_port()
    with webhook_on(log[0], tmp_path, environment={"WISP_ACTIVATOR": f"127.0.0.1:{port}"}) as webhook:
        door = Door(webhook, log[1], Activator(_answer))
        status, headers, body = door.call()
        assert (status, headers["retry-after"], b"was not called; does Knative run?" in body) == (503, "3", True)
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            silent.bind(("127.0.0.1", port))
            silent.listen()
            silent.settimeout(60)
            for gone in (1, 2, 3):
                connection = door.connect(b"x" * calling.LONGEST)
                with silent.accept()[0]:
                    connection.close()
                    wait_until(partial(door.has_counted, "left", gone), "it has left")
