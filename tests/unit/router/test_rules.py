"""The router's pure rules: verdicts, pauses, requests, targets, ownership, plans."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api.cloudevent import Event
from wisp_api.route import Retry, Route, Target
from wisp_events.router.ownership import ALIVE, BEAT_SECONDS, LEASE_SECONDS, LEAVING, LOST_SECONDS, Members, owner
from wisp_events.router.plan import InvalidRoute, compile_route
from wisp_events.router.replica import FOLLOW_SECONDS
from wisp_events.router.request import address, pick, render
from wisp_events.router.verdict import Answer, Failure, Outcome, Verdict, describe, judge, overloaded, pause

D, F, U, R = Verdict.DELIVERED, Verdict.FUNCTION_FAILED, Verdict.UNREACHED, Verdict.REJECTED


@pytest.mark.parametrize(
    ("status", "marked", "unmarked"),
    [
        (200, D, D),
        (204, D, D),
        (302, F, F),
        (400, R, R),
        (401, R, R),
        (404, R, U),
        (408, F, U),
        (409, F, U),
        (413, R, R),
        (429, U, U),
        (500, F, F),
        (501, F, F),
        (502, F, U),
        (503, F, U),
        (504, F, F),
    ],
)
def test_verdict(status: int, marked: Verdict, unmarked: Verdict) -> None:
    """Who answered what decides whether it counts, is final, or is the network's."""
    assert judge(Answer(status, marked=True)) is marked
    assert judge(Answer(status)) is unmarked


def test_a_refused_token_of_ours_is_not_the_functions_answer() -> None:
    """No code of the function ran, and a key is on its way: the event waits; a 401 of the code itself is final."""
    assert judge(Answer(401, marked=True, stranger=True)) is U
    assert judge(Answer(401, marked=True)) is R
    assert judge(Answer(403, marked=True, stranger=True)) is R


def test_failures() -> None:
    """A timeout is the function's, everything else without an answer the network's."""
    assert judge(Failure("no answer", timeout=True)) is F
    assert judge(Failure("refused")) is U


def test_only_429_and_503_shrink() -> None:
    """Concurrency shrinks where the target asks for less, not where it fails."""
    assert overloaded(Answer(429, marked=True))
    assert overloaded(Answer(503))
    assert not overloaded(Answer(503, marked=True))
    assert not overloaded(Answer(500))
    assert not overloaded(Failure("refused"))


def test_description_is_one_short_line() -> None:
    """Messages hold the answer's beginning in one line."""
    assert describe(Answer(500, body=b"a\n  b" + b"c" * 5000)) == "HTTP 500: a b" + "c" * 195
    assert describe(Answer(503)) == "HTTP 503"


@given(st.integers(1, 10_000), st.sampled_from([Answer(500), Answer(429, retry_after=7), Failure("x")]))
def test_pause(tries: int, outcome: Outcome) -> None:
    """A pause stays within the exponential bound and maxSeconds, and respects Retry-After."""
    retry = Retry(initial_seconds=1, max_seconds=60)
    found = pause(retry, tries, outcome)
    asked = outcome.retry_after if isinstance(outcome, Answer) else 0
    assert asked <= found <= max(asked, min(60, 2.0 ** min(tries - 1, 60)))


def test_retry_after_is_bounded() -> None:
    """A target can't ask for more than maxSeconds."""
    assert pause(Retry(max_seconds=5), 1, Answer(429, retry_after=86400)) == 5


TO = address("http://thumb-1.media.svc.cluster.local/")


def head(event: Event) -> list[str]:
    """The rendered header's lines."""
    return render(event, TO).partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_request_line_and_host() -> None:
    """The request goes to the target's path with its own host."""
    assert head(Event(id="1", source="s", type="t"))[:2] == ["POST / HTTP/1.1", "host: thumb-1.media.svc.cluster.local"]
    other = address("http://127.0.0.1:8080/a/b?c=d")
    assert (other.host, other.port) == ("127.0.0.1", 8080)
    assert other.head.startswith(b"POST /a/b?c=d HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n")


