"""An INVOKE frame's event as the JSON that a runtime gets.

Invariant: what was sent as JSON reaches the runtime byte for byte; it is parsed only to know that it is JSON.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

from wisp_runtime.values import parse_json


def make_event(head: dict[str, Any], body: bytes) -> bytes:
    """Make it.

    Raises:
        BadRequestError: The body should be JSON and isn't.
    """
    if head["form"] == "json":
        parse_json(body, "The event")
        return body
    event = json.dumps(head["attributes"]).encode()
    if "data" not in head:
        return event
    if head["data"] == "json":
        parse_json(body, "The CloudEvent's data")
        member = b'"data":' + body
    elif head["data"] == "text":
        member = b'"data":' + json.dumps(body.decode()).encode()
    else:
        member = b'"data_base64":"' + binascii.b2a_base64(body, newline=False) + b'"'
    return event[:-1] + b"," + member + b"}"
