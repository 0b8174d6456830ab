"""Events posted to a bus, and asynchronous invocations: what is accepted is in the log, what is not has a reason, and nobody posts who may not."""

import base64
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from fixtures.dataplane import DataPlane
from fixtures.process import wait_until
from fixtures.tokens import Issuer, token_keys
from fixtures.webhook import Webhook
from wisp_api import names
from wisp_api.cloudevent import PAYLOAD_BYTES, Event
from wisp_api.source import Inbox

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


@dataclass
class Buses:
    """A running ingest with the bus `orders` of namespace `media`, which namespace `shop`'s `checkout` may post to, too."""

    webhook: Webhook
    issuer: Issuer

    @property
    def plane(self) -> DataPlane:
        """The log."""
        return self.webhook.plane

    def post(
        self, body: Any, content_type: str = STRUCTURED, *, token: str | None = None, path: str = "", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and answer of a request; a `body` that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"authorization": f"Bearer {self.issuer.token() if token is None else token}"}
        sent |= {"content-type": content_type} if content_type else {}
        url = f"http://127.0.0.1:{self.webhook.port}{path or '/v1/namespaces/media/buses/orders/events'}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, sent), timeout=60) as answer:
                return answer.status, dict(answer.headers), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
                told = json.loads(text) if error.headers["content-type"] == "application/json" else text
                return error.code, {name.lower(): value for name, value in error.headers.items()}, told

    def add(self, name: str = "orders", max_bytes: int = 64 << 20, allow_from: tuple[str, ...] = ()) -> None:
        """Make a bus as the operator does."""
        stream = names.stream("media", "bus", name)
        self.plane.add_stream(stream, [names.stream_subjects("media", "bus", name)], max_bytes=max_bytes)
        self.plane.put(
            names.KV_SOURCES, names.inbox_key("bus", "media", name), Inbox(stream=stream, allow_from=list(allow_from))
        )

    def events(self, name: str = "orders") -> list[Event]:
        """What the log has."""
        return self.plane.events(names.stream("media", "bus", name))


@pytest.fixture
def buses(webhook: Webhook) -> Buses:
    """A running ingest with one bus."""
    made = Buses(webhook, Issuer())
    webhook.plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(made.issuer))
    made.add(allow_from=("shop/checkout", "tools/*"))
    webhook.ingest.wait_ready()
    return made


def event(number: int = 1, **attributes: Any) -> dict[str, Any]:
    """A structured event; None takes an attribute away."""
    good = {"specversion": "1.0", "id": str(number), "source": "/shop", "type": "order.created", "data": {"n": number}}
    return {name: value for name, value in (good | attributes).items() if value is not None}


def test_a_structured_event_is_in_the_log(buses: Buses) -> None:
    """202 after it is stored, extensions included."""
    assert buses.post(event(tenant="a", partitionkey="k"))[0::2] == (202, {"accepted": 1, "rejected": []})
    [stored] = buses.events()
    assert (stored.id, stored.partitionkey, stored.extensions) == ("1", "k", {"tenant": "a"})
    assert json.loads(bytes(stored.data or b"")) == {"n": 1}
    [(subject, _)] = buses.plane.records(names.stream("media", "bus", "orders"))
    assert subject == f"wisp.events.media.bus.orders.order%2Ecreated.{names.lane('k')}"


def test_a_binary_event_is_in_the_log(buses: Buses) -> None:
    """Attributes come as headers, percent-encoded; the body is data as its content type says."""
    attributes = {"ce_specversion": "1.0", "ce_source": "/shop", "ce_type": "t", "ce_wisphops": "3"}
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    cases = [
        (b'{"a": 1}', "application/json"),
        (b"gr\xc3\xbc\xc3\x9fe", "text/plain"),
        (b"\xff", "image/png"),
        (b"", ""),
    ]
    for number, (body, kind) in enumerate(cases):
        subject = {"ce_id": str(number), "ce_subject": "gr%C3%BC%C3%9Fe", "traceparent": trace}
        assert buses.post(body, kind, **attributes, **subject)[0] == 202
    one, two, three, four = sorted(buses.events(), key=lambda stored: stored.id)
    assert (one.subject, one.wisphops, one.traceparent) == ("grüße", 3, trace)
    assert json.loads(bytes(one.data or b"")) == {"a": 1}
    assert (json.loads(bytes(two.data or b"")), two.datacontenttype) == ("grüße", "text/plain")
    assert (three.data_base64, three.datacontenttype) == ("/w==", "image/png")
    assert four.data is None


