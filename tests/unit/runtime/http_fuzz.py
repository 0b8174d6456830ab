"""What a hostile client may send: valid requests, broken in the ways that parsers disagree on; and one strict reading of it.

``hostile`` makes the bytes of a connection from a random generator, so that a seed names them. ``read_strictly`` returns the
requests at their beginning that every parser must read in the same way: it takes less than RFC 9112 allows and guesses
nothing. A server may refuse more; it must not answer anything else with success.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

LENGTHS = (
    b"Content-Length: %d", b"Content-Length: +%d", b"Content-Length: 0x%x", b"Content-Length: %d, %d", b"Content-Length:%d ",
    b"Content-Length : %d", b"content-length:\t%d", b"Content-Length: 0%d", b"Content-Length: -%d", b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0", b"Content-Length:\r\n %d", b"Content-Length: 18446744073709551617", b"Content-Length: %d.0",
    b"Content_Length: %d", b"Content-Length: %d\x00", b"Content-Length: %d\x0b", b"X: y\nContent-Length: %d",
)  # fmt: skip
CODINGS = (
    b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding:\tchunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding\x00: chunked",
    b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:", b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,",
)  # fmt: skip
STARTS = (
    b"%b %b HTTP/1.1", b"%b  %b HTTP/1.1", b"%b %b  HTTP/1.1", b"%b\t%b\tHTTP/1.1", b" %b %b HTTP/1.1", b"%b %b HTTP/1.1 ", b"\r\n%b %b HTTP/1.1",
    b"%b %b HTTP/1.0", b"%b %b HTTP/2.0", b"%b %b HTTP/1.10", b"%b %b", b"%b %b http/1.1", b"\n%b %b HTTP/1.1", b"%b %b HTTP/01.1", b"%b http://a%b HTTP/1.1",
)  # fmt: skip
FIELDS = (
    b"X-A: 1", b"X-A:1", b"X-A : 1", b" X-A: 1", b"X-A: 1\r\n folded", b"X A: 1", b": 1", b"X-A", b"X-A: a\x00b", b"X-A: a\rb", b"X-A: \xe6\xff", b"X\xe6: 1",
    b"Connection: keep-alive", b"Connection: close", b"Connection: upgrade\r\nUpgrade: h2c", b"Expect: 100-continue", b"Host: b", b"Cookie: a=b",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip
SIZES = (
    b"%x",
    b"%X",
    b"%x;a=b",
    b"%x ",
    b" %x",
    b"0x%x",
    b"+%x",
    b"-%x",
    b"00%x",
    b"%x\t;a",
    b"%xg",
    b"f%x",
    b'%x;"\r\n"',
    b"%x;\n",
)
ENDS = (b"\r\n",) * 40 + (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"")
NOISE = (
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\x00",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"\xff",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"GET / HTTP/1.1\r\n",
    b"0\r\n\r\n",
)


class Read(NamedTuple):
    """A request as one side has read it."""

    method: bytes
    target: bytes
    body: bytes


def hostile(random: Random) -> bytes:
    """Make what one connection sends: up to four requests, most of them with something wrong."""
    data = b"".join(_request(random) for _ in range(random.randint(1, 4)))
    for _ in range(random.choice((0, 0, 0, 1, 1, 3))):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(4)
        noise = random.choice(NOISE) if kind < 2 else b""
        gone = random.randint(1, 8) if kind in (1, 2) else 0
        if kind == 3:
            noise = data[at : at + random.randint(1, 40)] * 2
        data = data[:at] + noise + data[at + gone :]
    return data


def _usually(random: Random, first: bytes, others: tuple[bytes, ...]) -> bytes:
    return first if random.random() < 0.92 else random.choice(others)


def _request(random: Random) -> bytes:
    """Make one request; each of its parts is the ordinary one nine times out of ten."""
    end = b"\r\n" if random.random() < 0.96 else random.choice(ENDS)
    start = _usually(random, STARTS[0], STARTS)
    lines = [
        start % (random.choice((b"GET", b"POST", b"PUT", b"HEAD", b"get", b"P@ST")), b"/%d" % random.randrange(1000))
    ]
    lines += [_usually(random, b"Host: a", (b"Host:", b"Host: a\r\nHost: b", b"X: 1"))]
    lines += [_usually(random, FIELDS[0], FIELDS) for _ in range(random.randint(0, 2))]
    body = bytes(random.choices(b"ab\r\n0GET /", k=random.randint(0, 20)))
    framing = random.randrange(3)
    if framing == 1:
        line = _usually(random, LENGTHS[0], LENGTHS)
        lines.append(line % ((len(body),) * line.replace(b"%%", b"").count(b"%")))
    elif framing == 2:
        lines.append(_usually(random, CODINGS[0], CODINGS))
        body = _chunks(random, body)
    elif random.random() < 0.9:
        body = b""
    return end.join([*lines, b"", body]) if lines else body


def _chunks(random: Random, body: bytes) -> bytes:
    """Cut a body into chunks."""
    made = b""
    while body:
        size = random.randint(1, 8)
        part, body = body[:size], body[size:]
        made += _usually(random, SIZES[0], SIZES) % len(part) + random.choice(ENDS) + part + random.choice(ENDS)
    trailer = _usually(random, b"", (b"X-T: 1\r\n", b"Content-Length: 3\r\n", b"bad trailer\r\n", b" folded\r\n"))
    return made + _usually(random, b"0", (b"00", b"0;x", b"0 ", b"")) + b"\r\n" + trailer + b"\r\n"


_START = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([\x21-\x7e\x80-\xff]+) +HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?")


def read_strictly(data: bytes) -> list[Read]:
    """Return the requests at the beginning of ``data`` whose framing can be read in one way only."""
    found: list[Read] = []
    at = 0
    while True:
        while data[at : at + 1] in (b"\r", b"\n"):  # RFC 9112, section 2.2: empty lines; broken ones hide nothing
            at += 1
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return found
        lines = data[at:end].split(b"\r\n")
        start = _START.fullmatch(lines[0])
        fields = [_FIELD.fullmatch(line) for line in lines[1:]]
        if not start or not all(fields):
            return found
        named = [(field[1].lower(), field[2].strip(b" \t")) for field in fields if field]
        lengths = [value for name, value in named if name == b"content-length"]
        codings = [value.lower() for name, value in named if name == b"transfer-encoding"]
        at = end + 4
        if codings:
            if lengths or codings != [b"chunked"]:
                return found
            body, at = _read_chunks(data, at)
        elif lengths:
            size = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) < 10 else len(data)
            body, at = (data[at : at + size], at + size) if at + size <= len(data) else (None, at)
        else:
            body = b""
        if body is None:
            return found
        found.append(Read(start[1], start[2], body))


def _read_chunks(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Return a chunked body and where it ends, its trailers behind it; None if it isn't one."""
    body = b""
    while True:
        end = data.find(b"\r\n", at)
        line = _SIZE.fullmatch(data[at:end]) if end >= 0 else None
        if line is None:
            return None, at
        size = int(line[1], 16)
        at = end + 2
        if size == 0:
            break
        body += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n":
            return None, at
        at += size + 2
    while not data.startswith(b"\r\n", at):
        end = data.find(b"\r\n", at)
        if end < 0 or not _FIELD.fullmatch(data[at:end]):
            return None, at
        at = end + 2
    return body, at + 2
