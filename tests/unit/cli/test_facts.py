"""What `wisp describe` says of an object before its conditions."""

from typing import Any

import pytest
from wisp import facts

SHA = "0" * 64
S3 = {"bucket": "code", "key": "a.zip", "connection": {"name": "my-s3"}}
PLAIN = ["Runtime", "Handler", "Code", "Memory", "Timeout", "Scale", "URL", "Visibility"]


def function(code: Any, status: Any = None, **fields: Any) -> dict[str, Any]:
    """A Function of this code."""
    return {"spec": {"runtime": "python3.13", "code": code, "timeoutSeconds": 30} | fields, "status": status}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ({"files": {"app.py": "", "b.py": ""}}, "files app.py, b.py"),
        ({"zip": S3}, "zip code/a.zip"),
        ({"zip": S3 | {"versionId": "7", "sha256": SHA}}, f"zip code/a.zip version 7 sha256 {SHA}"),
        ({"image": "registry.example/a@sha256:1"}, "image registry.example/a@sha256:1"),
    ],
)
def test_each_kind_of_code_is_named(code: dict[str, Any], text: str) -> None:
    """Files by their names, a zip by where it lies and which it must be, an image by its reference; nothing else is added."""
    told = facts.of_function(function(code))
    assert told["Code"] == text
    assert list(told) == PLAIN


def test_what_goes_with_the_code_and_where_requests_go() -> None:
    """Layers, packages, the code's hash, the roll-out, the pin and the tags stand there once they are."""
    status = {
        "codeSha256": SHA,
        "requirements": {"packages": ["a==1", "b==2"]},
        "rollout": {
            "revision": "f-2",
            "stable": "f-1",
            "state": "Progressing",
            "percent": 10,
            "since": "2026-01-01T00:00:00Z",
        },
        "tags": {"stable": "http://stable-f.example"},
    }
    fields = {
        "layers": [S3 | {"key": "one.zip"}, S3 | {"key": "two.zip", "versionId": "3"}],
        "requirements": ["a==1"],
        "pin": "f-1",
        "tags": {"stable": {"revision": "f-1"}, "next": {"revision": "f-2"}},
    }
    told = facts.of_function(function({"zip": S3}, status, **fields))
    assert told["Code hash"] == SHA
    assert told["Layers"] == "code/one.zip, code/two.zip version 3"
    assert told["Requirements"] == "a==1 (2 packages installed)"
    assert told["Roll-out"].startswith("f-2 Progressing, 10 % since ")
    assert told["Roll-out"].endswith("; the rest to f-1")
    assert told["Pinned to"] == "f-1"
    assert told["Tags"] == "stable is f-1 at http://stable-f.example, next is f-2"


def test_a_rollout_that_went_back_says_why() -> None:
    """Its message stands there, and no rest to another revision."""
    rollout = {
        "revision": "f-2",
        "stable": "f-1",
        "state": "RolledBack",
        "since": "2026-01-01T00:00:00Z",
        "message": "3 of 10 failed",
    }
    told = facts.of_function(function({"zip": S3}, {"rollout": rollout}))["Roll-out"]
    assert (told.partition(",")[0], told.rpartition("; ")[2]) == ("f-2 RolledBack", "3 of 10 failed")
