"""The hello-provided example, its inline bootstrap run by the real runtime."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.examples import function_spec, sample, served


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the runtime serves the function."""
    code = tmp_path / "task"
    code.mkdir()
    for name, text in function_spec("hello-provided")["code"]["files"].items():
        (code / name).write_text(text)
        (code / name).chmod(0o555)  # as inline files of this runtime are mounted
    worker = {"WISP_WORKER": f"{sys.executable} -m wisp_runtime.bridge"}
    with served("hello-provided", code, tmp_path / "log", worker) as found:
        yield found


def test_curl_is_greeted(url: str) -> None:
    """A GET is answered with a greeting, by name where one is given."""
    for query, wanted in (("", "Hello, world!"), ("?name=Ada", "Hello, Ada!")):
        with urllib.request.urlopen(url + query, timeout=60) as answer:
            assert json.load(answer)["message"] == wanted


def test_sample_event_is_greeted(url: str) -> None:
    """The sample is an event as the bootstrap receives it."""
    body = json.dumps(sample("hello-provided/events/function-url.json")).encode()
    request = urllib.request.Request(url, body, {"wisp-event-format": "lambda", "wisp-request-id": "r-1"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer) == {"message": "Hello, Ada!", "requestId": "r-1"}
