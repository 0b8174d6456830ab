"""What the operator asks of nats-server about streams, by its JSON API: configurations stand as they are written there, whatever the client knows of them."""

import json
from typing import Any, Final

from nats.aio.client import Client
from nats.js.errors import APIError

from wisp_operator.apply import covers

REQUEST_SECONDS: Final = 5.0
_API: Final = "$JS.API"

Config = dict[str, Any]
"""A stream's configuration as the server's API writes it."""


class Streams:
    """The server's streams."""

    def __init__(self, client: Client) -> None:
        """By a connection with the operator's rights."""
        self._client = client

    async def ensure(self, wanted: Config, at_first: Config | None = None, api: str = _API) -> None:
        """Make a stream, then with what is said `at_first`, or bring it up to date."""
        name = wanted["name"]
        live = await self.info(name, api)
        if live is None:
            await self.call(f"STREAM.CREATE.{name}", wanted | (at_first or {}), api)
        elif not covers(live["config"], wanted):
            await self.call(f"STREAM.UPDATE.{name}", live["config"] | wanted, api)

    async def info(self, name: str, api: str = _API) -> Config | None:
        """Configuration and state of a stream, None where there is none."""
        try:
            return await self.call(f"STREAM.INFO.{name}", None, api)
        except APIError as error:
            if error.code != 404:  # noqa: PLR2004 - HTTP's own number
                raise
            return None

    async def call(self, subject: str, request: Config | None, api: str = _API) -> Config:
        """The answer to a request.

        Raises:
            APIError: the server refuses.
        """
        payload = json.dumps(request).encode() if request is not None else b""
        answer = await self._client.request(f"{api}.{subject}", payload, timeout=REQUEST_SECONDS)
        result: Config = json.loads(answer.data)
        if "error" in result:
            raise APIError(**{key: result["error"].get(key) for key in ("code", "description", "err_code")})
        return result
