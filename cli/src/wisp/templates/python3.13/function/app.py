"""A function to start from: it greets whom a request or an event names."""

import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Take the name from an event's data or a request's body, and answer in JSON."""
    data = event["data"] if "specversion" in event else json.loads(event.get("body") or "{}")
    name = data.get("name", "world")
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!", "requestId": context.aws_request_id}
