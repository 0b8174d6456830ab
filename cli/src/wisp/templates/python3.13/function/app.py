"""A function to start from: it greets whom a request or an event names."""

import base64
import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Take the name from what was sent, and answer in JSON."""
    name = sent(event).get("name", "world")
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!", "requestId": context.aws_request_id}


def sent(event: dict[str, Any]) -> Any:
    """The data of an event, the JSON in a request's body, or, where a test calls the handler, the event itself."""
    if "specversion" in event:
        return event.get("data") or {}
    if "requestContext" not in event:
        return event
    body = event.get("body") or "{}"
    return json.loads(base64.b64decode(body) if event["isBase64Encoded"] else body)
