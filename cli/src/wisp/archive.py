"""A folder as a zip archive, byte for byte the same wherever and whenever it is made, so that its SHA-256 says whether code changed."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wisp_api.code import UNPACKED_BYTES

from wisp.errors import UsageError

_LEFT_OUT: Final = frozenset({"__pycache__", ".git"})
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest that zip knows."""


def pack(folder: Path, where: str) -> bytes:
    """The archive of a folder, without hidden files at its top, `.git` and compiled Python.

    Raises:
        UsageError: there is no such folder, or it can't be packed; the message begins with `where`.
    """
    if not folder.is_dir():
        raise UsageError(f"{where}: there is no folder {folder}")
    made, total = io.BytesIO(), 0
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in _entries(folder):
            try:
                content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            except OSError as error:
                raise UsageError(f"{where}: {path} can't be read: {error.strerror}") from None
            total += len(content)
            if total > UNPACKED_BYTES:
                told = f"{folder} holds more than {UNPACKED_BYTES >> 20} MiB"
                raise UsageError(f"{where}: {told}: leave out what the function doesn't need, or build an image")
            archive.writestr(_info(name, path), content)
    if not total:
        raise UsageError(f"{where}: {folder} holds no code")
    return made.getvalue()


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        top = Path(root) == folder
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not (top and name.startswith(".")))
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*files, *links]):
            if not name.endswith(".pyc") and not (top and name.startswith(".")):
                path = Path(root) / name
                yield path.relative_to(folder).as_posix(), path


def _info(name: str, path: Path) -> zipfile.ZipInfo:
    """An entry of which nothing depends on who packs it when."""
    info = zipfile.ZipInfo(name, _TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    plain = stat.S_IFREG | (0o755 if os.access(path, os.X_OK) else 0o644)
    info.external_attr = (stat.S_IFLNK | 0o777 if path.is_symlink() else plain) << 16
    return info
