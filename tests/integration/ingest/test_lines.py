"""The door of the log stream: what pods hand in is found by namespace, function, time and request, and by nobody else."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from fixtures.tokens import Issuer, token_keys
from fixtures.webhook import Webhook
from nats.js.api import DiscardPolicy
from wisp_api import names

UID = "0b1f7d0e-1f6a-4a55-9c1e-6b1f6f1c7a10"


@dataclass
class Door:
    """A running ingest, with a stream of log lines unless a test makes none."""

    webhook: Webhook
    issuer: Issuer

    def pod_token(self, namespace: str = "media", pod: str = "pod-1") -> str:
        """A token as a pod has it."""
        bound = {"namespace": namespace, "pod": {"name": pod, "uid": "u"}}
        return self.issuer.token(namespace, "default", aud=[names.LOG_AUDIENCE], **{"kubernetes.io": bound})

    def ask(
        self,
        token: str,
        body: bytes | None = None,
        path: str = "",
        batch: str = "",
        query: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and answer of a request."""
        path = path or names.log_path("media", "hello", UID)
        url = f"http://127.0.0.1:{self.webhook.port}{path}?{urlencode(query or {})}"
        headers = {"authorization": f"Bearer {token}"} | ({"wisp-batch": batch} if batch else {})
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def found(self, **query: str) -> list[tuple[str, str]]:
        """Pod and text of the lines that a reader finds, page by page."""
        lines: list[tuple[str, str]] = []
        after = "0"
        while True:
            status, page = self.ask(self.issuer.token(), query=query | {"after": after})
            assert status == 200, page
            lines += [(line["pod"], line["text"]) for line in page["lines"]]
            if not page["next"]:
                return lines
            after = str(page["next"])


@pytest.fixture
def bare(webhook: Webhook) -> Door:
    """An ingest of an installation that keeps no lines."""
    made = Door(webhook, Issuer())
    webhook.plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(made.issuer))
    return made


@pytest.fixture
def door(bare: Door) -> Door:
    """One that does."""
    bare.webhook.plane.add_stream(names.LOG_STREAM, [names.LOG_SUBJECTS], DiscardPolicy.OLD, 128 << 20)
    return bare


def test_lines_come_back_in_order_with_their_pod(door: Door) -> None:
    """Whole, more than a page of them, with the pod that the token was made for."""
    wanted = []
    for number in range(150):
        pod = f"pod-{number % 2}"
        text = f'{{"n": {number}, "x": "{"x" * 20_000}"}}'
        assert door.ask(door.pod_token(pod=pod), f"{text}\nplain\n".encode())[0] == 204
        wanted += [(pod, text), (pod, "plain")]
    assert door.found() == wanted


def test_lines_are_found_by_request_and_by_time(door: Door) -> None:
    """Those with an id in them, those since a time; a wrong time is refused."""
    assert door.ask(door.pod_token(), b'{"requestId":"r1"}\n{"requestId":"r2"}\n')[0] == 204
    _, page = door.ask(door.issuer.token())
    assert door.ask(door.pod_token(), b"later\n")[0] == 204
    assert door.found(request="r2") == [("pod-1", '{"requestId":"r2"}')]
    _, pages = door.ask(door.issuer.token())
    last = pages["lines"][-1]["time"]
    assert page["lines"][0]["time"] < last
    assert door.found(since=last) == [("pod-1", "later")]
    now = datetime.now(UTC).isoformat()
    assert door.found(since=now) == door.found(since="2999-01-01T00:00:00Z") == []
    assert door.ask(door.issuer.token(), query={"since": "yesterday"})[0] == 400


def test_a_batch_that_comes_again_is_stored_once(door: Door) -> None:
    """By its id and its pod: another pod's batch of the same id is another."""
    for pod in ("pod-1", "pod-1", "pod-2"):
        assert door.ask(door.pod_token(pod=pod), b"a line\n", batch="b1")[0] == 204
    assert door.found() == [("pod-1", "a line"), ("pod-2", "a line")]


def test_nobody_reaches_the_lines_of_another_namespace(door: Door) -> None:
    """Neither to read nor to write, and a Function made anew does not find those of the one before."""
    assert door.ask(door.pod_token(), b"secret\n")[0] == 204
    assert door.ask(door.pod_token("shop"), b"forged\n")[0] == 403
    assert door.ask(door.issuer.token("shop"))[0] == 403
    again = names.log_path("media", "hello", UID.replace("0", "1"))
    assert door.ask(door.issuer.token(), path=again) == (200, {"lines": [], "next": 0})
    assert door.found() == [("pod-1", "secret")]


def test_each_token_opens_one_way(door: Door) -> None:
    """A pod's token reads nothing and posts no events; a token for the ingest writes no lines; none is 401."""
    pod, reader = door.pod_token(), door.issuer.token()
    assert door.ask(pod, b"line\n")[0] == 204  # from now on they are known as good, each for its own
    assert door.ask(reader)[0] == 200
    assert door.ask(pod)[0] == 401
    assert door.ask(reader, b"line\n")[0] == 401
    assert door.ask("", b"line\n")[0] == 401
    bus = "/v1/namespaces/media/buses/orders/events"
    assert door.ask(pod, b"{}", path=bus)[0] == 401


def test_who_logs_without_end_is_told_to_wait(door: Door) -> None:
    """A namespace that has used up its share gets 429, another is taken."""
    body = b"x" * 1_000_000 + b"\n"
    statuses = [door.ask(door.pod_token(), body)[0] for _ in range(24)]
    assert 429 in statuses[16:]
    assert set(statuses[:15]) == {204}
    shop = names.log_path("shop", "hello", UID)
    assert door.ask(door.pod_token("shop"), b"line\n", path=shop)[0] == 204
    assert door.ask(door.pod_token(), b"x" * 2_000_000)[0] == 413


def test_without_a_stream_it_is_said(bare: Door) -> None:
    """404, which ends the pods' attempts, and readers see why."""
    status, message = bare.ask(bare.pod_token(), b"line\n")
    assert (status, "log.lines.maxBytes" in message) == (404, True)
    assert bare.ask(bare.issuer.token())[0] == 404