def test_of_a_batch_each_rejected_event_is_named(buses: Buses) -> None:
    """The valid ones are stored, the others have their index and what is wrong; all valid 202, some 207, none 400."""
    wrong = [event(2, type=""), event(3, Upper=1), event(4, data={"x": "y" * 6_000_001}), "no event", event(5, id=None)]
    status, _, told = buses.post([event(1), *wrong, event(6)], BATCH)
    assert (status, told["accepted"]) == (207, 2)
    assert [rejected["index"] for rejected in told["rejected"]] == [1, 2, 3, 4, 5]
    assert all(rejected["message"] for rejected in told["rejected"])
    assert sorted(stored.id for stored in buses.events()) == ["1", "6"]
    assert buses.post([event(number) for number in range(10, 300)], BATCH)[0] == 202
    assert buses.post([event(2, type="")], BATCH)[0] == 400
    assert buses.post(event(2, type=""))[0] == 400
    assert len(buses.events()) == 292


def test_the_same_event_is_stored_once(buses: Buses) -> None:
    """By source and id: alone, in a batch, in a batch twice, and after the ingest was killed; another source is another event."""
    assert buses.post(event(1))[0] == 202
    assert buses.post([event(1), event(1), event(2), event(2)], BATCH)[0] == 202
    assert buses.post(event(1, source="/other"))[0] == 202
    buses.webhook.ingest.kill()
    buses.webhook.ingest.start()
    buses.webhook.ingest.wait_ready()
    assert buses.post(event(1))[0] == 202
    assert sorted((stored.source, stored.id) for stored in buses.events()) == [
        ("/other", "1"),
        ("/shop", "1"),
        ("/shop", "2"),
    ]


def test_events_of_a_key_keep_their_order(buses: Buses) -> None:
    """Within a batch and from one request to the next, whatever their types; concurrent requests are all stored."""

    def post(caller: int) -> None:
        for first in range(0, 60, 20):
            batch = [
                event(n, source=f"/{caller}", type=f"t{n % 3}", partitionkey=str(caller))
                for n in range(first, first + 20)
            ]
            assert buses.post(batch, BATCH)[0] == 202

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(post, range(8)))
    stored = buses.events()
    assert len(stored) == 480
    for caller in range(8):
        mine = [int(one.id) for one in stored if one.source == f"/{caller}"]
        assert mine == list(range(60))


def test_requests_that_hold_no_events_are_told_so(buses: Buses) -> None:
    """Each answer names what to send instead."""
    cases: list[tuple[Any, str, int, str]] = [
        ({"hello": 1}, "application/json", 400, "that is no CloudEvent"),
        (b"[", BATCH, 400, "the batch is no JSON array"),
        ([event(n) for n in range(1001)], BATCH, 413, "at most 1000"),
        (b"x" * 8_200_000, STRUCTURED, 413, "at most 8126464"),
        (event(), "application/cloudevents+xml", 415, STRUCTURED),
        (event(), f"{STRUCTURED}; charset=latin-1", 415, "UTF-8"),
    ]
    for body, kind, status, sentence in cases:
        found = buses.post(body, kind)
        assert found[0] == status, found
        assert sentence in str(found[2])
    assert buses.post([[[[]] * 1000] * 100], BATCH)[0] == 400
    assert buses.events() == []


def test_who_may_post(buses: Buses) -> None:
    """Any ServiceAccount of the namespace, and those that a Subscription allows; everyone else is told why not."""
    token = buses.issuer.token
    for one in (token(), token("media", "other"), token("shop", "checkout"), token("tools", "anything")):
        assert buses.post(event(), token=one)[0] == 202
    status, _, told = buses.post(event(), token=token("shop", "other"))
    assert status == 403
    assert "shop/other may not post to bus orders" in told
    assert "source.bus.allowFrom" in told
    missing = "/v1/namespaces/media/buses/none/events"
    assert buses.post(event(), path=missing)[0] == 404
    assert buses.post(event(), path=missing, token=token("shop", "checkout"))[0] == 403
    assert len(buses.events()) == 1


