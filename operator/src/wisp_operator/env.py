"""ConfigMaps that Functions take variables from: which they are, and what of them a revision depends on.

A revision's pods read them when they start, so a change has to make a new revision. Its name follows from the values that the Function uses
and from nothing else: another label, another key or the same text written again is the same revision. Invariant: a change that comes after a
Function has read its ConfigMaps queues it, because it is named here before it reads, and what it read is kept for each Function.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from wisp_api.function import FunctionSpec

from wisp_operator.api import CONFIG_MAPS, Api, Object
from wisp_operator.apply import digest
from wisp_operator.keys import FunctionKey

GONE: Final = ""
"""The version of a ConfigMap that isn't there."""


def named_config_maps(spec: FunctionSpec) -> set[str]:
    """Names of the ConfigMaps that variables come from."""
    sources = [variable.value_from for variable in spec.env or [] if variable.value_from]
    named = {source.config_map_key_ref.name for source in sources if source.config_map_key_ref}
    return named | {source.config_map_ref.name for source in spec.env_from or [] if source.config_map_ref}


def env_digest(spec: FunctionSpec, held: Mapping[str, Object | None]) -> str:
    """A hash of the values that the Function takes from ConfigMaps; empty where it names none."""
    if not named_config_maps(spec):
        return ""
    data = {name: (item or {}).get("data", {}) for name, item in held.items()}
    sources = [variable.value_from for variable in spec.env or [] if variable.value_from]
    keys = [source.config_map_key_ref for source in sources if source.config_map_key_ref]
    values = [data.get(key.name, {}).get(key.key) for key in keys]
    return digest([values, [data.get(all_.config_map_ref.name) for all_ in spec.env_from or [] if all_.config_map_ref]])


class EnvObjects:
    """Which Functions read which ConfigMaps, and which versions of them they have read."""

    def __init__(self) -> None:
        """Nobody reads any."""
        self._read: dict[FunctionKey, dict[str, str]] = {}
        self._readers: defaultdict[tuple[str, str], set[FunctionKey]] = defaultdict(set)
        self.some = asyncio.Event()
        """Set while there is one to watch."""

    async def read(self, api: Api, key: FunctionKey, names: set[str]) -> dict[str, Object | None]:
        """The ConfigMaps, from now on watched for this Function.

        Raises:
            ApiError: the API refused.
        """
        self.name(key, names)
        held = {name: await api.get(CONFIG_MAPS, key.namespace, name) for name in sorted(names)}
        if names:
            versions = {name: item["metadata"]["resourceVersion"] if item else GONE for name, item in held.items()}
            self._read[key] = versions
        return held

    def name(self, key: FunctionKey, names: set[str]) -> None:
        """Watch these for the Function, and no others any more."""
        for name in self._read.get(key, {}).keys() - names:
            readers = self._readers[key.namespace, name]
            readers.discard(key)
            if not readers:
                del self._readers[key.namespace, name]
        for name in names:
            self._readers[key.namespace, name].add(key)
        known = self._read.pop(key, {})
        if names:
            self._read[key] = {name: known.get(name, GONE) for name in names}
        if self._readers:
            self.some.set()
        else:
            self.some.clear()

    def behind(self, namespace: str, name: str, version: str) -> list[FunctionKey]:
        """The Functions that have read another version of a ConfigMap than this."""
        readers = self._readers.get((namespace, name), ())
        return [key for key in readers if self._read[key][name] != version]
