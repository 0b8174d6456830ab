"""`wisp dead` against a real ingest and log; the API server's part, tokens and the proxy, is played by the test."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from fixtures.cli import Wisp
from fixtures.dataplane import DataPlane
from fixtures.tokens import Issuer, token_keys
from fixtures.webhook import Webhook
from wisp_api import names
from wisp_api.route import DeadLetter, Route

STREAM = names.stream("media", "bus", "orders")
REDRIVE = names.redrive_subject(STREAM, "u1")


@dataclass
class ApiServer:
    """What of an API server the command needs; the way to the ingest may be closed."""

    issuer: Issuer
    ingest: int
    open: bool = True

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """A token of the namespace's default account, or what the ingest says."""
        if path.endswith("/serviceaccounts/default/token"):
            assert json.loads(body)["spec"]["audiences"] == [names.AUDIENCE]
            token = self.issuer.token(namespace=path.split("/")[4], name="default")
            return 201, json.dumps({"status": {"token": token}}).encode()
        prefix = "/api/v1/namespaces/wisp-system/services/http%3Awisp-ingest%3A8080/proxy"
        assert path.startswith(prefix)
        if not self.open:
            return 403, json.dumps({"kind": "Status", "message": "services is forbidden"}).encode()
        passed = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        url = f"http://127.0.0.1:{self.ingest}{path.removeprefix(prefix)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body or None, passed, method=method)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@dataclass
class Scene:
    """The command, who stands before the ingest, and the log."""

    wisp: Wisp
    api: ApiServer
    plane: DataPlane

    def bury(self, number: int, subscription: str = "sub", **fields: Any) -> None:
        """Write a letter as the router does."""
        event = msgspec.Raw(b'{"specversion":"1.0","id":"%d","source":"/shop","type":"t","data":{"n":1}}' % number)
        told: dict[str, Any] = (
            {"reason": "MaxAttempts", "message": "5 attempts failed, the last with HTTP 500", "attempts": 5}
            | {"event": event, "function": "pay", "revision": "pay-0123456789"}
            | fields
        )
        letter = DeadLetter(
            **told,
            time="2026-01-31T12:00:00Z",
            namespace="media",
            subscription=subscription,
        )
        self.plane.publish(f"wisp.dead.media.subscription.{subscription}", msgspec.json.encode(letter))


@pytest.fixture
def scene(webhook: Webhook, tmp_path: Path) -> Iterator[Scene]:
    """A Subscription `sub` of namespace `media` on a bus."""
    plane, api = webhook.plane, ApiServer(Issuer(), webhook.port)
    plane.put(names.KV_SOURCES, names.TOKEN_KEYS, token_keys(api.issuer))
    plane.add_stream(STREAM, [names.stream_subjects("media", "bus", "orders")])
    plane.add_stream(f"KV_{names.KV_ROUTES}", [f"$KV.{names.KV_ROUTES}.>"])
    route = Route(namespace="media", name="sub", uid="u1", generation=1, stream=STREAM, subjects=[REDRIVE])
    plane.put(names.KV_ROUTES, "media.sub", route)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, said = api.answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = _serve  # noqa: N815 - as http.server wants them

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "a", "user": {"token": "mine"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    yield Scene(Wisp(tmp_path / "config", "media"), api, plane)
    server.shutdown()
    thread.join()
    server.server_close()


def test_list_and_show(scene: Scene) -> None:
    """A row for each letter; `show` prints the event alone on standard output, for a pipe, and its story beside it."""
    assert "no dead letters" in scene.wisp("dead", "list").err
    scene.bury(1, last_status=500, last_response="boom")
    scene.bury(2, subscription="other")
    done = scene.wisp("dead", "list")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["ID", "AGE", "SUBSCRIPTION", "REASON", "EVENT", "ATTEMPTS", "MESSAGE"]
    assert [row[2:6] for row in rows[1:]] == [["sub", "MaxAttempts", "1", "5"], ["other", "MaxAttempts", "2", "5"]]
    only = scene.wisp("dead", "list", "other", "-o", "json").json()
    assert [one["eventId"] for one in only] == ["2"]
    shown = scene.wisp("dead", "show", rows[1][0])
    assert shown.json() == {"specversion": "1.0", "id": "1", "source": "/shop", "type": "t", "data": {"n": 1}}
    assert "5 attempts failed, the last with HTTP 500" in shown.err
    assert "HTTP 500: boom" in shown.err
    assert "for function pay, revision pay-0123456789" in shown.err
    missing = scene.wisp("dead", "show", "99")
    assert (missing.code, "no dead letter 99" in missing.err) == (1, True)


def test_redrive_sends_all_again_in_order_and_at_its_rate(scene: Scene) -> None:
    """More letters than one request takes: all are sent again, in order, and gone; what can't be is kept, said, and exit code 1."""
    for number in range(7):
        scene.bury(number)
    done = scene.wisp("dead", "redrive", "sub", "--rate", "3")
    assert (done.code, done.out) == (0, "7 sent again\n"), done.err
    assert [subject for subject, _ in scene.plane.records(STREAM)] == [REDRIVE] * 7
    assert [event.id for event in scene.plane.events(STREAM)] == [str(number) for number in range(7)]
    assert scene.wisp("dead", "list", "-o", "json").json() == []
    scene.bury(8, subscription="gone")
    kept = scene.wisp("dead", "redrive")
    assert (kept.code, kept.out) == (1, "0 sent again\n")
    assert "no Subscription gone" in kept.err


def test_purge_drops_what_was_named(scene: Scene) -> None:
    """A subscription's letters, one, or with --all all; nothing without being told which."""
    for number, subscription in enumerate(["sub", "sub", "other", "other"]):
        scene.bury(number, subscription)
    assert scene.wisp("dead", "purge").code == 2
    ids = [one["id"] for one in scene.wisp("dead", "list", "-o", "json").json()]
    assert scene.wisp("dead", "purge", "--id", str(ids[0])).out == "1 dropped\n"
    assert scene.wisp("dead", "purge", "other").out == "2 dropped\n"
    assert [one["id"] for one in scene.wisp("dead", "list", "-o", "json").json()] == [ids[1]]
    assert scene.wisp("dead", "purge", "--all").out == "1 dropped\n"


def test_a_closed_way_says_who_opens_it(scene: Scene) -> None:
    """Somebody who may not use the proxy is told which Role is missing."""
    scene.api.open = False
    done = scene.wisp("dead", "list")
    assert done.code == 1
    assert "wisp-ingest-caller" in done.err
