"""`wisp invoke` calls a function at its URL and tells errors from answers; the function runs in the real runtime."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.cli import READY, Operator, Wisp, write_project
from fixtures.kube import Kube
from fixtures.process import free_port, listens, server
from wisp_api import caller

PUBLIC = """
functions:
  hello:
    runtime: python3.13
    handler: app.handler
    code: {folder: function}
    visibility: public
    auth: {type: none}
"""
CODE = """
import json

def handler(event, context):
    if event.get("rawPath") == "/fail":
        raise ValueError("no such thing")
    return event["data"] if "specversion" in event else json.loads(event.get("body", "0"))
"""


@pytest.fixture
def hello(wisp: Wisp, operator: Operator, tmp_path: Path) -> Iterator[Wisp]:
    """The command, with a function deployed whose URL leads to a runtime on loopback."""
    assert wisp("deploy", write_project(tmp_path, PUBLIC, CODE), "--no-wait").code == 0
    with runtime(tmp_path / "function") as port:
        operator.judge("functions", "hello", READY, url=f"http://127.0.0.1:{port}", revision="hello-1")
        yield wisp


@contextlib.contextmanager
def runtime(folder: Path, **more: str) -> Iterator[int]:
    """The folder's function, served on a port of loopback."""
    port = free_port()
    source = Path(__file__).parents[3] / "function-runtime" / "python" / "src"
    env = os.environ | {"PORT": str(port), "WISP_CODE_DIR": str(folder), "WISP_HANDLER": "app.handler"} | more
    command = [sys.executable, "-m", "wisp_runtime"]
    with server(command, lambda: listens(port), folder / "log", env | {"PYTHONPATH": str(source)}):
        yield port


def test_a_payload_from_each_place(hello: Wisp, tmp_path: Path) -> None:
    """-d, -f and standard input are posted as they are; without a payload it is a GET."""
    (tmp_path / "payload.json").write_text('{"from": "file"}')
    assert hello("invoke", "hello", "-d", '{"from": "option"}').out == '{"from":"option"}'
    assert hello("invoke", "hello", "-f", str(tmp_path / "payload.json")).out == '{"from":"file"}'
    assert hello("invoke", "hello", "-", stdin='{"from": "pipe"}').out == '{"from":"pipe"}'
    assert hello("invoke", "hello").out == "0"


def test_a_payload_as_cloudevent(hello: Wisp) -> None:
    """A payload becomes an event's data, and one that is an event is sent as it is."""
    whole = '{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"b": 2}}'
    assert hello("invoke", "hello", "--cloudevent", "-d", '{"a": 1}', "-o", "json").json()["body"] == {"a": 1}
    assert hello("invoke", "hello", "--cloudevent", "-d", whole, "-o", "json").json()["body"] == {"b": 2}


def test_a_functions_error_is_exit_code_1(hello: Wisp) -> None:
    """The error's type, message and the user's line stand on standard error, and nothing on standard output."""
    done = hello("invoke", "hello", "--path", "/fail")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("wisp: the function failed: ValueError: no such thing\n")
    assert "app.py" in done.err


@pytest.mark.parametrize(
    "arguments", [["-d", "{"], ["-d", "1", "-"], ["word"], ["-f", "/absent"], ["--path", "a"], ["--cloudevent", "-"]]
)
def test_a_wrong_payload_is_a_mistake_of_the_users(hello: Wisp, arguments: list[str]) -> None:
    """Exit code 2 and one sentence."""
    done = hello("invoke", "hello", *arguments, stdin="no json")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_a_stranger_at_the_url_is_not_taken_for_the_function(
    hello: Wisp, operator: Operator, cluster_stranger: str
) -> None:
    """An answer without the runtime's mark leads on to the API server, and its refusal is told as such."""
    operator.judge("functions", "hello", READY, url=cluster_stranger, revision="hello-1")
    done = hello("invoke", "hello")
    assert done.code == 1
    assert "can't be reached from here" in done.err


@pytest.fixture
def cluster_stranger(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that knows nothing of functions."""
    port = free_port()
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(tmp_path / "empty"), str(port)]
    with server(command, lambda: listens(port), tmp_path / "stranger.log"):
        yield f"http://127.0.0.1:{port}"


def test_a_function_that_is_not_there_or_has_not_started(hello: Wisp, operator: Operator, tmp_path: Path) -> None:
    """Both are told, with exit code 1."""
    assert "there is no function nobody" in hello("invoke", "nobody").err
    text = PUBLIC.replace("hello", "fresh")
    hello("deploy", write_project(tmp_path / "fresh", text), "--no-wait")
    operator.judge("functions", "fresh", ("Ready", "Unknown", "Deploying", "a first pod is starting"))
    done = hello("invoke", "fresh")
    assert (done.code, done.err) == (1, "wisp: the function has not started yet: a first pod is starting\n")


def test_a_function_that_asks_for_a_token_gets_a_service_accounts(
    wisp: Wisp, operator: Operator, cluster: Kube, tmp_path: Path
) -> None:
    """Made by the cluster for this function; without the account, and as another namespace's, the call fails with the reason."""
    guarded = PUBLIC.replace("{type: none}", "{type: token}")
    assert wisp("deploy", write_project(tmp_path, guarded, CODE), "--no-wait").code == 0
    prefix = f"system:serviceaccount:{wisp.namespace}:"
    issuer = {
        "issuer": cluster.get("/.well-known/openid-configuration")["issuer"],
        "audiences": [caller.audience(wisp.namespace, "hello")],
        "keys": cluster.get("/openid/v1/jwks"),
        "callers": [f"{prefix}runner"],
    }
    (tmp_path / "auth.json").write_text(json.dumps({"issuers": [issuer]}))
    for account in ("default", "runner"):
        path = f"/api/v1/namespaces/{wisp.namespace}/serviceaccounts"
        assert cluster.request("POST", path, {"metadata": {"name": account}})[0] in {201, 409}
    with runtime(tmp_path / "function", WISP_AUTH_FILE=str(tmp_path / "auth.json")) as port:
        operator.judge("functions", "hello", READY, url=f"http://127.0.0.1:{port}", revision="hello-1")
        assert wisp("invoke", "hello", "-d", "5", "--service-account", "runner").out == "5"
        refused = wisp("invoke", "hello", "-d", "5")
        assert (refused.code, "may not call this function" in refused.err) == (1, True)
        absent = wisp("invoke", "hello", "--service-account", "nobody")
        assert (absent.code, "ServiceAccount nobody" in absent.err) == (1, True)
        (tmp_path / "token").write_text("not.a.token\n")
        forged = wisp("invoke", "hello", "--token-file", str(tmp_path / "token"))
        assert "The token is no JWT" in forged.err
        assert "can't be read" in wisp("invoke", "hello", "--token-file", str(tmp_path / "none")).err


def test_a_function_of_another_issuer_asks_for_the_token(wisp: Wisp, tmp_path: Path) -> None:
    """The command can't make one, and says whose it is and where it goes."""
    jwt = "{type: jwt, issuer: 'https://login.example', audiences: [shop]}"
    assert wisp("deploy", write_project(tmp_path, PUBLIC.replace("{type: none}", jwt), CODE), "--no-wait").code == 0
    told = wisp("invoke", "hello")
    assert told.code == 1
    assert "https://login.example for shop" in told.err
    assert "--token-file" in told.err
