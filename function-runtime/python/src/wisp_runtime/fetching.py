"""Bringing the code into the pod: archives by their digests, from the store, before anything of the user's is imported.

The operator names them in the environment: WISP_CODE_URL (the namespace's place in the store), WISP_CODE (the code's
SHA-256, for the code folder), WISP_LAYERS (those of layers in their order, for /opt). The credential is a mounted file.

Invariant: nothing is unpacked whose SHA-256 is not the one that was asked for, and the start goes on only with all of
it in place. It happens in a process of its own, which leaves nothing in the front: not its memory, not its imports.
"""

from __future__ import annotations

import os
import sys

from wisp_runtime.errors import InitError
from wisp_runtime.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse
    from typing import Any, NoReturn

TOKEN = "/etc/wisp/code/read"  # noqa: S105 - a path
START_SECONDS = 20.0  # for a store that is away; the kubelet kills what doesn't serve after 30, and starts it anew
PAUSE_SECONDS = 0.1, 1.0  # between tries: the first, the longest
ANSWER_SECONDS = 10
CHUNK = 1 << 18
_OK, _NOT_FOUND = 200, 404
_REDIRECTS = (302, 307)
_REFUSED = (401, 403)
_SECRET = "Does the Secret wisp-code of this namespace hold what the operator wrote?"  # noqa: S105 - a question


def bring(env: Mapping[str, str]) -> None:
    """Have the code and the layers in place when this returns; does nothing where the environment names none.

    Raises:
        InitError: They can't be had.
    """
    if not env.get("WISP_CODE_URL"):
        return
    reader, writer = os.pipe()
    news = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, news)  # until the loop takes them: what comes between isn't lost
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, news)
        _be_child(env, writer)
    os.close(writer)
    ended = status = 0
    while not ended:
        if signal.sigwait(news) == signal.SIGTERM:
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        ended, status = os.waitpid(child, os.WNOHANG)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - pathlib costs 10 ms at start
        told = pipe.read()
    if told or status:
        kind, _, message = told.decode().partition("\n")
        how = f"the process that fetches the code ended with status {os.waitstatus_to_exitcode(status)}"
        raise InitError(kind or "Runtime.CodeUnavailable", message or how)
    _find_libraries(env)


def _be_child(env: Mapping[str, str], writer: int) -> NoReturn:
    """Fetch all; what goes wrong is written to the pipe."""
    status = 1
    try:
        _fetch_all(env)
        status = 0
    except InitError as error:
        os.write(writer, f"{error.error_type}\n{error.message}".encode()[:4096])
    except OSError as error:
        os.write(writer, f"Runtime.CodeUnpackFailed\nthe code can't be unpacked: {error}".encode()[:4096])
    finally:
        os._exit(status)


def _fetch_all(env: Mapping[str, str]) -> None:
    import time  # noqa: PLC0415 - the front pays for none of this

    from wisp_runtime import archive  # noqa: PLC0415

    deadline = time.monotonic() + START_SECONDS
    places = {env.get("WISP_CODE_DIR") or "/var/task": [env["WISP_CODE"]] if env.get("WISP_CODE") else []}
    places[env.get("WISP_OPT_DIR") or "/opt"] = [one for one in env.get("WISP_LAYERS", "").split(",") if one]
    for folder, digests in places.items():
        if digests:
            archive.clear(folder)
        for digest in digests:
            _bring_one(env, digest, folder, deadline)
        if digests:
            archive.seal(folder)


def _bring_one(env: Mapping[str, str], digest: str, folder: str, deadline: float) -> None:
    """Fetch one archive beside its place, look at its digest, unpack it."""
    from wisp_runtime import archive  # noqa: PLC0415

    name = f"{folder}/.wisp-{digest}.zip"
    with open(name, "w+b", buffering=0) as file:  # noqa: PTH123
        os.unlink(name)  # noqa: PTH108 - it goes with its descriptor, whatever happens
        _download(f"{env['WISP_CODE_URL']}/{digest}", env.get("WISP_CODE_TOKEN") or TOKEN, digest, file, deadline)
        with open(file.fileno(), "rb", buffering=1 << 16, closefd=False) as packed:
            try:
                archive.unpack(packed, folder)
            except archive.ArchiveError as error:
                message = f"archive {digest[:12]} breaks a rule ({error.reason}): {error}"
                raise InitError("Runtime.CodeUnpackFailed", message) from None


