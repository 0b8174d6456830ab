"""One HTTP request and its answer, read as fast as it is passed on: nothing of the answer is held but what its reader has not taken yet.

Invariant: a request is sent once, on a connection of its own. What can't be read as one whole answer is `Broken`, so who reads the parts
to their end has all of it. It waits as long as the other side does: deadlines are the caller's.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import httptools
from wisp_api import calling

from wisp_events.ingest.door import header

_CONNECT_SECONDS: Final = 10.0
_HEAD_BYTES: Final = 64 * 1024
"""What may come in a row that is no body: a head, trailers."""
_READ_BYTES: Final = 64 * 1024
_INTERIM: Final = 200
_BEYOND: Final = 600
_BODILESS: Final = frozenset({204, 304})


class Broken(Exception):  # noqa: N818 - states what the answer is
    """Raised when an answer is none, or not whole."""


class Reply:
    """The answer on one connection; first its head is read, then its parts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Nothing is sent yet."""
        self._reader, self._writer = reader, writer
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._aside = 0  # bytes since the last of a body
        self._whole = self._framed = self._headed = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """With names in lower case, and a content-length only where such a body follows."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is read, if it is not that of an interim answer."""
        self.status = self._parser.get_status_code()
        self._headed = self.status >= _INTERIM
        self._framed = any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)
        if self.status in _BODILESS:  # such a length tells of another answer's body
            self.headers = [line for line in self.headers if line[0] != b"content-length"]

    def on_body(self, part: bytes) -> None:
        """Keep a part until it is taken."""
        self._aside = 0
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is over."""
        self._whole = self._headed
        if not self._headed:
            self.headers = []

    async def send(self, request: bytes) -> None:
        """Return once the other side has taken the request, or has broken the connection: what it said before can still be read."""
        try:
            self._writer.write(request)
            await self._writer.drain()
        except OSError:
            return

    async def head(self) -> None:
        """Read the answer's head.

        Raises:
            Broken: there is none, or one that can't be passed on.
        """
        while not self._headed:
            await self._read()
        if self.status >= _BEYOND:
            raise Broken(f"status {self.status}, which HTTP has not")
        length = header(self.headers, b"content-length")
        if length and int(length) > calling.LONGEST:
            raise Broken(f"{int(length)} bytes; at most {calling.LONGEST} are passed on")

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body, as it comes.

        Raises:
            Broken: it ends before its end, or is longer than an answer may be.
        """
        size = 0
        while True:
            taken, self._parts = self._parts, []
            for part in taken:
                size += len(part)
                if size > calling.LONGEST:
                    raise Broken(f"more than {calling.LONGEST} bytes")
                yield part
            if self._whole:
                return
            await self._read()

    async def _read(self) -> None:
        """Parse what comes next."""
        try:
            data = await self._reader.read(_READ_BYTES)
            self._aside += len(data)
            if data:
                self._parser.feed_data(data)
            elif self._headed and not self._framed:
                self._whole = True  # a body that ends with the connection
            else:
                raise Broken("the connection ended before the answer did")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._whole:
                raise Broken(f"no answer in HTTP: {error}") from error
        except OSError as error:  # of any kind: reset, timed out, unreachable
            raise Broken(f"the connection broke: {error.strerror or error}") from error
        if self._aside > _HEAD_BYTES and not self._whole:
            raise Broken(f"a head of more than {_HEAD_BYTES} bytes")

    def close(self) -> None:
        """Give the connection up, at any time."""
        self._writer.transport.abort()


async def connect(host: str, port: int) -> Reply:
    """A connection for one request.

    Raises:
        OSError: there is none, or not in time.
    """
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return Reply(*await asyncio.open_connection(host, port, limit=_READ_BYTES))
    except TimeoutError as error:
        raise ConnectionError(f"none within {_CONNECT_SECONDS:.0f} s") from error
