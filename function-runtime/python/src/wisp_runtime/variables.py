"""The variables that come from Secrets, as the files beside the process say them now.

A container gets its variables once, from the kubelet. The operator has the Secrets mounted, too, which the kubelet keeps up to
date, and tells in WISP_ENV how it would make the variables: ``from``, the whole objects in their order (``at``, their folder;
``prefix``; ``optional``), then ``env``, the single ones in theirs (``name`` and ``at`` with ``key`` and ``optional``, or a
``value`` that may name others, or neither: what the container has got).

Invariant: what ``read`` returns is what the kubelet would give a container that it starts now, for all variables that depend on
a Secret and no others; where it would start none, ``read`` says why.
"""

from __future__ import annotations

import os

from wisp_runtime.encoding import read_json
from wisp_runtime.lean import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FOLDER = "/etc/wisp/env"
_LINK = "..data"  # what the kubelet sets to another folder when it has written a change whole
_PLATFORM = ("WISP_", "K_")
_OWN = ("PORT", "LD_LIBRARY_PATH")  # Knative's, and what the process itself was started with


class VariablesError(Exception):
    """Raised when the kubelet would start no container with what is there."""


class Variables:
    """How a container's variables are made.

    Attributes:
        names: Those that depend on a Secret, as far as the processes have them.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        """Take the operator's word from the environment, and what the container has got."""
        told = read_json(env["WISP_ENV"])
        self._folder = env.get("WISP_ENV_DIR") or FOLDER
        self._from: list[dict[str, Any]] = told.get("from", [])
        self._env: list[dict[str, Any]] = told.get("env", [])
        self._got = dict(env)
        places = [source["at"] for source in [*self._from, *self._env] if "at" in source]
        self._places = list(dict.fromkeys(places))
        # The container has started, so a Secret that it needs was there: without keys it was empty.
        self._empty = {place for place in self._places if not self._files(place)}
        self._keep_config_maps()
        self.names: set[str] = set()
        with suppress(VariablesError):  # of a Secret that goes just now: its variables stay
            self.names = {*self.read()}

    def _keep_config_maps(self) -> None:
        """Give each source that is a ConfigMap its values of the start: a changed one makes a new revision."""
        before: dict[str, bytes] = {}
        for source in self._from:
            place, prefix = source["at"], source.get("prefix", "")
            files = self._files(place)
            if not _is_secret(place):
                files = {key: value for key, value in files.items() if self._is_made(prefix + key, value, before)}
                source["values"] = files
            before |= {prefix + key: value for key, value in files.items()}

    def _is_made(self, name: str, value: bytes, before: dict[str, bytes]) -> bool:
        """Whether a ConfigMap's value made a variable: its ``binaryData`` is mounted, too, and makes none.

        Where that is text, it shows by what stands before it: the container has got that.
        """
        got = self._got.get(name)
        if got is None or not _is_text(value):
            return False
        has = got.encode(errors="surrogateescape")
        return value == has or before.get(name) != has

    def stamp(self) -> list[str]:
        """Return what is different after each change of the files."""
        stamps = []
        for place in self._places:
            try:
                stamps.append(os.readlink(f"{self._folder}/{place}/{_LINK}"))  # noqa: PTH115 - pathlib costs 10 ms at start
            except OSError:
                stamps.append("")
        return stamps

    def read(self) -> dict[str, str]:
        """Return the variables that depend on a Secret, with the values that they would have now.

        Raises:
            VariablesError: A Secret or a key is missing that the Function needs, or a value is none for a variable.
        """
        files = {place: self._files(place) for place in self._places if _is_secret(place)}
        self._empty -= {place for place, found in files.items() if found}
        made: dict[str, str] = {}
        secret: set[str] = set()
        for source in self._from:
            place = source["at"]
            self._take_whole(source, files[place] if _is_secret(place) else source["values"], made, secret)
        for variable in self._env:
            self._take_single(variable, files, made, secret)
        return {name: made[name] for name in sorted(secret) if name in made and _is_users(name)}

    def _take_whole(
        self, source: dict[str, Any], files: dict[str, bytes], made: dict[str, str], secret: set[str]
    ) -> None:
        """Make a variable of each key of an object."""
        place = source["at"]
        if not files and _is_secret(place) and place not in self._empty and not source.get("optional"):
            raise VariablesError(f"{_called(place)} is missing, or empty")
        for key, value in files.items():
            name = source.get("prefix", "") + key
            made[name] = _text(value, place, key)
            (secret.add if _is_secret(place) else secret.discard)(name)

    def _take_single(
        self, variable: dict[str, Any], files: dict[str, dict[str, bytes]], made: dict[str, str], secret: set[str]
    ) -> None:
        """Make one variable."""
        name, place, key = variable["name"], variable.get("at"), variable.get("key", "")
        if place is not None:
            value = files[place].get(key)
            if value is not None:
                made[name] = _text(value, place, key)
                secret.add(name)
            elif not variable.get("optional"):
                raise VariablesError(f"{_called(place)} has no key {key}")
        elif "value" in variable:
            made[name], named = expand(variable["value"], made, self._got)
            (secret.discard if secret.isdisjoint(named) else secret.add)(name)
        elif name in self._got:
            made[name] = self._got[name]
            secret.discard(name)

    def _files(self, place: str) -> dict[str, bytes]:
        """Return an object's keys and values; none where it isn't there."""
        folder = f"{self._folder}/{place}/{_LINK}"
        found = {}
        try:
            for key in sorted(os.listdir(folder)):  # noqa: PTH208 - pathlib costs 10 ms at start
                with open(f"{folder}/{key}", "rb") as file:  # noqa: PTH123
                    found[key] = file.read()
        except OSError:
            return {}  # gone, or replaced meanwhile, which is looked at again
        return found


def expand(text: str, made: Mapping[str, str], got: Mapping[str, str]) -> tuple[str, set[str]]:
    """Put variables in the place of ``$(NAME)``, as Kubernetes does, and say which were named; ``$$`` is one ``$``.

    Those that nobody has made stay as they are written, but for services' addresses and the platform's own, which only the container has got.
    """
    result: list[str] = []
    named: set[str] = set()
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        result.append(text[at:dollar])
        sign, end = text[dollar + 1], text.find(")", dollar)
        if sign == "$":
            result.append("$")
            at = dollar + 2
        elif sign == "(" and end > 0:
            name = text[dollar + 2 : end]
            named.add(name)
            service = got.get(name) if name.startswith(("KUBERNETES_", "WISP_")) else None
            result.append(made.get(name, service if service is not None else text[dollar : end + 1]))
            at = end + 1
        else:
            result.append(text[dollar : dollar + 2])
            at = dollar + 2
    result.append(text[at:])
    return "".join(result), named


def _text(value: bytes, place: str, key: str) -> str:
    """Return a value as a variable has it."""
    if not _is_text(value):
        raise VariablesError(f"{_called(place)}, key {key}: its value is none for a variable")
    return value.decode()


def _is_text(value: bytes) -> bool:
    """Whether a variable can have a value."""
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def _is_secret(place: str) -> bool:
    return place.startswith("secrets/")


def _called(place: str) -> str:
    """Call an object as a user does."""
    kind, _, name = place.partition("/")
    return f"the {'Secret' if kind == 'secrets' else 'ConfigMap'} {name}"


def _is_users(name: str) -> bool:
    """Whether a variable is the user's to set, and the kubelet takes its name."""
    return not (name.startswith(_PLATFORM) or name in _OWN or name[:1].isdigit())
