"""Lines that are JSON objects already are completed, not wrapped."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from wisp_runtime.structured import complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

WANTED = {"time": "now", "level": "INFO", "requestId": "r", "trace": ""}
APP = """
import json, logging, os, subprocess, sys
from pythonjsonlogger.json import JsonFormatter

handler_of_root = logging.StreamHandler()
handler_of_root.setFormatter(JsonFormatter("%(levelname)s %(message)s"))
own = logging.getLogger("own")
own.addHandler(handler_of_root)
own.propagate = False

def handler(event, context):
    own.warning("by python-json-logger", extra={"order": 7})
    print(json.dumps({"message": "printed", "n": 1}))
    subprocess.run(["echo", '{"message": "by a child"}'])
    os.write(1, b'{"message": "by a library"}\\n')
    print('{"almost": JSON}')
"""


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"message": "a", "n": 1.10}', '{"time":"now","level":"INFO","requestId":"r","message": "a", "n": 1.10}'),
        ('{"level":"WARN","requestId":"x"}', '{"time":"now","level":"WARN","requestId":"x"}'),
        ('{"level":30,"time":5,"msg":"pino"}', '{"time":5,"requestId":"r","level":30,"msg":"pino"}'),
    ],
)
def test_an_object_is_completed(line: str, wanted: str) -> None:
    """What it says stays as it is; what is missing stands before it, and its time first."""
    assert complete(line, WANTED) == wanted
    assert json.loads(wanted).items() >= json.loads(line).items()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "text",
        "{}",
        "[1]",
        '"a"',
        "{nope}",
        '{"a": NaN}',
        "{" * 100_000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_what_is_no_object_is_not(line: str) -> None:
    """It is wrapped like any other text."""
    assert complete(line, WANTED) is None


def test_whoever_writes_it(serve: Callable[..., FunctionProcess]) -> None:
    """A logging library's, printed, a child's and a C library's lines keep their fields and carry the request."""
    function = serve(APP)
    request_id = function.invoke(1).headers["wisp-request-id"]
    function.log(lambda line: line.get("type") == "platform.report" and line["requestId"] == request_id)
    said = {line["message"]: line for line in function.lines if line.get("requestId") == request_id}
    assert said["by python-json-logger"]["levelname"] == logging.getLevelName(logging.WARNING)
    assert said["by python-json-logger"]["order"] == 7
    assert (said["printed"]["n"], said["printed"]["level"]) == (1, "INFO")
    assert {"by a child", "by a library", '{"almost": JSON}'} <= said.keys()