def _download(url: str, token: str, digest: str, file: Any, deadline: float) -> None:
    """Write the archive to the file, trying again until the deadline while the store is away."""
    import time  # noqa: PLC0415
    from hashlib import sha256  # noqa: PLC0415
    from http.client import HTTPException  # noqa: PLC0415

    pause, longest = PAUSE_SECONDS
    while True:
        try:
            found = sha256()
            with open(token, encoding="ascii") as held:  # noqa: PTH123
                credential = held.read().strip()
            file.seek(0)
            file.truncate()
            with _open(url, credential) as answer:
                _check_status(answer, digest)
                while piece := answer.read(CHUNK):
                    found.update(piece)
                    file.write(piece)
                if answer.length:
                    raise ConnectionError(f"the answer broke off {answer.length} bytes before its end")
        except (OSError, HTTPException) as error:
            if time.monotonic() > deadline:
                message = f"archive {digest[:12]} can't be had from the code store within {START_SECONDS:g} s: {error}. Is wisp-store running?"
                raise InitError("Runtime.CodeUnavailable", message) from None
            time.sleep(pause)
            pause = min(2 * pause, longest)
            continue
        if found.hexdigest() != digest:
            message = (
                f"archive {digest[:12]} came with SHA-256 {found.hexdigest()[:12]}: the code store's bucket was changed"
            )
            raise InitError("Runtime.CodeMismatch", message)
        return


def _open(url: str, token: str = "") -> HTTPResponse:
    """Ask the store, and go where it sends us: there without the credential."""
    from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415
    from urllib.parse import urlsplit  # noqa: PLC0415

    where = urlsplit(url)
    kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
    connection = kind(where.netloc, timeout=ANSWER_SECONDS)
    headers = {"host": where.netloc, "connection": "close"}  # the host as it was signed, whatever its port
    if token:
        headers["authorization"] = f"Bearer {token}"
    connection.request("GET", f"{where.path}?{where.query}" if where.query else where.path, headers=headers)
    answer = connection.getresponse()
    if token and answer.status in _REDIRECTS:
        answer.close()
        return _open(answer.headers["location"])
    return answer


def _check_status(answer: HTTPResponse, digest: str) -> None:
    if answer.status == _OK:
        return
    said = answer.read(300).decode(errors="replace").strip()
    if answer.status == _NOT_FOUND:
        message = f"the code store has no archive {digest[:12]}; change the Function, and it is fetched again"
        raise InitError("Runtime.CodeNotFound", message)
    if answer.status in _REFUSED:
        raise InitError("Runtime.CodeRefused", f"the code store refuses this pod ({said}). {_SECRET}")
    raise OSError(f"the store answers {answer.status}: {said}")


def _find_libraries(env: Mapping[str, str]) -> None:
    """Start anew where there are shared libraries: the loader reads LD_LIBRARY_PATH once, and workers of Python's are forks of this process."""
    folders = [f"{env.get('WISP_CODE_DIR') or '/var/task'}/lib", f"{env.get('WISP_OPT_DIR') or '/opt'}/lib"]
    found = [folder for folder in folders if os.path.isdir(folder)]  # noqa: PTH112
    if not found or env.get("WISP_WORKER"):  # a program's workers get it at their own start
        return
    fresh = {name: value for name, value in env.items() if name != "WISP_CODE_URL"}
    fresh["LD_LIBRARY_PATH"] = ":".join([*filter(None, [env.get("LD_LIBRARY_PATH")]), *found])
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], fresh)  # noqa: S606 - ourselves
