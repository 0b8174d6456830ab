"""The hello example, its inline code served by the real runtime."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fixtures.examples import EXAMPLES, sample
from fixtures.process import free_port, wait_until


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with the manifest's inline files, as the platform mounts them."""
    spec = yaml.safe_load((EXAMPLES / "hello" / "function.yaml").read_text())["spec"]
    for name, text in spec["code"]["files"].items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def url(code: Path) -> Iterator[str]:
    """Where the runtime serves the function."""
    port = free_port()
    spec = yaml.safe_load((EXAMPLES / "hello" / "function.yaml").read_text())["spec"]
    env = os.environ | {
        "PORT": str(port),
        "WISP_HOST": "127.0.0.1",
        "WISP_CODE_DIR": str(code),
        "WISP_HANDLER": spec["handler"],
        "WISP_SIGNATURE": spec["signature"],
        "WISP_TERMINATION_LOG": str(code / "termination.log"),
    }
    with subprocess.Popen([sys.executable, "-m", "wisp_runtime"], env=env) as process:
        base = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(f"{base}/_wisp/health"), "the runtime does not answer")
            yield base
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def get(url: str) -> Any:
    """The JSON that a GET answers."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def test_curl_is_greeted(url: str) -> None:
    """A GET is answered with a greeting, by name where one is given."""
    assert get(url)["message"] == "Hello, world!"
    assert get(f"{url}?name=Ada")["message"] == "Hello, Ada!"


def test_sample_event_is_greeted(code: Path) -> None:
    """The sample is an event as the handler receives it."""
    scope: dict[str, Any] = {}
    exec((code / "app.py").read_text(), scope)
    answer = scope["handler"](sample("hello/events/function-url.json"), SimpleNamespace(aws_request_id="r-1"))
    assert answer == {"message": "Hello, Ada!", "requestId": "r-1"}