@given(st.text(min_size=1))
def test_no_attribute_breaks_out_of_its_header(text: str) -> None:
    """Whatever an attribute holds, it stays one header line of printable ASCII."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # no JSON text holds a lone surrogate
    lines = head(Event(id=text, source="s", type="t", subject=text, partitionkey=text, extensions={"own": text}))
    assert len(lines) == 3 + 7 + 1 + 2 - 1
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("event", "content_type", "body"),
    [
        ({"data": msgspec.Raw(b'{"a": 1}')}, "application/json", b'{"a": 1}'),
        ({"data": msgspec.Raw(b'"text"')}, "application/json", b'"text"'),
        ({"data": msgspec.Raw(b'"a\\nb"'), "datacontenttype": "text/plain"}, "text/plain", b"a\nb"),
        ({"data": msgspec.Raw(b"[1]"), "datacontenttype": "application/x+json"}, "application/x+json", b"[1]"),
        ({"data_base64": "AP8=", "datacontenttype": "image/png"}, "image/png", b"\x00\xff"),
        ({}, None, b""),
    ],
)
def test_body(event: dict[str, object], content_type: str | None, body: bytes) -> None:
    """JSON data goes as it is, text and binary data as themselves."""
    rendered = render(Event(id="1", source="s", type="t", **event), TO)  # type: ignore[arg-type]
    assert rendered.endswith(f"content-length: {len(body)}\r\n\r\n".encode() + body)
    assert (f"content-type: {content_type}\r\n".encode() in rendered) is bool(content_type)


@pytest.mark.parametrize(
    "event",
    [
        {"extensions": {"x\r\nevil": "1"}},
        {"datacontenttype": "a\r\nevil: 1", "data": msgspec.Raw(b"1")},
        {"data_base64": "!"},
    ],
)
def test_what_http_cannot_carry_is_refused(event: dict[str, object]) -> None:
    """Names and types that would break out of a header, and data that is no base64, are errors, not requests."""
    with pytest.raises(ValueError, match=r"extension|datacontenttype|base64"):
        render(Event(id="1", source="s", type="t", **event), TO)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "http://u:p@x/",
        "http://:p@x/",
        "x",
        "http:///",
        "http://a b/",
        "http://x/\r\nevil",
        "http://x:99999/",
    ],
)
def test_bad_target(url: str) -> None:
    """What is no URL of HTTP is refused."""
    with pytest.raises(ValueError, match=r"target|[Pp]ort"):
        address(url)


def test_a_route_whose_target_has_no_name() -> None:
    """A host that nobody can look up makes the route invalid at once, with that as its reason, and not each delivery a surprise."""
    route = Route(namespace="n", name="r", uid="u", generation=3, stream="s", subjects=["a"], filters=[])
    raw = msgspec.json.encode(msgspec.structs.replace(route, targets=[Target(url="http://hello..svc/")]))
    with pytest.raises(InvalidRoute, match=r"the host 'hello\.\.svc' is no name"):
        compile_route(raw)


def test_pick_respects_shares_and_is_stable() -> None:
    """Shares come out about right, and the same event always picks the same target."""
    targets = [Target(url="a", percent=90), Target(url="b", percent=10), Target(url="c", percent=0)]
    picked = Counter(pick(targets, str(n)) for n in range(5000))
    assert picked[2] == 0
    assert 0.07 < picked[1] / 5000 < 0.13
    assert pick(targets, "same") == pick(targets, "same")


def test_a_member_that_leaves_moves_only_its_share() -> None:
    """Rendezvous: the routes of those that stay don't move."""
    routes = [f"ns.r{n}" for n in range(300)]
    before = {route: owner(route, ["a", "b", "c"]) for route in routes}
    after = {route: owner(route, ["a", "b"]) for route in routes}
    assert all(after[route] == before[route] for route in routes if before[route] != "c")
    assert min(Counter(before.values()).values()) > 60


def test_members() -> None:
    """A silent member may be replaced after LOST_SECONDS, a leaving one only after its release, nobody right after an outage."""
    members = Members("me", 0.0)
    members.observe("other", 1, 1.0, ALIVE)
    assert set(members.sharing(1.0)) == {"me", "other"}
    assert not members.may_take("other", 1.0 + LOST_SECONDS - 0.1)
    assert members.may_take("other", 1.0 + LOST_SECONDS)
    members.observe("other", 1, 5.0, ALIVE)  # the same revision is no sign of life
    assert members.may_take("other", 1.0 + LOST_SECONDS)
    members.observe("other", 2, 8.0, LEAVING)
    assert members.sharing(8.0) == ["me"]
    assert not members.may_take("other", 8.0)
    members.interrupted(100.0)
    assert not members.may_take("other", 100.0 + LOST_SECONDS - 0.1)
    assert not members.may_take("unknown", 100.0 + LOST_SECONDS - 0.1)
    assert members.may_take("", 100.0)
    assert members.may_take("me", 100.0)


@pytest.mark.parametrize("killed", [step / 10 for step in range(100, 120)])
def test_the_routes_of_a_killed_replica_are_taken_within_10_seconds(killed: float) -> None:
    """At whatever moment between two beats it is killed, and however the other's polls lie between them."""
    for offset in (0.0, 0.1, 0.2, 0.3, 0.4):
        members, now, revision, beat = Members("me", 0.0), offset, 0, 0.0
        while not (members.may_take("other", now) and members.sharing(now) == ["me"]):
            now += FOLLOW_SECONDS
            members.beat(revision, now)
            if now < killed and now - beat >= BEAT_SECONDS:
                beat, revision = now, revision + 1
            members.observe("other", revision, now, ALIVE)
        assert killed < now < killed + 10


def test_beats_that_lag_are_none() -> None:
    """An older one is no sign of life, brings back neither who leaves nor who left, and is a new one where the bucket was made anew."""
    members = Members("me", 0.0)
    members.observe("other", 7, 1.0, ALIVE)
    members.observe("other", 6, 5.0, ALIVE)
    assert members.may_take("other", 1.0 + LOST_SECONDS)
    members.observe("other", 8, 5.0, LEAVING)
    members.observe("other", 7, 6.0, ALIVE)
    assert members.sharing(6.0) == ["me"]
    members.observe("other", 9, 6.0, None)
    members.observe("other", 8, 6.0, ALIVE)
    assert members.sharing(6.0) == ["me"]
    members.beat(10, 7.0)
    members.observe("other", 3, 7.0, ALIVE)
    assert members.sharing(7.0) == ["me"]
    members.beat(1, 8.0)
    members.observe("other", 2, 8.0, ALIVE)
    assert set(members.sharing(8.0)) == {"me", "other"}


def test_lease_ends_before_others_may_take_over() -> None:
    """A replica stops starting attempts before anyone may count it as lost."""
    members = Members("me", 0.0)
    members.beat(1, 10.0)
    assert members.leased(10.0 + LEASE_SECONDS - 0.1)
    assert not members.leased(10.0 + LEASE_SECONDS)
    assert LEASE_SECONDS < LOST_SECONDS


def test_invalid_route_keeps_what_names_it() -> None:
    """A route of a later version that does not decode still has uid and generation in its error."""
    with pytest.raises(InvalidRoute) as error:
        compile_route(b'{"uid": "u", "generation": 3, "namespace": 5}')
    assert (error.value.uid, error.value.generation) == ("u", 3)
