"""Many patterns at once: which of them an event matches, at a cost that grows slower than their number.

Of each pattern one condition that must hold is taken as its anchor: a field that is one of some values, or begins or ends with one of some texts.
Anchors stand in dictionaries by field and value, so that an event's own values lead to the patterns that it could match; only these are tried. Of a
pattern's conditions the one that it shares with the fewest others is the anchor: of a thousand patterns on one type and each its own customer, the customer.
A pattern without such a condition (numbers' ranges, `$or`, `exists`, `anything-but`) is tried each time.

Invariant: the index tells exactly what each pattern tells by itself; an anchor leaves out no event that matches.
How it could fail: a condition is taken for necessary that is not. So only lists are taken whose every alternative is anchored, and never inside `$or`.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from wisp_api.cloudevent import NOT_READABLE, Event
from wisp_api.document import make_document, merged
from wisp_api.pattern import Matcher, keyed
from wisp_api.steps import Steps, TooComplex

Key = TypeVar("Key", bound=Hashable)
Judged = TypeVar("Judged")
Path = tuple[str, ...]


class Probe(NamedTuple):
    """What of a value is looked up."""

    kind: str
    """exact, fold (without regard to case), prefix or suffix."""
    length: int = 0
    """Of the prefix or suffix."""

    def of(self, value: Any) -> Any:
        """The part of a value that stands in the dictionary."""
        if self.kind == "exact":
            return keyed(value)
        if not isinstance(value, str):
            return self  # stands in none
        if self.kind == "fold":
            return value.casefold()
        return value[: self.length] if self.kind == "prefix" else value[len(value) - self.length :]


class Place(NamedTuple):
    """One entry of the dictionaries."""

    path: Path
    probe: Probe
    value: Any


Anchor = list[Place]
"""Places of one field, at one of which an event must be found to match."""


class Index(Generic[Key]):
    """Patterns by their anchors; made anew when one changes."""

    def __init__(self, entries: Iterable[tuple[Key, Matcher, Sequence[Mapping[str, Any]]]]) -> None:
        """Each with the patterns that its matcher was compiled from."""
        self._matchers: dict[Key, Matcher] = {}
        self._places: dict[Path, dict[Probe, dict[Any, list[Key]]]] = {}
        self._always: list[Key] = []
        found: dict[Key, list[Anchor]] = {}
        for key, matcher, patterns in entries:
            self._matchers[key] = matcher
            found[key] = [anchor for pattern in patterns for anchor in _anchors(pattern, ())]
        shared = Counter(place for anchors in found.values() for anchor in anchors for place in anchor)
        for key, anchors in found.items():
            best = min(anchors, key=lambda anchor: sum(shared[place] for place in anchor), default=None)
            if best is None:
                self._always.append(key)
            for path, probe, value in best or []:
                self._places.setdefault(path, {}).setdefault(probe, {}).setdefault(value, []).append(key)
        self._names = merged(matcher.names for matcher in self._matchers.values())

    def __call__(self, event: Event) -> list[Key]:
        """Those whose patterns the event matches, and those that can't tell because its data is not JSON, or too much."""
        try:
            document = make_document(event, self._names)
        except NOT_READABLE:
            return [key for key, matcher in self._matchers.items() if _may(matcher, event)]
        try:
            candidates = self._candidates(document)
        except TooComplex:
            return list(self._matchers)
        return [key for key in candidates if _may(self._matchers[key].fits, document)]

    def _candidates(self, document: Mapping[str, Any]) -> Iterable[Key]:
        """Those of which the event holds the anchor; raises `TooComplex` where it has too much to be looked up."""
        found, steps = dict.fromkeys(self._always), Steps()
        for path, probes in self._places.items():
            for value in _values(document, path, steps):
                steps.take(len(probes))
                for probe, places in probes.items():
                    found |= dict.fromkeys(places.get(probe.of(value), ()))
        return found


def _may(judge: Callable[[Judged], bool], what: Judged) -> bool:
    """What a matcher says; true where it can't tell."""
    try:
        return judge(what)
    except NOT_READABLE:
        return True


def _anchors(pattern: Mapping[str, Any], path: Path) -> Iterator[Anchor]:
    """Conditions of a pattern that must hold and can be looked up."""
    for name, below in pattern.items():
        if name == "$or":
            continue
        if isinstance(below, Mapping):
            yield from _anchors(below, (*path, name))
            continue
        places = [_place((*path, name), condition) for condition in below]
        if None not in places:
            yield list(dict.fromkeys(place for place in places if place))


def _place(path: Path, condition: Any) -> Place | None:
    """Where a value or operator stands; None for what can't be looked up."""
    if not isinstance(condition, Mapping):
        return Place(path, Probe("exact"), keyed(condition))
    ((name, argument),) = condition.items()
    if name == "equals-ignore-case":
        return Place(path, Probe("fold"), argument.casefold())
    if name in ("prefix", "suffix") and isinstance(argument, str) and argument:
        return Place(path, Probe(name, len(argument)), argument)
    return None


def _values(document: Any, path: Path, steps: Steps) -> Iterator[Any]:
    """Every scalar that a pattern's condition at this path could look at."""
    left = [(document, 0)]
    while left:
        value, depth = left.pop()
        steps.take(1)
        if isinstance(value, list):
            left += [(element, depth) for element in value]
        elif depth == len(path):
            if not isinstance(value, dict):
                yield value
        elif isinstance(value, dict) and path[depth] in value:
            left.append((value[path[depth]], depth + 1))
