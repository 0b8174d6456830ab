"""The ``lambda`` form: ``handler(event, context)``.

What the event is, by the request: with ``wisp-event-format: lambda`` the JSON body itself; a CloudEvent as the dict of
its JSON format; a batch as a list of those; anything else as a function URL's event (``function_url``). The result is
the reply's JSON, ``null`` included, as from Lambda's Invoke; for a function URL's event it is that form's response.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from wisp_runtime.cloudevent import BATCH, is_binary, media_type, parse_json, read_batch, read_event
from wisp_runtime.results import json_reply

if TYPE_CHECKING:
    from wisp_runtime.invocation import Encode, Invocation

EVENT_FORMAT = "wisp-event-format"


class CognitoIdentity:
    """The caller's identity in Amazon Cognito; always empty here, present because handlers look at it."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        """Have no identity."""
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None


class LambdaContext:
    """The second argument of a Lambda handler, with the names that AWS gives its attributes."""

    def __init__(self, invocation: Invocation) -> None:
        """Describe one invocation."""
        settings = invocation.settings
        self._deadline = invocation.deadline
        self.aws_request_id = invocation.request_id
        self.function_name = settings.function
        self.function_version = settings.revision
        self.memory_limit_in_mb = str(settings.memory)
        self.invoked_function_arn = f"arn:wisp:lambda:::function:{settings.namespace}:{settings.function}"
        self.log_group_name = f"/wisp/{settings.namespace}/{settings.function}"
        self.log_stream_name = settings.revision
        self.client_context: Any = None
        self.identity = CognitoIdentity()

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation times out, 0 at the least."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def __repr__(self) -> str:
        """Show what a print for debugging wants to see."""
        return f"LambdaContext(aws_request_id={self.aws_request_id!r}, function_name={self.function_name!r})"


def decode(invocation: Invocation) -> tuple[tuple[Any, ...], Encode]:
    """Make event and context of a request, and tell how its result is encoded."""
    request = invocation.request
    fields = request.fields
    event: Any
    encode: Encode = json_reply
    if fields.get(EVENT_FORMAT) == "lambda":
        return (parse_json(request.body, "The event"), LambdaContext(invocation)), encode
    content_type = fields.get("content-type", "")
    mode = media_type(content_type)
    if mode == BATCH:
        event = read_batch(request)
    elif is_binary(fields) or mode.startswith("application/cloudevents"):
        event = read_event(request, mode, content_type)
        invocation.identify(event["id"])
    else:
        from wisp_runtime import function_url  # noqa: PLC0415 - a function of events alone never needs it

        event = function_url.make_event(request, invocation.request_id, mode, fields.get("host", ""))
        encode = function_url.encode
    return (event, LambdaContext(invocation)), encode
