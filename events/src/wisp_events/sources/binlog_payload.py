"""Transactions that MySQL compressed (`binlog_transaction_compression`): one event of the binary log in, the events that it holds out.

Spec: MySQL's source documentation ("Transaction_payload_event"). The events within have no checksums.

Invariant: one event at a time is decompressed, and of one that is too large no more than its header is kept, so that memory is bounded
whatever the sizes are that a payload tells.
"""

import io
import sys
from collections.abc import Iterator
from typing import Final

from wisp_events.sources import binlog_table

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEADER_BYTES: Final = 19
LENGTH: Final = slice(9, 13)
"""Of an event, in its header."""
LARGEST_BYTES: Final = 64 * 1024 * 1024
"""Of an event that is read; the log takes none of a row of that size."""
_END, _COMPRESSION = 0, 2
_ZSTD, _NONE = 0, 255
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 27}
"""What the highest level needs: 128 MiB."""
_SKIP_BYTES: Final = 1024 * 1024


def events(body: bytes) -> Iterator[bytes]:
    """The events that a payload's body holds, in their order; of one that is too large the header alone.

    Raises:
        ValueError: it can't be read, from here on.
    """
    try:
        yield from _events(_stream(body))
    except (zstd.ZstdError, EOFError, IndexError) as error:
        raise ValueError(str(error)) from None


def _stream(body: bytes) -> io.BufferedIOBase:
    """What the payload holds."""
    compression, at = _ZSTD, 0
    while True:
        field, at = binlog_table.number(body, at)
        if field == _END:
            break
        length, at = binlog_table.number(body, at)
        if field == _COMPRESSION:
            compression, _ = binlog_table.number(body, at)
        at += length
    if compression not in (_ZSTD, _NONE):
        raise ValueError(f"it is compressed in a way ({compression}) that is not known")
    source = io.BytesIO(body)
    source.seek(at)
    return zstd.ZstdFile(source, options=_WINDOW) if compression == _ZSTD else source


def _events(stream: io.BufferedIOBase) -> Iterator[bytes]:
    while header := stream.read(HEADER_BYTES):
        left = int.from_bytes(header[LENGTH], "little") - HEADER_BYTES
        if len(header) < HEADER_BYTES or left < 0:
            raise ValueError("an event in it has no header")
        if left > LARGEST_BYTES:
            yield header
            while left and (skipped := stream.read(min(left, _SKIP_BYTES))):
                left -= len(skipped)
        else:
            rest = stream.read(left)
            left -= len(rest)
            if not left:
                yield header + rest
        if left:
            raise ValueError("it is cut off")
