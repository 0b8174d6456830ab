"""Who may call a function: a real process, real tokens, a real issuer."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures.issuer import Issuer, IssuerServer, issuer_server
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Answer, FunctionProcess

published = pytest.fixture(issuer_server, name="published")

ECHO = """
def handler(event, context):
    return {"event": event}
"""
HTTP = """
def handler(request):
    return {"headers": dict(request.headers.items()), "claims": request.claims, "scopes": request.scopes}
"""
ASGI = """
import json
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["extensions"]["wisp.jwt"]["claims"]["sub"]})
        await send({"type": "websocket.close"})
    if scope["type"] == "http":
        told = {"jwt": scope["extensions"].get("wisp.jwt"), "headers": [n.decode() for n, _ in scope["headers"]]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""
DEADLINE = 30.0


@pytest.fixture
def guard(tmp_path: Path) -> Callable[..., str]:
    """Write a file of issuers as kubelet does, whole and at once; its path."""

    def guard(*entries: dict[str, Any]) -> str:
        fresh = tmp_path / "fresh.json"
        fresh.write_text(json.dumps({"issuers": entries}))
        return str(fresh.rename(tmp_path / "auth.json"))

    return guard


def call(function: FunctionProcess, token: str = "", path: str = "/", **headers: str) -> Answer:
    """Call with a token, if there is one."""
    return function.request(path, headers=headers | ({"authorization": f"Bearer {token}"} if token else {}))


def until(answers: Callable[[], Answer], status: int) -> Answer:
    """Ask again until the answer has this status."""
    end = time.monotonic() + DEADLINE
    while (answer := answers()).status != status:
        assert time.monotonic() < end, (answer.status, answer.body)
        time.sleep(0.05)
    return answer


def verifier_of(function: FunctionProcess) -> int:
    """The process that has the library of cryptography in it."""
    pid = function.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [child for child in children if "cryptography" in Path(f"/proc/{child}/maps").read_text()]
    return int(found)


def test_a_call_needs_a_token_that_a_trusted_issuer_signed(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Without one 401 names the scheme, with a bad one the error too; every refusal has the runtime's mark."""
    issuer, stranger = Issuer("https://issuer"), Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry()))
    assert call(function, issuer.sign()).status == 200
    nobody = call(function)
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="wisp"')
    bad = {
        "a forged signature": stranger.sign(),
        "an unknown key": stranger.sign({"kid": "k2"}),
        "an unknown issuer": issuer.sign(iss="https://other"),
        "no issuer": issuer.sign(iss=None),
        "another audience": issuer.sign(aud="you"),
        "an expired token": issuer.sign(exp=int(time.time()) - 61),
        "nonsense": "nonsense",
    }
    for what, token in bad.items():
        answer = call(function, token)
        assert answer.status == 401, what
        assert answer.headers["www-authenticate"].startswith('Bearer realm="wisp", error="invalid_token"'), what
        assert answer.headers["wisp-request-id"], what
        assert answer.json["errorType"] == "Unauthorized", what
        assert token not in "".join(function.raw_lines), what
    assert issuer.sign() not in "".join(function.raw_lines)


