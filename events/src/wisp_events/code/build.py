"""`python -m wisp_events build`: makes a layer of a Python function's requirements, once, and hands it to the code store.

A Job of the tenant's namespace runs it. Environment: WISP_BUILD (a `BuildTask`), WISP_BUILD_INDEX (/etc/wisp/index: the Secret with
the package index's url, username, password and ca.crt, each optional), WISP_BUILD_TOKEN (/etc/wisp/code/write),
WISP_TERMINATION_LOG (/dev/termination-log), where the `FetchResult` goes.

Invariant: nothing of a package is ever executed. Wheels alone are installed, each with a hash that the index stated when the
requirements were resolved; compiling reads the sources only. A result means that the layer stands in the store, whose own
rules it kept. The same packages are the same bytes.
"""

import asyncio
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec
import uv
from wisp_api import conditions
from wisp_api.code import UNPACKED_BYTES, BuildTask, Fetched, FetchResult
from wisp_runtime import archive

from wisp_events.code import job
from wisp_events.code.job import hand_over, patiently
from wisp_events.code.resolver import Resolver, read_index
from wisp_events.sources.reader import Trouble

logger = logging.getLogger(__name__)

FOLDER: Final = "python"
"""Below /opt, where layers are unpacked."""
_COMPILE_SECONDS: Final = 300
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest that zip knows."""
_LOCKED: Final = re.compile(r"^([-._A-Za-z0-9]+==[^\s;\\]+)", re.MULTILINE)
_TOLD: Final = 2000
"""Characters of the list of packages, which shares a termination message of 4096 bytes with the rest."""


async def main(stop: asyncio.Event) -> None:  # noqa: ARG001 - a Job that is deleted simply ends
    """Do the task; end with status 1 if it can't be done."""
    env = os.environ
    task = msgspec.json.decode(env["WISP_BUILD"], type=BuildTask)
    index = Path(env.get("WISP_BUILD_INDEX", "/etc/wisp/index"))
    token = Path(env.get("WISP_BUILD_TOKEN", job.TOKEN))
    await job.finish(lambda: build(task, index, token))


def build(task: BuildTask, index: Path, token: Path, patience: float = job.PATIENCE_SECONDS) -> FetchResult:
    """Resolve, install, compile, pack, and hand over.

    Raises:
        Trouble: the requirements can't be had, or break a rule.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        resolver = Resolver(folder, uv.find_uv_bin(), read_index(task.index, task.secret, index))
        locked = patiently(lambda: resolver.lock(task.requirements), patience)
        installed = folder / FOLDER
        patiently(lambda: resolver.install(installed), patience)
        _compile(installed)
        with tempfile.TemporaryFile() as file:
            pack(installed, file)
            sha256, used = _verify(file)
            url = f"{task.store}/v1/code/{task.namespace}/{sha256}"
            patiently(lambda: hand_over(url, token.read_text().strip(), file), patience)
    packages = _LOCKED.findall(locked)
    logger.info("%s: sha256 %s, %d bytes unpacked", ", ".join(packages), sha256, used)
    return FetchResult(archives=[Fetched(sha256=sha256, etag="", unpacked=used)], packages=_told(packages))


def _compile(folder: Path) -> None:
    """Compile the sources as far as they are Python, since pods can't: each start would do it again."""
    options = ["-q", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", f"/opt/{FOLDER}"]
    command = [sys.executable, "-I", "-m", "compileall", *options, str(folder)]
    try:
        subprocess.run(command, env={"PYTHONHASHSEED": "0"}, capture_output=True, check=False, timeout=_COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise Trouble(conditions.BUILD_FAILED, f"compiling took longer than {_COMPILE_SECONDS} s") from None


def pack(folder: Path, file: IO[bytes]) -> None:
    """Zip what was installed, so that nothing depends on when and where.

    Raises:
        Trouble: it is too large.
    """
    total = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in _files(folder):
            state = path.stat()
            total += state.st_size
            if total > UNPACKED_BYTES:
                message = f"the packages take more than {UNPACKED_BYTES >> 20} MiB: leave some out, or build an image"
                raise Trouble(conditions.CODE_TOO_LARGE, message)
            info = zipfile.ZipInfo(f"{FOLDER}/{path.relative_to(folder).as_posix()}", _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | (0o755 if state.st_mode & 0o100 else 0o644)) << 16
            with path.open("rb") as content, packed.open(info, "w") as entry:
                shutil.copyfileobj(content, entry, 1 << 18)


def _files(folder: Path) -> Iterator[Path]:
    """The plain files; wheels hold nothing else, and `.lock` is the installer's own."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root) / name
            if path != folder / ".lock" and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _verify(file: IO[bytes]) -> tuple[str, int]:
    """The archive's SHA-256 and how many bytes it holds.

    Raises:
        Trouble: it breaks a rule.
    """
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    try:
        return found, archive.check(file)
    except archive.ArchiveError as error:
        raise Trouble(error.reason, f"the installed packages: {error}") from None


def _told(packages: Sequence[str]) -> list[str]:
    """As many of the packages as the verdict has room for."""
    room, found = _TOLD, []
    for one in packages:
        room -= len(one) + 4
        if room < 0:
            break
        found.append(one[:256])
    return found
