"""The rules of a code archive, and unpacking one: what the verifier accepts is what the pod unpacks, by the same lines.

Invariant: whatever the bytes are, nothing is made outside the folder, no more than the limits is ever written or held in
memory, and what is made are folders, plain files and links that stay inside. Three things hold it: every name is checked
before the first byte is written, no name leads through a link of the same archive and links are made last, and sizes
are counted while inflating instead of believed. What reading it costs is bounded, too: the table of contents before it is
parsed, the folders that names imply, and the packed bytes, of which each may be inflated once.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from calendar import timegm
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
UNPACKED_BYTES = 250 * MIB
ENTRIES = 60_000  # files, links and folders, whether they are listed or only lead to a file
TABLE_BYTES = 16 * MIB
RATIO = 200  # from RATIO_BYTES on: what deflate makes of code and data stays far below
RATIO_BYTES = 16 * MIB
NAME_BYTES = 1024
LINK_BYTES = 1024
CHUNK = 1 << 18
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_UNIX = 3


class ArchiveError(Exception):
    """Raised when an archive breaks a rule; ``reason`` is a constant for programs."""

    def __init__(self, reason: str, message: str) -> None:
        """Say what is wrong, and what to do."""
        super().__init__(message)
        self.reason = reason


class Entry(NamedTuple):
    """A file, folder or link of an archive."""

    path: str
    """Its place below the folder, where it is empty the folder itself."""
    kind: int
    executable: bool
    info: zipfile.ZipInfo


class _Table:
    """What zipfile reads the table of contents from: it asks for all of it at once, however large, and makes an object of each line."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        """Read unless it would be too much."""
        if size > TABLE_BYTES:
            message = f"its table of contents takes {size / MIB:.0f} MiB; the limit is {TABLE_BYTES // MIB} MiB"
            raise ArchiveError("CodeTooLarge", f"{message}: pack fewer files")
        data = self._read(size)
        if data.count(b"PK\1\2") > ENTRIES:
            raise _too_many()
        return data


def check(file: IO[bytes], most: int = UNPACKED_BYTES) -> int:
    """Inflate the whole archive without writing it; the bytes that it holds.

    Raises:
        ArchiveError: It breaks a rule.
    """
    total = 0
    for entry in entries(file, most):
        if entry.kind == stat.S_IFREG:
            total += sum(map(len, _content(file, entry)))
    return total


def unpack(file: IO[bytes], folder: str) -> None:
    """Make what the archive holds below a folder, over what lies there already. ``seal`` comes after the last one.

    Raises:
        ArchiveError: It breaks a rule.
        OSError: The folder can't take it.
    """
    links = []
    made = {""}
    for entry in entries(file):
        parent = entry.path if entry.kind == stat.S_IFDIR else _parent(entry.path)
        if parent not in made:
            _make_folder(folder, parent)
            made.add(parent)
        if entry.kind == stat.S_IFREG:
            _write(file, entry, f"{folder}/{entry.path}")
        elif entry.kind == stat.S_IFLNK:
            links.append(entry)
    for entry in links:
        path = f"{folder}/{entry.path}"
        _remove(path)
        os.symlink(_target(file, entry), path)  # noqa: PTH211


def seal(folder: str) -> None:
    """Take the right to write from everything below a folder."""
    for root, _, _ in os.walk(folder):
        if root != folder:  # a volume's root is not ours
            os.chmod(root, 0o555)  # noqa: PTH101, S103 - takes rights away


def clear(folder: str) -> None:
    """Remove everything below a folder: what an earlier container of the same pod left."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = f"{root}/{name}"
            if not os.path.islink(path):  # noqa: PTH114
                os.chmod(path, 0o700)  # noqa: PTH101
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(f"{root}/{name}")  # noqa: PTH108
        for name in folders:
            path = f"{root}/{name}"
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)  # noqa: PTH106, PTH108, PTH114


