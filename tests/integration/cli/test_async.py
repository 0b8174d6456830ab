"""`wisp invoke --async` hands an invocation to a real ingest through the API server, by a token of the API itself."""

import json
from pathlib import Path

from fixtures.cli import HELLO, Wisp, write_project
from fixtures.dataplane import DataPlane
from fixtures.kube import Kube
from fixtures.process import wait_until
from wisp_api import names
from wisp_api.source import Inbox


def test_an_invocation_is_handed_over(wisp: Wisp, cluster: Kube, plane: DataPlane, tmp_path: Path) -> None:
    """The command prints the id under which the log has it; what keeps it from being taken is one sentence."""
    assert wisp("deploy", write_project(tmp_path / "p", HELLO), "--no-wait").code == 0
    assert "write `async: {}` into its spec" in wisp("invoke", "hello", "--async", "-d", "1").err
    assert wisp("deploy", write_project(tmp_path / "p", f"{HELLO}    async: {{}}\n"), "--no-wait").code == 0
    assert "no token for ServiceAccount default" in wisp("invoke", "hello", "--async", "-d", "1").err
    accounts = f"/api/v1/namespaces/{wisp.namespace}/serviceaccounts"
    assert cluster.request("POST", accounts, {"metadata": {"name": "default"}})[0] == 201
    refusal = f"the invocation was not taken (404): namespace {wisp.namespace} has no function hello"
    wait_until(lambda: refusal in wisp("invoke", "hello", "--async", "-d", "1").err, "the ingest is reached")
    source = "hello_uid"
    stream = names.stream(wisp.namespace, "function", source)
    plane.add_stream(stream, [names.stream_subjects(wisp.namespace, "function", source)])
    plane.put(names.KV_SOURCES, names.inbox_key("function", wisp.namespace, "hello"), Inbox(stream=stream))
    done = wisp("invoke", "hello", "--async", "-d", '{"n": 1}')
    assert done.code == 0, done.err
    [event] = plane.events(stream)
    assert (event.id, json.loads(bytes(event.data or b""))) == (done.out.strip(), {"n": 1})
    assert wisp("invoke", "hello", "--async", "--tail").code == 2
