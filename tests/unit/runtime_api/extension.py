"""An extension, played by the test: a silent executable is started, and the test speaks to the API in its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unit.runtime_api.conftest import Answer, Bridge, Client

EXTENSION = "/2020-01-01/extension"
TELEMETRY = "/2022-07-01/telemetry"
# An executable that only says that it runs: the test speaks to the API in its place.
SILENT = "#!/bin/sh\necho extension api $AWS_LAMBDA_RUNTIME_API handler $_HANDLER.\necho pid $$\nexec sleep 1000\n"


def register(client: Client, name: str, *events: str, **headers: str) -> Answer:
    """Register an extension."""
    return client.call(
        "POST", f"{EXTENSION}/register", json.dumps({"events": events}), Lambda_Extension_Name=name, **headers
    )


def poll(client: Client, identifier: str) -> None:
    """Ask for an event."""
    client.send("GET", f"{EXTENSION}/event/next", Lambda_Extension_Identifier=identifier)


def extension_client(worker: Bridge) -> Client:
    """Connect as the silent extension would."""
    return worker.connect(worker.wait_log("extension api ").split()[0])


def ready_with(worker: Bridge, *events: str) -> tuple[Client, str, Client]:
    """Be the silent extension and the runtime until READY; return its client, its identifier and the runtime."""
    extension = extension_client(worker)
    identifier = register(extension, "silent", *events).headers["lambda-extension-identifier"]
    poll(extension, identifier)
    return extension, identifier, worker.polling()
