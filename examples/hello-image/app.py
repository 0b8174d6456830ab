"""Greets by name, as a function for AWS Lambda."""

import time
from typing import Any

STARTED = time.time()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer a function URL's event, after as many seconds as it says."""
    query = event.get("queryStringParameters") or {}
    name = query.get("name", "world")
    print("saying hello to", name)
    time.sleep(float(query.get("seconds", 0)))
    return {"message": f"Hello, {name}!", "requestId": context.aws_request_id, "started": STARTED}
