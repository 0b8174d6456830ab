"""Dead letters over HTTP: listed, shown, dropped, and sent again to the Subscription that they came from, by a real router."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import NAMESPACE, STREAM, SUBJECTS, World, event, world
from fixtures.tokens import Issuer, token_keys
from wisp_api import cloudevent, names
from wisp_api.route import DeadLetter, Target
from wisp_api.source import Inbox
from wisp_events import log
from wisp_events.ingest.app import App
from wisp_events.ingest.deadletters import AT_ONCE
from wisp_events.ingest.letters import Letters
from wisp_events.router import bucket


@dataclass
class Door:
    """The ingest's application beside a world, and who calls it."""

    world: World
    app: App
    issuer: Issuer

    async def __call__(
        self,
        method: str,
        path: str = "",
        body: Any = None,
        *,
        token: str | None = None,
        query: str = "",
        namespace: str = NAMESPACE,
    ) -> tuple[int, Any]:
        """Status and answer of a request."""
        content = json.dumps(body).encode() if body is not None else b""
        given = self.issuer.token(namespace=namespace) if token is None else token
        scope = {
            "type": "http",
            "method": method,
            "path": f"/v1/namespaces/{namespace}/deadletters{path}",
            "query_string": query.encode(),
            "headers": [(b"wisp-authorization", f"Bearer {given}".encode())],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        said = sent[1]["body"].decode()
        return sent[0]["status"], json.loads(said) if said.startswith("{") else said

    async def subscribe(self, name: str = "sub", **fields: Any) -> None:
        """Write a route that reads what comes again, as the operator does."""
        subjects = [*SUBJECTS, names.redrive_subject(STREAM, f"uid-{name}")]
        await self.world.subscribe(name, subjects=subjects, **fields)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A world with one router, and the door."""
    async with world(tmp_path) as made:
        issuer = Issuer()
        keys = msgspec.json.encode(token_keys(issuer))
        await bucket.write(made.client.jetstream(timeout=60), names.KV_SOURCES, names.TOKEN_KEYS, keys)
        app = App(tmp_path)
        app.connected(made.client, "wisp-system")
        made.router()
        yield Door(made, app, issuer)


def refusing(*ids: str) -> Any:
    """A function that refuses these events for good."""

    def answer(request: Request) -> Answer:
        return (422, MARKED, b"no such customer") if request.id in ids else ok(request)

    return answer


async def letters(door: Door, count: int, after: int = 0) -> list[dict[str, Any]]:
    """Wait for this many letters in the list."""
    async with asyncio.timeout(60):
        while True:
            status, page = await door("GET", query=f"after={after}")
            assert status == 200, page
            if len(page["letters"]) == count:
                return list(page["letters"])
            await asyncio.sleep(0.05)


async def test_redriven_events_come_again_to_their_subscription_alone(door: Door) -> None:
    """They keep ids and the order of their keys, pass its filter unasked, reach no other Subscription, and their letters are gone."""
    w = door.world
    w.function.answer = refusing("1", "3", "4")
    await door.subscribe()
    await door.subscribe("other", targets=[Target(url=w.function.url + "other")])
    w.function.answer = lambda r: ok(r) if r.path == "/other" else refusing("1", "3", "4")(r)
    await w.publish(*(event(n, "odd" if n % 2 else "even") for n in range(1, 6)))
    found = await letters(door, 3)
    assert {one["subscription"] for one in found} == {"sub"}
    await w.delivered(7)
    w.function.answer = ok
    await door.subscribe(generation=2, filters=[{"type": ["nothing of the kind"]}])
    await w.active(generation=2)
    status, done = await door("POST", "/redrive", {"subscription": "sub"})
    assert (status, done["done"], done["kept"], done["more"]) == (200, 3, [], False)
    ids = (await w.delivered(10))[7:]
    assert sorted(ids) == ["1", "3", "4"]
    assert ids.index("1") < ids.index("3")
    assert Counter(request.path for request in w.function.finished) == {"/": 5, "/other": 5}
    assert (await door("GET"))[1] == {"letters": [], "more": False}


async def test_what_a_bus_did_not_take_goes_there(door: Door) -> None:
    """A reply or record whose bus was missing is put on it once it is there; until then its letter stays and says so."""
    js, stream = door.world.client.jetstream(timeout=60), names.stream(NAMESPACE, "bus", "done")
    raw = msgspec.Raw(cloudevent.encode(event(7)))
    letter = DeadLetter(
        reason="DestinationFailed", message="m", time="t", namespace=NAMESPACE, source="bus/done", event=raw
    )
    await log.dead_letter(js, letter)
    _, refused = await door("POST", "/redrive", {})
    assert (refused["done"], [one["message"] for one in refused["kept"]]) == (
        0,
        ["there is no bus done: a Subscription has to name it in source.bus"],
    )
    await js.add_stream(name=stream, subjects=[names.stream_subjects(NAMESPACE, "bus", "done")], allow_direct=True)
    inbox = msgspec.json.encode(Inbox(stream=stream))
    await bucket.write(js, names.KV_SOURCES, names.inbox_key("bus", NAMESPACE, "done"), inbox)
    _, done = await door("POST", "/redrive", {})
    assert (done["done"], done["kept"]) == (1, [])
    stored = await js.get_msg(stream, 1)
    assert cloudevent.decode_frame(stored.data or b"") == [raw]
    assert (stored.subject or "").startswith("wisp.events.shop.bus.done.dev%2Ewisp%2Epostgres%2Einsert.")
    assert (await door("GET"))[1] == {"letters": [], "more": False}


async def test_a_record_goes_to_the_destination_that_did_not_take_it(door: Door) -> None:
    """By the destination's route, and nowhere else."""
    w, name = door.world, "failure_subscription_sub"
    raw = msgspec.Raw(cloudevent.encode(event(7)))
    letter = DeadLetter(
        reason="Rejected", message="m", time="t", namespace=NAMESPACE, source=f"destination/{name}", event=raw
    )
    await log.dead_letter(w.client.jetstream(timeout=60), letter)
    _, refused = await door("POST", "/redrive", {})
    assert [one["message"] for one in refused["kept"]] == [
        f"there is no destination {name} (any more) that could take it"
    ]
    await door.subscribe(name, records=True, targets=[Target(url=w.function.url + "hook")])
    await door.subscribe()
    await w.active()
    await w.active(name)
    _, done = await door("POST", "/redrive", {})
    assert (done["done"], done["kept"]) == (1, [])
    assert await w.delivered(1) == ["7"]
    assert {request.path for request in w.function.requests} == {"/hook"}


async def test_an_event_whose_content_is_gone_is_not_sent_again(door: Door) -> None:
    """Its attributes alone would look like an event without data; the letter stays."""
    raw = msgspec.Raw(cloudevent.encode(msgspec.structs.replace(event(7), data=None)))
    letter = DeadLetter(
        reason="RecordGone", message="m", time="t", namespace=NAMESPACE, subscription="sub", stream=STREAM, event=raw
    )
    await door.subscribe()
    await log.dead_letter(door.world.client.jetstream(), letter)
    _, refused = await door("POST", "/redrive", {})
    assert refused["done"] == 0
    assert "its content is gone" in refused["kept"][0]["message"]
    await letters(door, 1)


async def test_what_fails_again_is_a_letter_again(door: Door) -> None:
    """An order acts on the letters that were there; each failure afterwards is a new letter, and can be sent again at once."""
    w = door.world
    w.function.answer = refusing("1")
    await door.subscribe()
    await w.publish(event(1))
    last = 0
    for _ in range(3):
        (letter,) = await letters(door, 1, last)
        last = letter["id"]
        status, done = await door("POST", "/redrive", {})
        assert (status, done["done"]) == (200, 1)
        await letters(door, 1, last)
        assert (await door("POST", "/redrive", {"after": last, "until": done["until"]}))[1]["done"] == 0
    assert [request.id for request in w.function.requests] == ["1"] * 4


async def test_one_letter_is_shown_sent_and_dropped_by_its_id(door: Door) -> None:
    """A letter tells all; `ids` acts on no others; a page ends where it is asked to."""
    w = door.world
    w.function.answer = refusing("1", "2", "3")
    await door.subscribe()
    await w.publish(event(1), event(2), event(3))
    one, two, three = await letters(door, 3)
    status, shown = await door("GET", f"/{two['id']}")
    assert status == 200
    assert (shown["event"]["id"], shown["lastStatus"], shown["lastResponse"]) == ("2", 422, "no such customer")
    assert two["message"] == shown["message"] == "the function refused the event: HTTP 422: no such customer"
    page = (await door("GET", query=f"after={one['id']}&limit=1&subscription=sub"))[1]
    assert (page["letters"], page["more"]) == ([two], True)
    assert (await door("GET", query="subscription=nobody"))[1]["letters"] == []
    w.function.answer = ok
    assert (await door("POST", "/redrive", {"ids": [two["id"]]}))[1]["done"] == 1
    assert await w.delivered(1) == ["2"]
    assert (await door("POST", "/purge", {"ids": [three["id"]]}))[1]["done"] == 1
    assert (await door("GET"))[1]["letters"] == [one]
    assert (await door("GET", f"/{two['id']}"))[0] == 404
    assert (await door("POST", "/redrive", {"ids": [two["id"]]}))[0] == 404


async def test_a_large_event_is_shown_and_sent_again(door: Door) -> None:
    """Its letter has all of it, and so has what comes again."""
    w, pad = door.world, "x" * 5_900_000
    w.function.answer = refusing("1")
    await door.subscribe()
    await w.publish(event(1, data={"pad": pad}))
    [letter] = await letters(door, 1)
    assert (await door("GET", f"/{letter['id']}"))[1]["event"]["data"] == {"pad": pad}
    w.function.answer = ok
    assert (await door("POST", "/redrive", {}))[1]["done"] == 1
    assert await w.delivered(1) == ["1"]
    assert w.function.finished[0].json() == {"pad": pad}
    assert (await door("GET"))[1] == {"letters": [], "more": False}


async def test_few_requests_hold_letters_at_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each letter may have 8 MB: one request of a namespace reads, a few of all; the others wait and are answered then."""
    inside: Counter[str] = Counter()
    most: Counter[str] = Counter()

    full = asyncio.Event()

    async def one(_: Letters, namespace: str, _number: int) -> None:
        inside[namespace] += 1
        most[namespace] = max(most[namespace], inside[namespace])
        most["all"] = max(most["all"], inside.total())
        if inside.total() >= AT_ONCE:
            full.set()
        await asyncio.wait_for(full.wait(), 60)
        await asyncio.sleep(0.01)
        inside[namespace] -= 1

    monkeypatch.setattr(Letters, "one", one)
    callers = [f"n{number % 5}" for number in range(20)]
    answers = await asyncio.gather(*(door("GET", "/7", namespace=name) for name in callers))
    assert {status for status, _ in answers} == {404}
    assert most == Counter(dict.fromkeys(callers, 1) | {"all": AT_ONCE})


async def test_large_orders_go_on_after_the_last(door: Door) -> None:
    """What is above the limit is left for the next request, which names the last letter; none is passed over."""
    js = door.world.client.jetstream(timeout=60)
    for n in range(5):
        await log.dead_letter(
            js, DeadLetter(reason="r", message="m", time=str(n), namespace=NAMESPACE, subscription="sub", input=str(n))
        )
    status, done = await door("POST", "/purge", {"limit": 3})
    assert (status, done["done"], done["more"]) == (200, 3, True)
    status, done = await door("POST", "/purge", {"limit": 3, "after": done["after"], "until": done["until"]})
    assert (status, done["done"], done["more"]) == (200, 2, False)


async def test_what_can_not_be_sent_again_stays_and_says_why(door: Door) -> None:
    """Letters of a source, without an event, or of a Subscription that is gone, are kept with the reason."""
    js = door.world.client.jetstream(timeout=60)
    common: dict[str, Any] = {"reason": "r", "message": "m", "time": "t", "namespace": NAMESPACE}
    raw = msgspec.Raw(b'{"specversion":"1.0","id":"1","source":"s","type":"t"}')
    await log.dead_letter(js, DeadLetter(**common, source="s3/minio", event=raw))
    await log.dead_letter(js, DeadLetter(**common, subscription="sub", input="no event"))
    await log.dead_letter(js, DeadLetter(**common, subscription="gone", event=raw))
    status, done = await door("POST", "/redrive", {})
    assert (status, done["done"]) == (200, 0)
    said = [one["message"] for one in done["kept"]]
    for one, wanted in zip(said, ("of the source s3/minio", "holds no event", "no Subscription gone"), strict=True):
        assert wanted in one
    assert len((await door("GET"))[1]["letters"]) == 3


async def test_an_invocations_letter_goes_back_to_its_function(door: Door) -> None:
    """An asynchronous invocation that failed is sent again to the Function that it was for."""
    js = door.world.client.jetstream(timeout=60)
    raw = msgspec.Raw(b'{"specversion":"1.0","id":"i","source":"s","type":"t"}')
    await log.dead_letter(
        js, DeadLetter(reason="r", message="m", time="t", namespace=NAMESPACE, source="function/hello", event=raw)
    )
    assert "no Function hello" in (await door("POST", "/redrive", {}))[1]["kept"][0]["message"]
    await door.subscribe(names.invocation_route("hello"), function="hello")
    assert (await door("POST", "/redrive", {}))[1]["done"] == 1
    subject = names.redrive_subject(STREAM, "uid-function_hello")
    assert (await js.get_last_msg(STREAM, subject)).data == b"[" + bytes(raw) + b"]"


async def test_letters_are_for_their_own_namespace(door: Door) -> None:
    """Without a token, or with another namespace's, nothing is told and nothing moves; another namespace's letter has no id here."""
    js = door.world.client.jetstream(timeout=60)
    await js.add_stream(name="dead_media", subjects=["wisp.dead.media.>"], allow_direct=True)
    await log.dead_letter(js, DeadLetter(reason="r", message="m", time="t", namespace="media", subscription="sub"))
    assert (await door("GET", token=""))[0] == 401
    for method, path in (("GET", ""), ("GET", "/1"), ("POST", "/redrive"), ("POST", "/purge")):
        status, said = await door(method, path, token=door.issuer.token(namespace="media"))
        assert (status, "not media's" in said) == (403, True)
    assert (await door("GET"))[1]["letters"] == []
    assert (await door("GET", "/1"))[0] == 404
    assert (await door("POST", "/purge", {"ids": [1]}))[0] == 404
    assert (await door("POST", "/purge", {}))[1]["done"] == 0
    assert (await door("POST", "/redrive", {"wrong": 1}))[0] == 400
    assert (await door("DELETE", "/1"))[0] == 405


async def test_what_is_no_letter_hides_no_other(door: Door) -> None:
    """Something else under a namespace's letters is shown as such, can't be sent again, and can be dropped."""
    js = door.world.client.jetstream(timeout=60)
    for content in (b"no json", b'{"reason":"r","message":"m","time":"t","namespace":"n","event":{"id":1}}'):
        await js.publish(f"wisp.dead.{NAMESPACE}.subscription.sub", content)
    await log.dead_letter(js, DeadLetter(reason="r", message="m", time="t", namespace=NAMESPACE, subscription="sub"))
    page = (await door("GET"))[1]
    assert [one["reason"] for one in page["letters"]] == ["Malformed", "Malformed", "r"]
    assert (await door("GET", "/1"))[1]["input"] == "no json"
    assert (await door("POST", "/redrive", {}))[1]["done"] == 0
    assert (await door("POST", "/purge", {}))[1]["done"] == 3


async def test_a_letter_dropped_twice_at_once_is_dropped(door: Door, tmp_path: Path) -> None:
    """Two replicas that drop the same letters both succeed."""
    js = door.world.client.jetstream(timeout=60)
    for n in range(20):
        await log.dead_letter(
            js, DeadLetter(reason="r", message="m", time=str(n), namespace=NAMESPACE, subscription="sub", input=str(n))
        )
    app = App(tmp_path)
    app.connected(door.world.client, "wisp-system")
    other = Door(door.world, app, door.issuer)
    answers = await asyncio.gather(door("POST", "/purge", {}), other("POST", "/purge", {}))
    assert [status for status, _ in answers] == [200, 200]
    assert (await door("GET"))[1]["letters"] == []


async def test_numbers_that_no_letter_has_are_refused(door: Door) -> None:
    """An id of 0, below, or above all is no letter's; a wrong place to go on from is said to be wrong."""
    for number in (0, -1, 2**63, 10**30):
        body = {"ids": [number], "after": 0}
        assert (await door("POST", "/purge", body))[0] == (404 if number > 0 else 200)
    assert (await door("GET", "/0"))[0] == 404
    assert (await door("GET", f"/{2**63}"))[0] == 404
    assert (await door("GET", query=f"after={2**63}"))[0] == 400
    assert (await door("POST", "/purge", {"after": -1}))[0] == 400
