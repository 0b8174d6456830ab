"""What one connection may cost a server that anybody in the cluster reaches, before a token says whose it is.

Invariant: a connection lasts as long as its client does its part. One on which no request begins, or whose head does not end, is
closed when a kept connection would be; one whose head is too long at once; one whose client reads nothing of its answer after STALL_SECONDS.
One address has at most SHARE of the CONNECTIONS, so that no pod keeps the others out. Bodies have their bounds where they are read.
"""

import asyncio
from collections import Counter
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTIONS: Final = 4096
"""Beyond these, uvicorn answers 503 by itself."""
SHARE: Final = 256
HEAD_BYTES: Final = 32 * 1024
"""What may come in a row that is no body: a target, headers, trailers."""
STALL_SECONDS: Final = 30.0


class Connection(HttpToolsProtocol):
    """A client's connection."""

    _of_address: ClassVar[Counter[str]] = Counter()
    """Open connections; a process has one server."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """As uvicorn makes them."""
        super().__init__(*given, **named)
        self._left = HEAD_BYTES
        self._read = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it with its address, and expect a request."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._of_address[self._address] += 1
        self._expect_head()
        if self._of_address[self._address] > SHARE:
            self._refuse("503 Service Unavailable", f"more than {SHARE} connections from one address: reuse them")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._of_address[self._address] -= 1
        if not self._of_address[self._address]:
            del self._of_address[self._address]
        self._head_came()
        self.resume_writing()
        super().connection_lost(exc)

    def _refuse(self, status: str, message: str) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(message)}\r\nconnection: close\r\n\r\n"
        self.transport.write((head + message).encode())
        self.transport.close()

    # The head

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is too much of a head."""
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        self._read = len(data)
        self._left -= self._read
        super().data_received(data)
        if self._left >= 0 or self.transport.is_closing():
            return
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()  # a trailer, while an answer is being written
        else:
            self._refuse("431 Request Header Fields Too Large", f"a head of more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Note that a head begins in what is being parsed."""
        self._left = HEAD_BYTES - self._read
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self._left = HEAD_BYTES
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._left = HEAD_BYTES
        super().on_body(body)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _head_came(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    # The answer

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on."""
        if self._stall_timer:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Have no connection linger that is closed with an answer still to be read."""
        super().on_response_complete()
        if self.transport.is_closing() and not self._stall_timer:
            self._watch(self.transport.get_write_buffer_size())

    def timeout_keep_alive_handler(self) -> None:
        """End it; what was not read by now is not awaited."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch(self, unread: int) -> None:
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._stalled, unread)

    def _stalled(self, before: int) -> None:
        """End it when the client has read nothing, though there may have been more to read since."""
        unread = self.transport.get_write_buffer_size()
        if unread < before:
            self._watch(unread)
        else:
            self.transport.abort()
