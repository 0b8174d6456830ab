"""uv as a Job uses it: one package index, wheels only, no settings but these, and its words as a verdict.

Invariant: credentials reach it by its environment, never by an argument, a file or a log line of ours.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from wisp_api import conditions

from wisp_events.code.job import Transient
from wisp_events.sources.reader import Trouble, read_connection

_SECONDS: Final = 240
_LOCK: Final = "requirements.lock"
_ALIAS: Final = "wisp"
"""What uv calls the index, and with it the variables of its credentials."""
_SYSTEM_CA: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_URL: Final = re.compile(r"https?://[^\s?#]+")
_REFUSED: Final = re.compile(r"\((401|403) |lack of valid authentication")
_AWAY: Final = re.compile(
    r"error sending request|[Oo]peration timed out|\((429|50[0234]) |connection closed|broken pipe"
)
_OPTIONS: Final = {
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_KEYRING_PROVIDER": "disabled",
    "UV_HTTP_RETRIES": "1",
    "UV_HTTP_TIMEOUT": "30",
    "UV_CONCURRENT_DOWNLOADS": "4",
    "NO_COLOR": "1",
}


class Index(NamedTuple):
    """A package index, and how to get in."""

    url: str
    secret: str
    """Name of the Secret with the rest."""
    username: str = ""
    password: str = ""
    authority: str = ""
    """Of its certificate, where the system doesn't know it."""


def read_index(url: str, secret: str, folder: Path) -> Index:
    """The installation's index, or the one of the namespace's Secret.

    Raises:
        Trouble: its address is none.
    """
    held = read_connection(folder)
    url = held.get("url") or url
    if not _URL.fullmatch(url):
        told = (
            f"key url of Secret {secret} is no address"
            if held.get("url")
            else "the chart value packageIndex.url is no address"
        )
        raise Trouble(conditions.INVALID_CONNECTION, f"{told}; write http(s)://host/path")
    return Index(url, secret, held.get("username", ""), held.get("password", ""), held.get("ca.crt", ""))


class Resolver:
    """uv, with a folder for its files and an index."""

    def __init__(self, folder: Path, program: str, index: Index) -> None:
        """Write what it is to trust."""
        self._folder = folder
        self._program = program
        self._index = index
        self._environment = _OPTIONS | {
            "HOME": str(folder),
            "UV_CACHE_DIR": str(folder / "cache"),
            "UV_DEFAULT_INDEX": f"{_ALIAS}={index.url}",
        }
        if index.username or index.password:
            self._environment |= {
                f"UV_INDEX_{_ALIAS.upper()}_USERNAME": index.username,
                f"UV_INDEX_{_ALIAS.upper()}_PASSWORD": index.password,
            }
        known = _SYSTEM_CA.read_text() if _SYSTEM_CA.exists() else ""
        if known or index.authority:
            trusted = folder / "ca.crt"
            trusted.write_text(f"{known}\n{index.authority}\n")
            self._environment["SSL_CERT_FILE"] = str(trusted)

    def lock(self, requirements: Sequence[str]) -> str:
        """Choose a version of each package and of what it needs, with the hashes that the index states.

        Raises:
            Trouble, Transient: there is no such choice, or the index is away.
        """
        (self._folder / "requirements").write_text("".join(f"{one}\n" for one in requirements))
        options = ["--generate-hashes", "--no-header", "--no-annotate", "--output-file", _LOCK, "requirements"]
        if said := self._run("compile", *options):
            raise self._verdict(conditions.RESOLUTION_FAILED, said)
        return (self._folder / _LOCK).read_text()

    def install(self, target: Path) -> None:
        """Install what was chosen, each wheel only with one of its hashes.

        Raises:
            Trouble, Transient: a wheel is another one than the index says, or the index is away.
        """
        said = self._run("install", "--require-hashes", "--no-deps", "--target", target.name, "--requirement", _LOCK)
        if said:
            mismatch = "Hash mismatch" in said
            raise self._verdict(conditions.HASH_MISMATCH if mismatch else conditions.BUILD_FAILED, said)

    def _run(self, command: str, *options: str) -> str:
        """What it says where it fails; empty where it does what it should."""
        arguments = [self._program, "pip", command, "--quiet", "--python", sys.executable, "--only-binary", ":all:"]
        try:
            done = subprocess.run(
                [*arguments, *options],
                env=self._environment,
                cwd=self._folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"operation timed out: it took longer than {_SECONDS} s"
        if done.returncode == 0:
            return ""
        said = " ".join(done.stderr.replace(str(self._folder), "").split())
        password = self._index.password
        return (said.replace(password, "****") if password else said) or f"uv ended with status {done.returncode}"

    def _verdict(self, reason: str, said: str) -> Exception:
        """What its words mean, and where it isn't the requirements themselves, the cure."""
        host = urlsplit(self._index.url).hostname
        if _REFUSED.search(said):
            cure = f"put the right username and password into Secret {self._index.secret} of this namespace"
            return Trouble(
                conditions.AUTHENTICATION_FAILED, f"the package index {host} wants other credentials: {cure}. {said}"
            )
        if _AWAY.search(said):
            return Transient(conditions.INDEX_UNREACHABLE, f"the package index {host} does not answer: {said}")
        return Trouble(reason, said.removeprefix("error: "))