def entries(file: IO[bytes], most: int = UNPACKED_BYTES) -> list[Entry]:
    """Read the table of contents and hold it against every rule that needs no inflating.

    Raises:
        ArchiveError: It breaks a rule.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        infos = zipfile.ZipFile(_Table(file)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
        raise ArchiveError("InvalidArchive", f"it is no zip archive that can be read: {error}") from None
    total = sum(info.file_size for info in infos)
    if total > most:
        message = f"unpacked it takes {total / MIB:.0f} MiB; the limit is {most // MIB} MiB: leave out what the function doesn't need"
        raise ArchiveError("CodeTooLarge", message)
    if total > RATIO_BYTES and total > RATIO * size:
        raise _unsafe(f"{total} bytes are packed into {size}: code never is")
    if sum(info.compress_size for info in infos) > size:
        raise _unsafe("its files lie over one another: zip it anew")
    found = [_entry(info) for info in infos]
    _check_tree(found)
    for entry in found:
        if entry.kind == stat.S_IFLNK:
            _check_link(entry, _target(file, entry))
    return [entry for entry in found if entry.path]


def _entry(info: zipfile.ZipInfo) -> Entry:
    """One line of the table of contents."""
    name = info.orig_filename
    if not name or name.startswith("/") or "\\" in name or name[1:2] == ":":
        raise _unsafe(f"the name {name!r} is not a relative path with '/'")
    if any(ord(letter) < 32 or letter == "\x7f" for letter in name) or len(os.fsencode(name)) > NAME_BYTES:  # noqa: PLR2004
        raise _unsafe(f"the name {name[:80]!r} has control characters or is too long")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise _unsafe(f"the name {name!r} leads out of the archive's folder")
    if any(len(os.fsencode(part)) > 255 for part in parts):  # noqa: PLR2004 - what file systems take
        raise _unsafe(f"a part of the name {name[:80]!r} is too long")
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    kind = stat.S_IFMT(mode) or (stat.S_IFDIR if name.endswith("/") else stat.S_IFREG)
    if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK} or (kind == stat.S_IFDIR) != name.endswith("/"):
        raise _unsafe(f"{name!r} is no plain file, folder or link")
    if kind != stat.S_IFDIR and not parts:
        raise _unsafe(f"the name {name!r} names no file")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveError("InvalidArchive", f"{name!r} is encrypted, or neither stored nor deflated: zip it anew")
    # Without Unix modes (made on Windows) nobody knows; a bootstrap must be executable.
    return Entry("/".join(parts), kind, bool(mode & 0o111) or not stat.S_IMODE(mode), info)


def _check_tree(found: list[Entry]) -> None:
    """No name stands twice, only folders have something below them, and there are not too many of these."""
    kinds: dict[str, int] = {}
    for entry in found:
        if entry.path in kinds and not kinds[entry.path] == entry.kind == stat.S_IFDIR:
            raise _unsafe(f"the name {entry.path!r} stands twice")
        kinds[entry.path] = entry.kind
    checked = {""}
    for entry in found:
        parent = _parent(entry.path)
        while parent not in checked:
            if kinds.setdefault(parent, stat.S_IFDIR) != stat.S_IFDIR:
                raise _unsafe(f"{entry.path!r} lies below {parent!r}, which is no folder")
            if len(kinds) > ENTRIES:
                raise _too_many()
            checked.add(parent)
            parent = _parent(parent)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _check_link(entry: Entry, target: str) -> None:
    """A link may go up at first, to the archive's folder at most, and then only down.

    A '..' behind a name could climb from where another link leads, so there is none; then by induction every link stays inside.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    if not target or target.startswith("/") or "\0" in target or ".." in parts[up:] or up > entry.path.count("/"):
        raise _unsafe(f"the link {entry.path!r} leads to {target[:80]!r}, which may be outside of the archive's folder")


def _target(file: IO[bytes], entry: Entry) -> str:
    if entry.info.file_size > LINK_BYTES:
        raise _unsafe(f"the link {entry.path!r} is too long")
    return os.fsdecode(b"".join(_content(file, entry)))


def _content(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    """An entry's bytes, inflated piece by piece; its size and checksum must be those of the table of contents."""
    info = entry.info
    file.seek(max(info.header_offset, 0))  # zipfile makes it negative where the table of contents lies
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise ArchiveError("InvalidArchive", f"there is no entry where {entry.path!r} should be")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    file.seek(name + extra, os.SEEK_CUR)
    left, size, checksum = info.compress_size, 0, 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if info.compress_type == zipfile.ZIP_DEFLATED else None
    pending, piece = b"", b""
    while left or pending or piece:  # zlib may hold a little back when all is read
        if left and not pending:
            pending = file.read(min(CHUNK, left))
            if not pending:
                raise _damaged(entry)
            left -= len(pending)
        piece, pending = _inflated(inflate, pending, entry)
        size += len(piece)
        checksum = zlib.crc32(piece, checksum)
        if size > info.file_size:
            raise _unsafe(f"{entry.path!r} is larger than it says")
        yield piece
    if size != info.file_size or checksum != info.CRC:
        raise _damaged(entry)


def _inflated(inflate: zlib._Decompress | None, pending: bytes, entry: Entry) -> tuple[bytes, bytes]:
    """The next piece, and what is left of the packed bytes."""
    if inflate is None:
        return pending, b""
    try:
        piece = inflate.decompress(pending, 4 * CHUNK)
    except zlib.error:
        raise _damaged(entry) from None
    if inflate.eof and inflate.unused_data:
        raise _damaged(entry)
    return piece, inflate.unconsumed_tail


def _make_folder(folder: str, path: str) -> None:
    """Make a folder, but not through a link that an earlier layer left: where that leads, the rule for links doesn't hold."""
    os.makedirs(f"{folder}/{path}", exist_ok=True)  # noqa: PTH103 - pathlib costs 10 ms at start
    if os.path.realpath(f"{folder}/{path}") != f"{os.path.realpath(folder)}/{path}":
        raise _unsafe(f"{path!r} is a link in an earlier layer and a folder in this one")


def _write(file: IO[bytes], entry: Entry, path: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = 0o555 if entry.executable else 0o444
    try:
        out = os.open(path, flags, mode)
    except FileExistsError:  # of a layer before this one
        _remove(path)
        out = os.open(path, flags, mode)
    try:
        for piece in _content(file, entry):
            view = memoryview(piece)
            while view:
                view = view[os.write(out, view) :]
        os.utime(out, (seconds := _modified(entry), seconds))
    finally:
        os.close(out)


def _modified(entry: Entry) -> float:
    """When the file was changed; compiled Python is compared with it. Zip knows no time zone: pods have UTC."""
    try:
        return float(timegm((*entry.info.date_time, 0, 0, 0)))
    except (ValueError, OverflowError):
        return 0.0


def _remove(path: str) -> None:
    """Take away what an earlier layer put here."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        clear(path)
        os.rmdir(path)  # noqa: PTH106


def _unsafe(message: str) -> ArchiveError:
    return ArchiveError("UnsafeArchive", message)


def _too_many() -> ArchiveError:
    return ArchiveError("CodeTooLarge", f"it holds more than {ENTRIES} files and folders: leave out some")


def _damaged(entry: Entry) -> ArchiveError:
    return ArchiveError("InvalidArchive", f"{entry.path!r} is damaged: its size or checksum is wrong")
