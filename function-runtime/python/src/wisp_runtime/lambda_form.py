"""The ``lambda`` form: ``handler(event, context)``.

The event is what the front says: a JSON value, or a CloudEvent in the dict of its JSON format. The result is a JSON
value, ``null`` included; what the caller gets of it is the front's business. A generator's items are streamed.
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from types import GeneratorType

from wisp_runtime.encoding import write_json
from wisp_runtime.values import encode_json, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.invocation import Answer, Encode, Invocation


class CognitoIdentity:
    """The caller's identity in Amazon Cognito; always empty here, present because handlers look at it."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        """Have no identity."""
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None


class Client:
    """The mobile client that a caller's ``X-Amz-Client-Context`` describes."""

    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __init__(self, fields: dict[str, Any]) -> None:
        """Take the fields; those that aren't given are None."""
        for name in self.__slots__:
            setattr(self, name, fields.get(name))


class ClientContext:
    """What the caller says of itself in ``X-Amz-Client-Context``."""

    __slots__ = ("client", "custom", "env")

    def __init__(self, fields: dict[str, Any]) -> None:
        """Take the fields; those that aren't given are None."""
        client = fields.get("client")
        self.client = Client(client) if isinstance(client, dict) else None
        self.custom = fields.get("custom")
        self.env = fields.get("env")


class LambdaContext:
    """The second argument of a Lambda handler, with the names that AWS gives its attributes."""

    function_name: str
    function_version: str
    memory_limit_in_mb: str
    invoked_function_arn: str
    log_group_name: str
    log_stream_name: str

    def __init__(self, invocation: Invocation) -> None:
        """Describe one invocation."""
        settings, head = invocation.settings, invocation.head
        self.__dict__ = settings.told.copy()  # what is the same for all
        self._deadline: float = head["deadline"]
        self.aws_request_id: str = head["id"]
        given = head.get("clientContext")
        self.client_context = ClientContext(given) if isinstance(given, dict) else None
        self.identity = CognitoIdentity()
        self.tenant_id: str | None = None
        self._head = head

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation times out, 0 at the least."""
        return max(0, int(self._deadline - time.time() * 1000))

    def w3c(self) -> dict[str, str]:
        """Return the W3C trace context of the invocation: ``traceparent``, and ``tracestate`` if there is one."""
        head = self._head
        state = head.get("tracestate")
        return {"traceparent": head["trace"], **({"tracestate": state} if state else {})} if "trace" in head else {}

    def log(self, message: Any) -> None:
        """Write a message to the log as it is."""
        print(message)  # noqa: T201 - the log is stdout

    def __repr__(self) -> str:
        """Show what a print for debugging wants to see."""
        return f"LambdaContext(aws_request_id={self.aws_request_id!r}, function_name={self.function_name!r})"


def decode(invocation: Invocation) -> tuple[tuple[Any, ...], Encode]:
    """Make event and context of an invocation."""
    head, body = invocation.head, invocation.body
    event = parse_json(body, "The event") if head["form"] == "json" else _cloud_event(head, body)
    return (event, LambdaContext(invocation)), encode


def _cloud_event(head: dict[str, Any], body: bytes) -> dict[str, Any]:
    event: dict[str, Any] = head["attributes"]
    kind = head.get("data")
    if kind == "json":
        event["data"] = parse_json(body, "The CloudEvent's data")
    elif kind == "text":
        event["data"] = body.decode()
    elif kind:
        event["data_base64"] = b2a_base64(body, newline=False).decode()
    return event


def encode(result: Any) -> Answer:
    """Make the answer of a handler's result.

    Raises:
        InvalidResultError: It has no JSON form.
    """
    if type(result) is GeneratorType:
        return {}, b"", map(_item, result)
    return {}, encode_json(result), None


def _item(item: Any) -> bytes:
    """Return a streamed item's bytes: texts in UTF-8, values as lines of JSON."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    return item.encode() if isinstance(item, str) else write_json(item).encode() + b"\n"