def test_a_good_token_of_one_who_may_not_call_is_403(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """The challenge says that more is needed than a good token."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry(callers=["ada"], scopes=["read"])))
    assert call(function, issuer.sign(scope="read")).status == 200
    for token in (issuer.sign(sub="eve", scope="read"), issuer.sign(scope="write")):
        answer = call(function, token)
        assert answer.status == 403
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_more_than_one_token_or_one_too_long_is_a_bad_request(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Which of two would count is not guessed; the verifier is not troubled with what no issuer signs."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry()))
    token = issuer.sign()
    twice = f"GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n\r\n"
    assert function.raw(twice.encode()).startswith(b"HTTP/1.1 400 ")
    long = call(function, token + "x" * 16384)
    assert (long.status, long.json["errorType"]) == (400, "InvalidRequest")
    assert call(function, authorization="Basic YTpi").status == 401
    assert call(function, authorization=f"bearer  {token}").status == 200


def test_health_asks_for_no_token(serve: Callable[..., FunctionProcess], guard: Callable[..., str]) -> None:
    """Probes go on without one."""
    function = serve(ECHO, WISP_AUTH_FILE=guard(Issuer("https://issuer").entry()))
    assert function.request("/_wisp/health").status == 200


def test_the_platform_s_token_never_reaches_the_code(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Nor do headers of the gate's that a caller forges; what came beside the token stays."""
    issuer = Issuer("https://issuer")
    function = serve(HTTP, WISP_AUTH_FILE=guard(issuer.entry()))
    forged = {"wisp-jwt-claims": '{"sub": "root"}', "x-own": "1"}
    told = call(function, issuer.sign(), **forged).json
    assert told["headers"].keys() == {"host", "accept-encoding", "x-own", "traceparent"}
    assert (told["claims"], told["scopes"]) == ({}, [])
    told = function.request(
        "/", headers={"wisp-authorization": f"Bearer {issuer.sign()}", "authorization": "Own x"}
    ).json
    assert told["headers"]["authorization"] == "Own x"
    assert "wisp-authorization" not in told["headers"]


def test_an_http_handler_gets_verified_claims(serve: Callable[..., FunctionProcess], guard: Callable[..., str]) -> None:
    """As attributes of the request, and as a header for whatever reads nothing else."""
    issuer = Issuer("https://issuer")
    function = serve(HTTP, WISP_AUTH_FILE=guard(issuer.entry(claims=True)))
    told = call(function, issuer.sign(name="Ada Löve", scope="a b"), **{"wisp-jwt-claims": "forged"}).json
    assert told["claims"]["name"] == "Ada Löve"
    assert told["scopes"] == ["a", "b"]
    assert json.loads(told["headers"]["wisp-jwt-claims"]) == told["claims"]
    assert "authorization" in told["headers"]


def test_an_asgi_app_gets_verified_claims_in_its_scope(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Under extensions, where ASGI wants what servers add."""
    issuer = Issuer("https://issuer")
    function = serve(ASGI, "app.app", WISP_AUTH_FILE=guard(issuer.entry(claims=True)))
    told = call(function, issuer.sign()).json
    assert told["jwt"]["claims"]["sub"] == "ada"
    assert "wisp-jwt-claims" in told["headers"]


def test_a_websocket_s_handshake_needs_a_token_too(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """A refused one ends its connection; an accepted one's app is told the claims."""
    issuer = Issuer("https://issuer")
    function = serve(ASGI, "app.app", WISP_AUTH_FILE=guard(issuer.entry(claims=True)))
    address = f"ws://127.0.0.1:{function.port}/"
    with pytest.raises(InvalidStatus) as refused:
        connect(address)
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["connection"] == "close"
    with connect(address, additional_headers={"authorization": f"Bearer {issuer.sign()}"}) as socket:
        assert socket.recv(DEADLINE) == "ada"


def test_claims_cant_be_forged_by_sending_the_event_itself(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Who has a token that claims are told of makes no events: only the platform, whose tokens tell of nobody, does."""
    person, platform = Issuer("https://person"), Issuer("https://platform")
    function = serve(ECHO, WISP_AUTH_FILE=guard(person.entry(claims=True), platform.entry()))
    event = {"version": "2.0", "requestContext": {"authorizer": {"jwt": {"claims": {"sub": "root"}}}}}
    forged = function.invoke(event, authorization=f"Bearer {person.sign()}")
    assert (forged.status, forged.json["errorType"]) == (403, "Forbidden")
    assert forged.headers["www-authenticate"].startswith('Bearer realm="wisp", error="insufficient_scope"')
    assert function.invoke(event, authorization=f"Bearer {platform.sign()}").json["event"] == event
    assert call(function, person.sign()).status == 200


def test_a_lambda_handler_gets_claims_as_api_gateway_gives_them(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Every claim is a text, a list has its words in brackets; without scopes they are null."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry(claims=True)))
    claims: dict[str, Any] = {
        "groups": ["a", "b"],
        "admin": True,
        "exp": int(time.time()) + 100,
        "address": {"city": "Oslo"},
    }
    told = call(function, issuer.sign(**claims)).json["event"]["requestContext"]["authorizer"]["jwt"]
    said = told["claims"]
    assert (said["groups"], said["admin"], said["exp"]) == ("[a b]", "true", str(claims["exp"]))
    assert json.loads(said["address"]) == {"city": "Oslo"}
    assert told["scopes"] is None


def test_a_changed_file_counts_without_a_restart(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Rotation: the new key is taken, the withdrawn one refused though its token was remembered; a broken file changes nothing."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry()))
    old = issuer.sign()
    assert call(function, old).status == 200
    issuer.rotate("k2")
    guard(issuer.entry())
    until(lambda: call(function, issuer.sign()), 200)
    assert call(function, old).status == 401
    guard({"issuer": "broken"})
    end = time.monotonic() + DEADLINE
    while not any("can't be used" in line for line in list(function.raw_lines)):
        assert call(function, issuer.sign()).status == 200
        assert time.monotonic() < end
    assert call(function, issuer.sign()).status == 200
    assert call(function, old).status == 401


def test_a_start_without_a_usable_file_fails(start: Callable[..., FunctionProcess], guard: Callable[..., str]) -> None:
    """Rather than serving everybody, or nobody; Kubernetes' termination log says why."""
    function = start(ECHO, WISP_AUTH_FILE=guard({"issuer": "i"}))
    assert function.exit_status() == 1
    assert "WISP_AUTH_FILE" in function.termination_log.read_text()


def test_keys_come_from_where_the_issuer_says(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str], published: IssuerServer
) -> None:
    """By discovery; a new key is asked for when the first token with it comes, which waits for it."""
    entry = {"issuer": published.url, "audiences": ["me"], "claims": True}
    function = serve(ECHO, WISP_AUTH_FILE=guard(entry))
    assert call(function, published.issuer.sign()).status == 200
    assert set(published.requests) == {"/.well-known/openid-configuration", "/keys"}


def test_unknown_keys_have_the_issuer_asked_rarely(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str], published: IssuerServer
) -> None:
    """Whatever callers send costs it one request in half a minute; good tokens go on."""
    function = serve(
        ECHO, WISP_AUTH_FILE=guard({"issuer": published.url, "audiences": ["me"], "jwksUrl": f"{published.url}/keys"})
    )
    assert call(function, published.issuer.sign()).status == 200
    for number in range(20):
        assert call(function, published.issuer.sign({"kid": f"x{number}"})).status == 401
    assert call(function, published.issuer.sign()).status == 200
    assert published.requests == ["/keys"]


def test_an_issuer_that_can_t_be_asked_is_no_reason_for_401(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str], published: IssuerServer
) -> None:
    """The caller is asked to try again, by an answer that is not marked as the function's; the log names the issuer."""
    published.status = 500
    platform = Issuer("https://platform")
    function = serve(ECHO, WISP_AUTH_FILE=guard({"issuer": published.url, "audiences": ["me"]}, platform.entry()))
    answer = call(function, published.issuer.sign())
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "wisp-request-id" not in answer.headers
    function.log(lambda line: published.url in line["message"] and line["level"] == "WARNING")
    assert call(function, platform.sign()).status == 200


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": "http://127.0.0.1:9/keys"},
    ],
)
def test_a_discovery_document_that_can_t_be_trusted_gives_no_keys(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str], published: IssuerServer, discovery: dict[str, Any]
) -> None:
    """Another issuer's, or one that leads to a file or nowhere."""
    published.discovery |= discovery
    function = serve(ECHO, WISP_AUTH_FILE=guard({"issuer": published.url, "audiences": ["me"]}))
    assert call(function, published.issuer.sign()).status == 503


