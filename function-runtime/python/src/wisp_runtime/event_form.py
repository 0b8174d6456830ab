"""The ``cloudevent`` form: ``handler(event)`` with the CNCF SDK's ``CloudEvent``.

The event is built from the front's reading of the request, not by the SDK's HTTP binding: that one takes a structured
event with ``ce-`` headers for a binary one, knows no batches, and invents a ``time`` for events that have none. Which
class it is follows the handler's annotation, so handlers written for the SDK's 1.x classes run too.

The result: a CloudEvent, which is sent back in binary mode, or a value (None is 204 to the caller).
"""

from __future__ import annotations

from binascii import a2b_base64
from importlib import import_module

from wisp_runtime.errors import BadRequestError, InitError
from wisp_runtime.values import encode_json, is_json, media_type, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wisp_runtime.invocation import Answer, Decode, Encode, Invocation


def make_decode(handler: Callable[..., Any]) -> Decode:
    """Prepare the form for a handler: find the class of event that it wants."""
    event_class = _event_class(handler)
    typed = event_class.__module__.startswith("cloudevents.core.")  # its ``time`` is a datetime, not a text

    def decode(invocation: Invocation) -> tuple[tuple[Any, ...], Encode]:
        head, body = invocation.head, invocation.body
        if head["form"] == "json":
            event = parse_json(body, "The CloudEvent")
            data = _structured_data(event)
        else:
            event = head["attributes"]
            data = _binary_data(head.get("data"), body)
        return (_build(event_class, event, data, typed=typed),), encode

    return decode


def encode(result: Any) -> Answer:
    """Make the answer of a handler's result: a CloudEvent's attributes and data, or a value.

    Raises:
        InvalidResultError: It has no JSON form.
    """
    if not (hasattr(result, "get_attributes") and hasattr(result, "get_data")):
        return {}, encode_json(result), None
    attributes = {name: _attribute_text(value) for name, value in result.get_attributes().items() if value is not None}
    content_type = attributes.pop("datacontenttype", "")
    data = result.get_data()
    if isinstance(data, bytes | bytearray):
        content_type = content_type or "application/octet-stream"
        body = bytes(data)
    elif isinstance(data, str) and content_type and not is_json(media_type(content_type)):
        body = data.encode()
    elif data is None:
        body = b""
    else:
        content_type = content_type or "application/json"
        body = encode_json(data)
    return {"attributes": attributes, "contentType": content_type}, body, None


def _attribute_text(value: Any) -> str:
    """Write an attribute in its canonical form (type system, section 2.1 of the spec): booleans in lower case."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _event_class(handler: Callable[..., Any]) -> type[Any]:
    """Return the CloudEvent class of the handler's annotation if it is the SDK's, else the SDK's, by default the current one."""
    for annotation in getattr(handler, "__annotations__", {}).values():
        name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        if name.rpartition(".")[2] == "CloudEvent":
            module = getattr(handler, "__globals__", {})
            found = annotation if isinstance(annotation, type) else module.get(name)
            if isinstance(found, type) and found.__module__.startswith("cloudevents."):
                return found
    problem = None
    for name in ("cloudevents.core.v1.event", "cloudevents.http"):  # the second is what a function's own 1.x has
        try:
            found = getattr(import_module(name), "CloudEvent", None)
        except ImportError as error:
            problem = problem or error
            continue
        if isinstance(found, type):
            return found
    message = (
        f"A cloudevent handler needs the package cloudevents, or an annotation with the class that it wants: {problem}"
    )
    raise InitError("Runtime.ImportModuleError", message)


def _binary_data(kind: str | None, body: bytes) -> Any:
    """Read a binary event's data."""
    if kind == "json":
        return parse_json(body, "The CloudEvent's data")
    return body.decode() if kind == "text" else body if kind else None


def _structured_data(event: dict[str, Any]) -> Any:
    """Take the data out of an event in JSON format."""
    data = event.pop("data", None)
    encoded = event.pop("data_base64", None)
    if encoded is None:
        return data
    try:
        data = a2b_base64(encoded, strict_mode=True)
    except (TypeError, ValueError):
        raise BadRequestError("InvalidCloudEvent", "CloudEvent attribute 'data_base64' is not base64") from None
    if is_json(media_type(str(event.get("datacontenttype", "")))):
        return parse_json(data, "The CloudEvent's data_base64")
    return data


def _build(event_class: type[Any], event: dict[str, Any], data: Any, *, typed: bool) -> Any:
    """Build the SDK's object of attributes and data."""
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
