"""What patterns look at of an event: its attributes, and of its data what stands under the names of the patterns.

Data up to WHOLE_BYTES is decoded as it is. Of longer data what no pattern names is checked and skipped; of the rest no more is decoded than
takes a fraction of a second, since all routes of a router wait meanwhile.

Invariant: no pattern of those given can tell the document from the whole event.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from wisp_api.cloudevent import Event
from wisp_api.steps import TooComplex

WHOLE_BYTES: Final = 128 * 1024
CONTAINERS: Final = 100_000
"""Objects and arrays that are decoded of longer data."""
VALUES: Final = 500_000
"""Members and elements that are decoded of longer data."""
FIELDS: Final = frozenset(Event.__struct_fields__) - {"data", "data_base64", "extensions"}

Names = dict[str, "Names | None"]
"""What patterns name of an object, and below each name; None: all that is there."""

_TOO_MUCH: Final = (
    f"where the filter looks it has more than {CONTAINERS:,} objects and arrays, or {VALUES:,} values; "
    "filter on attributes or on names beside that, or send it in smaller events"
)
_decoder = msgspec.json.Decoder()
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = re.compile(rb'"[^"]*"')


def named(patterns: Iterable[Mapping[str, Any]]) -> Names:
    """What well-formed patterns look at."""
    found: Names = {}
    for pattern in patterns:
        for name, below in _fields(pattern):
            if not isinstance(below, Mapping):
                found[name] = None
            elif name not in found:
                found[name] = named([below])
            elif (other := found[name]) is not None:
                found[name] = merged([other, named([below])])
    return found


def merged(all_names: Iterable[Names]) -> Names:
    """What any of them names."""
    found: Names = {}
    for names in all_names:
        for name, below in names.items():
            other = found.get(name, {})
            found[name] = None if below is None or other is None else merged([other, below])
    return found


def make_document(event: Event, names: Names) -> dict[str, Any]:
    """What patterns that look at `names` see: the attributes that the event has, and its data where that is wanted.

    Raises:
        ValueError: `data` is not JSON, or too much.
    """
    document: dict[str, Any] = dict(event.extensions)
    document |= {name: value for name in FIELDS if (value := getattr(event, name)) is not None}
    if "data" in names and event.data is not None:
        whole = memoryview(event.data).nbytes <= WHOLE_BYTES
        document["data"] = _decoder.decode(event.data) if whole else _decode(event.data, names["data"])
    return document


def is_light(raw: msgspec.Raw) -> bool:
    """Whether all of the data may be decoded at once."""
    return memoryview(raw).nbytes <= WHOLE_BYTES or _is_light(bytes(raw))


def _fields(pattern: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names of a pattern and what stands below, those inside `$or` included."""
    for name, below in pattern.items():
        if name == "$or":
            for branch in below:
                yield from _fields(branch)
        else:
            yield name, below


def _decode(raw: msgspec.Raw, names: Names | None) -> Any:
    content = bytes(raw)
    if names is not None and content.lstrip().startswith(b"{"):
        members = _members.decode(content)
        return {name: _decode(members[name], below) for name, below in names.items() if name in members}
    if not _is_light(content):
        raise TooComplex(_TOO_MUCH)
    return _decoder.decode(content)


def _is_light(content: bytes) -> bool:
    """Whether JSON has few enough values, counted by their marks outside of strings."""
    if _is_few(content):
        return True
    content = content.replace(rb"\\", b"").replace(rb"\"", b"")
    return content.count(b'"') <= 2 * VALUES and _is_few(_STRING.sub(b"", content))


def _is_few(content: bytes) -> bool:
    return content.count(b"[") + content.count(b"{") <= CONTAINERS and content.count(b",") <= VALUES
