"""Files that a person is at work on: what has changed since they were last taken.

By looking at names, times and sizes now and then, which works on every system and every mounted folder. Hidden files and
what interpreters and editors leave beside the code don't count.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.2
_QUIET_SECONDS: Final = 0.2
"""How long nothing may change before a save counts as finished: editors and formatters write several files, or one twice."""
_SHARE: Final = 5
"""Looking takes one part of the time in so many, however large the folders are."""

_Seen = dict[str, tuple[int, int]]


class Watch:
    """Folders, and how their files were when they were last taken."""

    def __init__(self, folder: Path) -> None:
        """Of one folder; as if its files had never been seen."""
        self.folders = {folder}
        self._seen: _Seen | None = None
        self._took = 0.0

    def include(self, folders: Iterable[Path]) -> bool:
        """Watch these too; whether one is new, whose files nobody has looked at yet."""
        new = {folder for folder in folders if not any(_within(folder, known) for known in self.folders)}
        self.folders |= new
        return bool(new)

    def changed(self) -> bool:
        """Whether a file is other than when it was taken."""
        return self._look() != self._seen

    def take(self) -> None:
        """Wait until a save is finished, and count the files as they are."""
        self._seen = self._look()
        time.sleep(_QUIET_SECONDS)
        while (now := self._look()) != self._seen:
            self._seen = now
            time.sleep(_QUIET_SECONDS)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a change; False where none came in time."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self.changed():
            if until is not None and time.monotonic() > until:
                return False
            time.sleep(max(_LOOK_SECONDS, _SHARE * self._took))
        return True

    def _look(self) -> _Seen:
        start = time.monotonic()
        seen = {path: stamp for folder in self.folders for path, stamp in _files(folder)}
        self._took = time.monotonic() - start
        return seen


def _within(folder: Path, other: Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each file with when it was written and its size."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if name.startswith(".") or name.endswith((".pyc", "~", ".swp")):
                continue
            path = os.path.join(root, name)  # noqa: PTH118 - thousands of them, several times a second
            try:
                found = os.stat(path)  # noqa: PTH116
            except OSError:
                continue  # gone between the two, or a link to nowhere
            yield path, (found.st_mtime_ns, found.st_size)
