"""The hello-node example, its inline code served by the real runtime with the real Node.js."""

import json
import shlex
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.examples import function_spec, sample, served
from fixtures.node import worker_command


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the runtime serves the function."""
    code = tmp_path / "task"
    code.mkdir()
    for name, text in function_spec("hello-node")["code"]["files"].items():
        (code / name).write_text(text)
    with served("hello-node", code, tmp_path / "log", {"WISP_WORKER": shlex.join(worker_command())}) as found:
        yield found


def test_curl_is_greeted(url: str) -> None:
    """A GET is answered with a greeting, by name where one is given."""
    for query, wanted in (("", "Hello, world!"), ("?name=Ada", "Hello, Ada!")):
        with urllib.request.urlopen(url + query, timeout=60) as answer:
            assert json.load(answer)["message"] == wanted


def test_sample_event_is_greeted(url: str) -> None:
    """The sample is an event as the handler receives it."""
    body = json.dumps(sample("hello-node/events/function-url.json")).encode()
    request = urllib.request.Request(url, body, {"wisp-event-format": "lambda", "wisp-request-id": "r-1"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer) == {"message": "Hello, Ada!", "requestId": "r-1"}