def test_what_is_no_token_of_the_cluster_is_401(buses: Buses) -> None:
    """Other audiences, issuers, keys and algorithms, expired and malformed ones: none gets in, each answer says what is wrong."""
    token, now = buses.issuer.token, int(time.time())
    unsigned = jwt.encode({"sub": "system:serviceaccount:media:app"}, "", "none", headers={"kid": "key-1"})
    claims = jwt.decode(token(), options={"verify_signature": False})
    confused = jwt.encode(claims, buses.issuer.jwk["n"], "HS256", headers={"kid": "key-1"})
    cases = {
        "": "who calls?",
        "x": "no JSON Web Token",
        "x" * 10_000: "longer than",
        token(aud=["https://kubernetes.default.svc"]): "not made for the ingest",
        token(aud=None): "not",
        token(iss="https://elsewhere"): "issuer",
        token(exp=now - 60): "expired",
        token(sub="alice"): "no ServiceAccount",
        token(sub="system:serviceaccount:media"): "no ServiceAccount",
        Issuer("key-2").token(): "no key of this cluster",
        Issuer("key-1").token(): "not valid",
        unsigned: "not valid",
        confused: "not valid",
    }
    for given, sentence in cases.items():
        status, headers, told = buses.post(event(), token=given)
        assert (status, headers.get("www-authenticate")) == (401, "Bearer"), told
        assert sentence in told, told
    assert buses.events() == []


def test_a_rotated_key_counts(buses: Buses) -> None:
    """A new key is found when its first token comes; one that the cluster took back signs nothing any more."""
    old, new = buses.issuer, Issuer("key-2")
    kept = old.token()
    assert buses.post(event(1), token=kept)[0] == 202
    buses.plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(new))
    wait_until(lambda: buses.post(event(2), token=new.token())[0] == 202, "the new key counts")
    assert buses.post(event(3), token=kept)[0] == 401


def test_a_full_bus_is_429_and_the_others_go_on(buses: Buses) -> None:
    """With Retry-After; nothing of it is stored twice when it comes again after room was made."""
    buses.add("small", max_bytes=20_000)
    path = "/v1/namespaces/media/buses/small/events"
    answers = [buses.post(event(n, data="x" * 5000), path=path) for n in range(10)]
    assert answers[0][0] == 202
    assert answers[-1][0] == 429
    assert int(answers[-1][1]["retry-after"]) > 0
    assert "is full" in answers[-1][2]
    assert buses.post(event())[0] == 202
    buses.plane.purge(names.stream("media", "bus", "small"))
    assert buses.post(event(9, data="x" * 5000), path=path)[0] == 202
    assert [stored.id for stored in buses.events("small")] == ["9"]


def test_the_log_being_away_is_503_and_heals(buses: Buses) -> None:
    """A restart of NATS that is shorter than the ingest's patience is not even seen; a longer one is 503, and nothing is lost."""
    assert buses.post(event(1))[0] == 202
    buses.plane.server.kill()
    status, headers, _ = buses.post(event(2))
    assert (status, "retry-after" in headers) == (503, True)
    buses.plane.server.start()
    wait_until(lambda: buses.post(event(2))[0] == 202, "the ingest heals")
    assert sorted({stored.id for stored in buses.events()}) == ["1", "2"]


def test_large_bodies_at_once_are_bounded(buses: Buses) -> None:
    """One namespace's requests hold a share of the room at most: beyond it they are 429, and those of others are taken."""
    body = [event(1, data="x" * 900_000) for _ in range(4)]
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: buses.post(body, BATCH)[0], range(32)))
    assert set(answers) <= {202, 429}
    assert 202 in answers
    assert buses.webhook.ingest.resident_mebibytes() < 200
    assert buses.post(event(2))[0] == 202