def test_a_verifier_that_is_killed_is_replaced(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """Tokens that were found good before pass meanwhile, the next one starts another process."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry()))
    known = issuer.sign()
    assert call(function, known).status == 200
    first = verifier_of(function)
    os.kill(first, signal.SIGKILL)
    function.log(lambda line: "checks tokens has ended" in line["message"])
    assert call(function, known).status == 200
    assert until(lambda: call(function, issuer.sign(jti="2")), 200)
    assert verifier_of(function) != first


def test_a_verifier_that_hangs_admits_nobody(serve: Callable[..., FunctionProcess], guard: Callable[..., str]) -> None:
    """Its callers are asked to try again; who hangs up meanwhile costs nothing."""
    issuer = Issuer("https://issuer")
    function = serve(ECHO, WISP_AUTH_FILE=guard(issuer.entry()))
    assert call(function, issuer.sign()).status == 200
    os.kill(verifier_of(function), signal.SIGSTOP)
    with function.socket() as gone:
        gone.sendall(f"GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {issuer.sign(jti='1')}\r\n\r\n".encode())
    assert call(function, issuer.sign(jti="2")).status == 503
    os.kill(verifier_of(function), signal.SIGCONT)
    assert call(function, issuer.sign(jti="3")).status == 200


def test_a_function_brings_its_own_cryptography(
    serve: Callable[..., FunctionProcess], guard: Callable[..., str]
) -> None:
    """No worker holds what the gate uses: the function's own version is imported, whatever it is."""
    issuer = Issuer("https://issuer")
    code = {
        "app.py": "import sys\nours = 'cryptography' in sys.modules or 'ssl' in sys.modules\nimport cryptography\n"
        "def handler(event, context):\n    return {'version': cryptography.__version__, 'ours': ours}\n",
        "cryptography.py": "__version__ = 'mine'\n",
    }
    function = serve(code, interpreter=("-P", "-m", "wisp_runtime"), WISP_AUTH_FILE=guard(issuer.entry()))
    assert call(function, issuer.sign()).json == {"version": "mine", "ours": False}
