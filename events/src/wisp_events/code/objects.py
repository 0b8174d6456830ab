"""Requests for S3 objects, the user's and the store's own, streamed: an archive never stands in memory.

Redirects are not followed, so that a key is used at the endpoint that it belongs to and nowhere else.
"""

import contextlib
import http.client
from collections.abc import Iterator, Mapping
from typing import IO
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from wisp_api.signing import Access

TIMEOUT_SECONDS = 30
SIGNED_SECONDS = 600


class S3Error(Exception):
    """Raised when an S3 server refuses a request; `code` is its own constant, empty where it gives none."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """From the server's answer."""
        super().__init__(f"{status} {code}: {message}".rstrip(": "))
        self.status = status
        self.code = code


@contextlib.contextmanager
def request(
    access: Access,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    *,
    body: IO[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request, to be read inside the block; `body` with its length among the headers. S3 wants its own headers signed.

    Raises:
        S3Error: the server refused (also where it says that nothing changed).
        OSError, http.client.HTTPException: it can't be reached, or broke off.
    """
    own = {name: value for name, value in (headers or {}).items() if name.startswith("x-amz-")}
    url = access.presign(method, path, dict(query or {}), SIGNED_SECONDS, own)
    with send(url, method, body, headers) as answer:
        if answer.status not in {http.client.OK, http.client.NO_CONTENT}:
            raise _error(answer)
        yield answer


@contextlib.contextmanager
def send(
    url: str, method: str, body: IO[bytes] | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to an HTTP request, whatever it is.

    Raises:
        OSError, http.client.HTTPException: the server can't be reached, or broke off.
    """
    where = urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.netloc, timeout=TIMEOUT_SECONDS)
    try:
        path = f"{where.path}?{where.query}" if where.query else where.path
        # As it was signed: by itself it would lack a port that is the scheme's own.
        connection.request(method, path, body, {"host": where.netloc, **(headers or {})})
        yield connection.getresponse()
    finally:
        connection.close()


def _error(answer: http.client.HTTPResponse) -> S3Error:
    try:
        document = ET.fromstring(answer.read(65536))  # noqa: S314 - only two of its texts are used
    except ET.ParseError:
        return S3Error(answer.status, "", answer.reason)
    code, message = (document.findtext(f"{{*}}{name}") or "" for name in ("Code", "Message"))
    return S3Error(answer.status, code, message)
