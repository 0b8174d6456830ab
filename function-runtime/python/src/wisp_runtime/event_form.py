"""The ``cloudevent`` form: ``handler(event)`` with the CNCF SDK's ``CloudEvent``.

The event is built from our own reading of the request, not by the SDK's HTTP binding: that one takes a structured event
with ``ce-`` headers for a binary one, knows no batches, and invents a ``time`` for events that have none. Which class it
is follows the handler's annotation, so handlers written for the SDK's 1.x classes run too.

The result: None is 204, a CloudEvent is sent back in binary mode, anything else is 200 with the value as JSON.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import TYPE_CHECKING, Any

from wisp_runtime.cloudevent import BATCH, is_binary, is_json, media_type, parse_json, read_event, write_event
from wisp_runtime.errors import BadRequestError, InitError
from wisp_runtime.http1 import Reply
from wisp_runtime.results import checked_headers, encode_json, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.invocation import Decode, Encode, Invocation


def make_decode(handler: Callable[..., Any]) -> Decode:
    """Prepare the form for a handler: find the class of event that it wants."""
    event_class = _event_class(handler)
    typed = event_class.__module__.startswith("cloudevents.core.")  # its ``time`` is a datetime, not a text

    def decode(invocation: Invocation) -> tuple[tuple[Any, ...], Encode]:
        content_type = invocation.request.fields.get("content-type", "")
        mode = media_type(content_type)
        if mode == BATCH:
            message = "This handler takes one CloudEvent at a time; batches go to handlers of signature lambda"
            raise BadRequestError("UnsupportedMediaType", message, 415)
        if not mode.startswith("application/cloudevents") and not is_binary(invocation.request.fields):
            message = (
                "This handler takes CloudEvents: send the ce-specversion, ce-id, ce-source and ce-type headers, "
                "or the event as application/cloudevents+json"
            )
            raise BadRequestError("InvalidCloudEvent", message)
        event = read_event(invocation.request, mode, content_type)
        invocation.identify(event["id"])
        return (_build(event_class, event, typed=typed),), encode

    return decode


def encode(result: Any) -> Reply:
    """Make the reply of a handler's result."""
    if result is None:
        return Reply(204, [])
    if hasattr(result, "get_attributes") and hasattr(result, "get_data"):
        headers, body = write_event(result, encode_json)
        return Reply(200, checked_headers(headers), body)
    return json_reply(result)


def _event_class(handler: Callable[..., Any]) -> type[Any]:
    """Return the CloudEvent class of the handler's annotation if it is the SDK's, else the SDK's current one."""
    for annotation in getattr(handler, "__annotations__", {}).values():
        name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        if name.rpartition(".")[2] == "CloudEvent":
            module = getattr(handler, "__globals__", {})
            found = annotation if isinstance(annotation, type) else module.get(name)
            if isinstance(found, type) and found.__module__.startswith("cloudevents."):
                return found
    try:
        from cloudevents.core.v1.event import CloudEvent  # noqa: PLC0415 - for handlers of this form only
    except ImportError as error:
        raise InitError(
            "Runtime.ImportModuleError",
            f"A cloudevent handler needs the package cloudevents 2 or an annotation with another version's class: {error}",
        ) from None
    return CloudEvent


def _build(event_class: type[Any], event: dict[str, Any], *, typed: bool) -> Any:
    """Build the SDK's object of an event in JSON format."""
    data = event.pop("data", None)
    encoded = event.pop("data_base64", None)
    if encoded is not None:
        try:
            data = a2b_base64(encoded, strict_mode=True)
        except (TypeError, ValueError):
            raise BadRequestError("InvalidCloudEvent", "CloudEvent attribute 'data_base64' is not base64") from None
        if is_json(media_type(str(event.get("datacontenttype", "")))):
            data = parse_json(data, "The CloudEvent's data_base64")
    untimed = "time" not in event
    if not untimed and typed:
        event["time"] = _time(event["time"])
    try:
        made = event_class(event, data)
    except Exception as error:  # noqa: BLE001 - each SDK version has errors of its own
        raise BadRequestError("InvalidCloudEvent", f"The CloudEvent is not valid: {error}") from None
    if untimed and typed:
        made.get_attributes().pop("time", None)  # the SDK put the present there
    elif untimed:
        del made["time"]
    return made


def _time(text: Any) -> Any:
    """Parse the ``time`` attribute (RFC 3339)."""
    from datetime import datetime  # noqa: PLC0415 - the SDK has it imported by now

    try:
        time = datetime.fromisoformat(str(text).upper())
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise BadRequestError("InvalidCloudEvent", "CloudEvent attribute 'time' must be a timestamp as in RFC 3339")
    return time
