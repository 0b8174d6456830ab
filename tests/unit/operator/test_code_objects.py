"""What a fetch Job's pod says is believed only where it can concern nothing but its own namespace: the tenant can make such pods."""

import json
from typing import Any

import pytest
from wisp_operator.code_job import read_result

JOB = {"metadata": {"name": "wisp-code-hello", "uid": "u1"}}
GOOD = {"sha256": "0" * 64, "etag": '"e"', "unpacked": 1}


def pod(told: Any, uid: str = "u1") -> dict[str, Any]:
    """A pod that ended with this message."""
    state = {"terminated": {"message": told if isinstance(told, str) else json.dumps(told)}}
    return {"metadata": {"ownerReferences": [{"uid": uid}]}, "status": {"containerStatuses": [{"state": state}]}}


def test_verdict_is_read() -> None:
    """The archives' digests, or the reason."""
    assert read_result(JOB, [pod({"archives": [GOOD]})], 1).archives[0].sha256 == "0" * 64
    assert read_result(JOB, [pod({"reason": "CodeNotFound", "message": "gone"})], 1).reason == "CodeNotFound"


@pytest.mark.parametrize(
    "told",
    [
        {"archives": [GOOD | {"sha256": "../other-namespace/" + "0" * 45}]},
        {"archives": [GOOD | {"sha256": "0" * 64 + "," + "1" * 64}]},
        {"archives": [GOOD | {"etag": "x" * 300}]},
        {"archives": [GOOD | {"sha256": "0" * 64 + "\n"}]},
        {"archives": [GOOD, GOOD]},
        {"archives": []},
        {"reason": "no constant"},
        "out of memory",
    ],
)
def test_no_verdict(told: Any) -> None:
    """What is no list of digests, as many as were asked for, and no constant is no verdict; nor is what another pod says."""
    assert read_result(JOB, [pod(told)], 1).reason == "FetchFailed"
    assert read_result(JOB, [pod({"archives": [GOOD]}, uid="u2")], 1).reason == "FetchFailed"
