"""The handshake of a WebSocket (RFC 6455, section 4): what the request must say, and the response that accepts it.

Invariant: whatever headers a function adds, the response agrees to no extension and to at most the subprotocol it names.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha1

from wisp_runtime.errors import BadRequestError, InvalidResultError
from wisp_runtime.http1 import Reply
from wisp_runtime.results import checked_headers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.http1 import HttpRequest

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16


def accept_handshake(request: HttpRequest) -> str:
    """Return what ``sec-websocket-accept`` must say to a request that asks for a WebSocket.

    Raises:
        BadRequestError: It can't become one.
    """
    fields = request.fields
    if fields.get("sec-websocket-version") != "13":
        headers = (("sec-websocket-version", "13"), ("upgrade", "websocket"))
        raise BadRequestError("UpgradeRequired", "WebSocket is spoken in version 13", 426, *headers)
    key = fields.get("sec-websocket-key", "")
    try:
        size = len(b64decode(key, validate=True))
    except ValueError:
        size = 0
    if size != _KEY_BYTES or sum(name == "sec-websocket-key" for name, _ in request.headers) != 1:
        raise BadRequestError("BadRequest", "Sec-WebSocket-Key must be 16 bytes in base64, once")
    return b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def make_reply(accept: str, head: dict[str, Any]) -> Reply:
    """Make the response that accepts, of START's head; ``accept``: what the request is to be answered with.

    Raises:
        InvalidResultError: The headers can't be sent, or the request asked for no WebSocket.
    """
    if not accept:
        raise InvalidResultError("Runtime.InvalidResponse", "Only a WebSocket's handshake is answered with 101")
    protocol = head.get("subprotocol")
    chosen = checked_headers([("sec-websocket-protocol", protocol)] if protocol else [])
    given = [pair for pair in checked_headers(head.get("headers") or []) if not pair[0].startswith("sec-websocket-")]
    ours = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
    return Reply(101, [*ours, *chosen, *given])
