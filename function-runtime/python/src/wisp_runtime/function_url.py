"""Plain HTTP for a Lambda handler: the event and response of function URLs (API Gateway's payload format 2.0).

Spec: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html. As there, repeated headers and parameters are
joined by commas, cookies stand apart from headers, and a body that isn't known to be text is base64.
"""

from __future__ import annotations

import time
from binascii import a2b_base64, b2a_base64

from wisp_runtime.encoding import read_json, write_json
from wisp_runtime.errors import InvalidResultError
from wisp_runtime.http1 import Reply
from wisp_runtime.results import JSON_HEADER, checked_headers, checked_status
from wisp_runtime.values import encode_json, is_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.http1 import HttpRequest

_TEXT = ("application/javascript", "application/xml", "application/graphql", "application/yaml")


def make_event(request: HttpRequest, request_id: str, media_type: str, host: str) -> dict[str, Any]:
    """Make the event of a request; keys without a value (query, cookies, body) are absent, as in AWS."""
    path, _, query = request.target.partition("?")
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in request.headers:
        if name == "cookie":
            cookies += [cookie.strip() for cookie in value.split(";") if cookie.strip()]
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": _context(request, path, request_id, host, headers.get("user-agent", "")),
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _parameters(query)
    if request.body:
        text = _text(request.body, media_type)
        event["isBase64Encoded"] = text is None
        event["body"] = b2a_base64(request.body, newline=False).decode() if text is None else text
    return event


def _parameters(query: str) -> dict[str, str]:
    """Decode the query, joining the values of repeated parameters."""
    from urllib.parse import parse_qsl  # noqa: PLC0415 - 4 ms that a call without a query doesn't pay

    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _context(request: HttpRequest, path: str, request_id: str, host: str, user_agent: str) -> dict[str, Any]:
    """Make ``requestContext``."""
    now = time.time()
    context: dict[str, Any] = {
        "accountId": "anonymous",
        "apiId": host.partition(".")[0],
        "domainName": host,
        "domainPrefix": host.partition(".")[0],
        "http": {
            "method": request.method,
            "path": path,
            "protocol": f"HTTP/{request.version}",
            "sourceIp": request.peer,
            "userAgent": user_agent,
        },
        "requestId": request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "timeEpoch": int(now * 1000),
    }
    if request.jwt is not None:
        claims = {name: _claim(value) for name, value in request.jwt["claims"].items()}
        context["authorizer"] = {"jwt": {"claims": claims, "scopes": request.jwt["scopes"] or None}}
    return context


def _claim(value: Any) -> str:
    """Write a claim as API Gateway does: everything is a text, and a list has its words in brackets."""
    if isinstance(value, list):
        return f"[{' '.join(map(_claim, value))}]"
    return value if isinstance(value, str) else write_json(value)


def _text(body: bytes, media_type: str) -> str | None:
    """Return the body as text, or None where it must be base64: not known to be text, or not UTF-8."""
    known = not media_type or media_type.startswith("text/") or media_type in _TEXT
    if not (known or is_json(media_type) or media_type.endswith("+xml")):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def make_reply(body: bytes) -> Reply:
    """Make the reply of a JSON result: with ``statusCode`` its own response, anything else 200 with the value as it is.

    Raises:
        InvalidResultError: It is nested too deeply, or its fields don't have the types that the format gives them.
    """
    try:
        result = (
            read_json(body.decode("utf-8", "surrogatepass").removeprefix("\ufeff")) if b'"statusCode"' in body else None
        )
    except RecursionError as error:
        raise InvalidResultError("Runtime.MarshalError", f"Unable to marshal response: {error}") from None
    if not isinstance(result, dict) or "statusCode" not in result:
        return Reply(200, [JSON_HEADER], body)
    headers = result.get("headers") or {}
    cookies = result.get("cookies") or []
    if not isinstance(headers, dict) or not isinstance(cookies, list):
        raise InvalidResultError("Runtime.InvalidResponse", "'headers' must be an object and 'cookies' a list")
    fields = checked_headers([*headers.items(), *(("set-cookie", cookie) for cookie in cookies)])
    content = _body(result.get("body"), is_base64=bool(result.get("isBase64Encoded")))
    if not any(name == "content-type" for name, _ in fields):
        fields.append(JSON_HEADER)
    return Reply(checked_status(result["statusCode"]), fields, content)


def _body(body: Any, *, is_base64: bool) -> bytes:
    """Make the response's bytes of ``body``."""
    if body is None:
        return b""
    if not isinstance(body, str):
        return encode_json(body)
    if not is_base64:
        return body.encode("utf-8", "replace")
    try:
        return a2b_base64(body, strict_mode=True)
    except ValueError as error:
        message = f"'isBase64Encoded' is true, but 'body' is not base64: {error}"
        raise InvalidResultError("Runtime.InvalidResponse", message) from None
