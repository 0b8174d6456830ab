"""The door for who uploads code: `POST /v1/namespaces/NS/archives/SHA256`, for ServiceAccounts of that namespace; answered with a ticket.

With it the archive is handed to the code store, which takes no word for what the bytes are; none of them pass through here. The token has an
audience of its own (`names.CODE_AUDIENCE`): no pod of a function has it mounted, so whoever shows it may make tokens in the namespace.
Invariant: a ticket opens the place of one archive in the caller's own namespace.
"""

import time

import msgspec
from wisp_api import names
from wisp_api.code import TICKET_SECONDS, Ticket, make_ticket

from wisp_events.ingest.door import Answer, Headers
from wisp_events.ingest.tokens import Tokens
from wisp_events.web import Refusal


class Archives:
    """Gives tickets out."""

    def __init__(self, tokens: Tokens, key: str) -> None:
        """`key` is what tickets are made of; empty where there is no code store."""
        self._tokens = tokens
        self._key = key

    async def answer(self, namespace: str, sha256: str, method: str, headers: Headers) -> Answer:
        """Answer one request.

        Raises:
            Refusal: it is not allowed.
        """
        caller = await self._tokens.caller(headers, names.CODE_AUDIENCE)
        if caller.namespace != namespace:
            raise Refusal(403, f"code of {namespace} is for its own ServiceAccounts to bring, not {caller.namespace}'s")
        if method != "POST":
            raise Refusal(405, "send POST", allow="POST")
        if not self._key:
            raise Refusal(404, "this installation has no code store (chart value store): use code.files or an image")
        ticket = make_ticket(self._key, namespace, sha256, int(time.time()) + TICKET_SECONDS)
        return Answer(200, msgspec.json.encode(Ticket(ticket=ticket)), {"content-type": "application/json"})
