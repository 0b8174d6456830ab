"""The frames between front and worker: the protocol of docs/decisions/0021, and nothing else.

Invariant: what ``FrameReader.feed`` returns are whole frames whose head is a JSON object; anything else raises
``ProtocolError``, after which the stream can't be read further.
"""

from __future__ import annotations

from _struct import Struct

from wisp_runtime.encoding import make_decoder, make_encoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    from typing import Any

    Frame = tuple[int, int, dict[str, Any], bytes]

INVOKE, CANCEL, PAUSE, RESUME, STOP, INPUT, INPUT_END, GO = 1, 2, 3, 4, 5, 6, 7, 8
READY, FAILED, RESULT, START, CHUNK, END, ERROR, MESSAGE, TAKEN, CLOSE = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25
# Between the front and its own zygote: who has imported the handler, who is to be forked, who was, who has ended.
ZYGOTE, FORK, FORKED, EXITED = 64, 65, 66, 67
# Between the front and its verifier: a token to check, the file of issuers anew, what is to be thought of it, what to log.
CHECK, RELOAD, VERDICT, NOTE = 72, 73, 74, 75
# Between the front and a worker that serves its connections: take one, finish them; one has ended, something runs.
LEND, DRAIN, BACK, BUSY = 80, 81, 82, 83

MAX_HEAD = 1 << 20
MAX_PART = 64 << 20  # of a stream's body in one frame
READ_SIZE = 64 * 1024
_HEADER = Struct(">BIII")
_SIZE = _HEADER.size
_TOOK = b'{"took":'
_encode = make_encoder(ascii_only=True)
_decode = make_decoder()


class ProtocolError(Exception):
    """Raised when the other side sends what is no frame."""


def pack(kind: int, number: int, head: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return pack_text(kind, number, _encode(head) if head else "", body)


def pack_text(kind: int, number: int, head: str, body: bytes) -> bytes:
    """Return the bytes of a frame whose head is JSON already."""
    text = head.encode("ascii")
    return _HEADER.pack(kind, number, len(text), len(body)) + text + body


class FrameReader:
    """The reading side of a stream of frames: bytes in, frames out."""

    def __init__(self, most: int | None = None) -> None:
        """Begin between two frames; ``most``: bytes that a result may have, beyond which it is read as an ERROR."""
        self._most = most
        self._skip = 0
        self._rest = bytearray()
        self._needed = _SIZE

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that is not complete."""
        return bool(self._rest) or self._skip > 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that they complete.

        Raises:
            ProtocolError: They are no frames.
        """
        if self._skip:
            data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            buffer = self._rest
        frames: list[Frame] = []
        at, size = 0, len(buffer)
        while size - at >= _SIZE:
            kind, number, head_size, body_size = _HEADER.unpack_from(buffer, at)
            if head_size > MAX_HEAD:
                raise ProtocolError(f"a head of {head_size} bytes, more than {MAX_HEAD}")
            middle = at + _SIZE + head_size
            end = middle + body_size
            if self._most is not None and body_size > self._most and (error := too_large(kind, body_size, self._most)):
                if middle > size:
                    end = middle
                    break
                given = _read_head(buffer[at + _SIZE : middle]) if head_size else {}
                error |= {name: given[name] for name in ("took", "waits") if name in given}
                frames.append((ERROR, number, error, b""))
                self._skip, at = max(0, end - size), min(end, size)
                continue
            if end > size:
                break
            head = _read_head(buffer[at + _SIZE : middle]) if head_size else {}
            frames.append((kind, number, head, bytes(buffer[middle:end])))
            at = end
        if at == size and buffer is data:
            return frames
        rest = buffer[at:]
        self._rest = rest if isinstance(rest, bytearray) else bytearray(rest)
        self._needed = end - at if size - at >= _SIZE else _SIZE
        return frames


def too_large(kind: int, size: int, most: int) -> dict[str, Any] | None:
    """Make the head of the error that a result is answered with which is too large; a part of a stream may be larger."""
    if kind != RESULT:
        if size > max(most, MAX_PART):
            raise ProtocolError(f"a body of {size} bytes, more than {MAX_PART}")
        return None
    message = f"Response payload size ({size} bytes) exceeded maximum allowed payload size ({most} bytes)."
    return {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}


def _read_head(data: bytes | bytearray) -> dict[str, Any]:
    """Parse a head."""
    if data.startswith(_TOOK) and (took := data[len(_TOOK) : -1]).isdigit():  # nearly all that workers send
        return {"took": int(took)}
    try:
        head = _decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a head that is not JSON: {error}") from None
    if not isinstance(head, dict):
        raise ProtocolError("a head that is not a JSON object")
    return head


def whole_number(head: dict[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of a head's, not negative.

    Raises:
        ProtocolError: It isn't one.
    """
    value = head.get(name, default)
    if not isinstance(value, int) or value < 0:
        raise ProtocolError(f"{name} is {value!r:.100}, not a whole number")
    return value


class Channel:
    """The worker's end: a blocking socket, frames in both directions."""

    def __init__(self, sock: socket.socket) -> None:
        """Take the socket that the front gave us."""
        sock.setblocking(True)  # noqa: FBT003 - socket's own signature
        self.sock = sock
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the front has gone."""
        while not self._frames:
            try:
                data = self.sock.recv(READ_SIZE)
            except OSError:
                return None
            if not data:
                return None
            self._frames = self._reader.feed(data)
            self._frames.reverse()
        return self._frames.pop()

    def send(self, kind: int, number: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Write a frame, waiting while the front reads slowly.

        Raises:
            OSError: The front has gone.
        """
        self.sock.sendall(pack(kind, number, head, body))
