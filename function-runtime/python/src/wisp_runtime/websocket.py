"""WebSocket without sockets, the server's side: bytes in, messages out (RFC 6455, section 5).

Invariant: what ``WebSocketReader.take`` returns are whole messages and control frames in their order, texts that are
UTF-8, and no message longer than allowed; anything else raises ``WebSocketError`` with the code that its caller is to
get, and nothing is read after it. What is held is at most one message and what was fed and not taken. No extension is
ever agreed to, so every reserved bit is an error.
"""

from __future__ import annotations

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR, TRY_LATER = 1007, 1009, 1011, 1013

_FIN, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127  # lengths that say where the length is
_MOST_CONTROL = 125


class WebSocketError(Exception):
    """Raised when the other side breaks the protocol; ``code`` is what the connection is closed with."""

    def __init__(self, code: int, reason: str) -> None:
        """Name the close code and what is wrong."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


def encode(opcode: int, payload: bytes) -> bytes:
    """Return a message or a control frame as one frame."""
    size = len(payload)
    if size < _TWO_BYTES:
        return bytes((_FIN | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((_FIN | opcode, _TWO_BYTES)) + size.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, _EIGHT_BYTES)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a close frame; a code that can't be sent is left out, a reason too long is cut."""
    if not _is_code(code):
        return encode(CLOSE, b"")
    text = reason.encode("utf-8", "replace")[: _MOST_CONTROL - 2].decode("utf-8", "ignore")
    return encode(CLOSE, code.to_bytes(2, "big") + text.encode())


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return a close frame's code and reason.

    Raises:
        WebSocketError: It is none.
    """
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not _is_code(code):
        raise WebSocketError(PROTOCOL_ERROR, "A close frame's code is none that can be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError(INVALID_DATA, "A close frame's reason is not UTF-8") from None


def _is_code(code: int) -> bool:
    """Whether a close frame may have this code (RFC 6455, section 7.4; 1012 to 1014 were registered later)."""
    return 1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL) or 3000 <= code <= 4999  # noqa: PLR2004, RUF021


class WebSocketReader:
    """The reading side of one connection."""

    def __init__(self, most: int) -> None:
        """Read messages of at most so many bytes."""
        self._most = most
        self._input = bytearray()
        self._message = bytearray()
        self._kind = CONTINUATION  # of the message that has begun

    @property
    def held(self) -> int:
        """How many bytes wait in here."""
        return len(self._input) + len(self._message)

    def feed(self, data: bytes) -> None:
        """Take bytes; ``take`` afterwards."""
        self._input += data

    def take(self) -> tuple[int, bytes] | None:
        """Return the next message or control frame, by its opcode; None if more bytes are needed for it.

        Raises:
            WebSocketError: The other side breaks the protocol.
        """
        while (frame := self._next_frame()) is not None:
            first, payload = frame
            opcode = first & _OPCODE
            if opcode >= CLOSE:
                return opcode, payload
            self._kind = opcode or self._kind
            if not first & _FIN:
                self._message += payload
                continue
            kind, self._kind = self._kind, CONTINUATION
            if self._message:
                payload, self._message = bytes(self._message + payload), bytearray()
            if kind == TEXT and not _is_text(payload):
                raise WebSocketError(INVALID_DATA, "A text is not UTF-8")
            return kind, payload
        return None

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Cut a frame off the input: its first byte and its payload, unmasked; None if it isn't there in full."""
        data = self._input
        if len(data) < 2:  # noqa: PLR2004 - where the length begins
            return None
        first, second = data[0], data[1]
        size = second & _LENGTH
        self._check_head(first, second, size)
        at = 2
        if size >= _TWO_BYTES:
            at = 4 if size == _TWO_BYTES else 10
            if len(data) < at:
                return None
            least = _TWO_BYTES if size == _TWO_BYTES else 1 << 16
            size = int.from_bytes(data[2:at], "big")
            if size < least or size >= 1 << 63:
                raise WebSocketError(PROTOCOL_ERROR, "A frame's length is not written in the shortest way")
        if first & _OPCODE < CLOSE and len(self._message) + size > self._most:
            raise WebSocketError(TOO_BIG, f"A message has more than {self._most} bytes")
        end = at + 4 + size
        if len(data) < end:
            return None
        payload = unmask(data[at + 4 : end], data[at : at + 4])
        del data[:end]
        return first, payload

    def _check_head(self, first: int, second: int, size: int) -> None:
        """Refuse a frame that its first two bytes condemn."""
        opcode = first & _OPCODE
        problem = ""
        if first & _RESERVED:
            problem = "A frame has a reserved bit, and no extension was agreed to"
        elif not second & _MASKED:
            problem = "A client's frame is not masked"
        elif opcode >= CLOSE:
            if opcode > PONG:
                problem = f"There is no opcode {opcode}"
            elif size > _MOST_CONTROL or not first & _FIN:
                problem = "A control frame is too long, or in parts"
        elif opcode > BINARY:
            problem = f"There is no opcode {opcode}"
        elif (opcode == CONTINUATION) == (self._kind == CONTINUATION):
            problem = "A message begins within another" if opcode else "A part belongs to no message"
        if problem:
            raise WebSocketError(PROTOCOL_ERROR, problem)


def unmask(data: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    """Return the payload: each byte exclusive-or the mask's in turn, as two whole numbers, 300 times faster than a loop."""
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
