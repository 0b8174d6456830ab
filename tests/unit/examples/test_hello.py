"""The hello example, its inline code served by the real runtime."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.examples import function_spec, sample, served


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with the manifest's inline files, as the platform mounts them."""
    folder = tmp_path / "task"
    folder.mkdir()
    for name, text in function_spec("hello")["code"]["files"].items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def url(code: Path, tmp_path: Path) -> Iterator[str]:
    """Where the runtime serves the function."""
    with served("hello", code, tmp_path / "log") as found:
        yield found


def get(url: str) -> Any:
    """The JSON that a GET answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:
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