@pytest.fixture
def function(buses: Buses) -> str:
    """The path of the Function `thumbnail`'s invocations."""
    stream = names.stream("media", "function", "thumbnail_uid")
    buses.plane.add_stream(stream, [names.stream_subjects("media", "function", "thumbnail_uid")], max_bytes=100_000)
    buses.plane.put(names.KV_SOURCES, names.inbox_key("function", "media", "thumbnail"), Inbox(stream=stream))
    return "/v1/namespaces/media/functions/thumbnail/invocations"


def test_an_invocation_is_in_the_log(buses: Buses, function: str) -> None:
    """202 with its id; a payload is the data of an event that says who invoked, an event stays as it is and is stored once."""
    status, _, told = buses.post({"n": 1}, "application/json", path=function)
    assert status == 202
    assert buses.post(b"", "", path=function)[0] == 202
    for _ in range(2):
        assert buses.post(event(7), path=function)[::2] == (202, {"requestId": "7"})
    payload, empty, given = buses.plane.events(names.stream("media", "function", "thumbnail_uid"))
    assert (payload.id, payload.type, payload.source) == (
        told["requestId"],
        "dev.wisp.invocation",
        "urn:wisp:serviceaccount:media:app",
    )
    assert json.loads(bytes(payload.data or b"")) == {"n": 1}
    assert empty.data is None
    assert (given.id, given.source) == ("7", "/shop")


def test_invocations_that_are_not_taken(buses: Buses, function: str) -> None:
    """Each answer says why: no JSON, several events, too large, no right, no such function, full."""
    other = buses.issuer.token("shop", "checkout")
    large = {"x": "y" * 6_000_001}
    assert buses.post(b"no json", "text/plain", path=function)[0] == 400
    assert buses.post([event(1), event(2)], BATCH, path=function)[0] == 400
    assert buses.post(event(1, type=""), path=function)[0] == 400
    assert buses.post(large, "application/json", path=function)[0] == 413
    assert "async.allowFrom" in buses.post({}, "application/json", path=function, token=other)[2]
    status, _, told = buses.post({}, "application/json", path="/v1/namespaces/media/functions/none/invocations")
    assert (status, "async: {}" in told) == (404, True)
    answers = [buses.post({"x": "y" * 40_000}, "application/json", path=function)[0] for _ in range(5)]
    assert (answers[0], answers[-1]) == (202, 429)
    assert buses.post({"x": "y" * 5_000_000}, "application/json", path=function)[0] == 429


def test_a_large_body_is_taken_whole(buses: Buses) -> None:
    """As many bytes as are taken, whatever they are, once though they come again; one more is refused, and a body without length sooner."""
    attributes = {"ce_specversion": "1.0", "ce_source": "/shop", "ce_type": "t"}
    bodies = {
        "json": (b'"' + b"x" * (PAYLOAD_BYTES - 2) + b'"', "application/json"),
        "lines": (b"\n" * PAYLOAD_BYTES, "text/plain"),
        "image": (b"\xff" * PAYLOAD_BYTES, "image/png"),
    }
    for name, (body, kind) in bodies.items():
        for _ in range(2):
            assert buses.post(body, kind, ce_id=name, **attributes)[0] == 202
        assert buses.post(body[:2] + body[1:], kind, ce_id=f"more {name}", **attributes)[0] == 400
    stored = {one.id: one for one in buses.events()}
    assert len(stored) == len(buses.events()) == len(bodies)
    assert bytes(stored["json"].data or b"") == bodies["json"][0]
    for name in ("lines", "image"):
        assert base64.b64decode(stored[name].data_base64 or "") == bodies[name][0]
    url = f"http://127.0.0.1:{buses.webhook.port}/v1/namespaces/media/buses/orders/events"
    headers = {"authorization": f"Bearer {buses.issuer.token()}", "content-type": STRUCTURED}
    chunked = urllib.request.Request(url, iter([b"x" * 5_000_000]), headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(chunked, timeout=60)
    with refused.value as answer:
        assert (answer.code, b"content-length" in answer.read()) == (413, True)
