"""What is told where a door of the platform, reached through the API server's proxy, does not let one in."""

import json


def explain(status: int, said: bytes, service: str, system: str) -> str:
    """What the door says, or the API server in front of it; `system` is the platform's namespace."""
    text = said.decode(errors="replace").strip()
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        return text or f"HTTP {status}"
    return (
        f"the way to service {service} in namespace {system} is closed: {text}. An administrator opens it by a RoleBinding to the Role "
        f"wisp-ingest-caller there; another namespace than {system} is --system-namespace"
    )
