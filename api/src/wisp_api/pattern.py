"""Event patterns: what of a source a Subscription wants, in the language of Amazon EventBridge.

A pattern has the shape of the events it matches: attributes at the top, `data` with the content below. A name maps to a
list of values and operators, one of which must match, or to a pattern for the object below; all names must match.
Operators: `prefix`, `suffix`, `equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`, `cidr`, and `$or`
in place of a name. Specification: "Comparison operators for use in event patterns", Amazon EventBridge User Guide.

Where an event holds an array, a list matches if one element does, and an object pattern if one element matches all of it.
A path that leads through something else than an object is absent. Unlike EventBridge, numbers have no bounds, and `$or`
is never a plain name.

Invariant: compiling finds every mistake, so that matching raises only for `data` that is not JSON, or too much of it. `data` is
parsed only where a pattern looks at it, once for all patterns. An array's values cost no call each, but where an operator tests them. What
matching costs is bounded (`wisp_api.steps`).
"""

import ipaddress
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from wisp_api.cloudevent import Event
from wisp_api.document import FIELDS, Names, make_document, named
from wisp_api.steps import CONDITIONS, LEVELS, STEPS, Steps

_ABSENT: Final = object()
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
}
_NESTED: Final = {list, dict}
_CALL: Final = 8
"""Steps that a name takes, or an object."""
_PASSED: Final = 8
"""So many elements are told from their types in one step."""
_PATH: Final = 200
"""Characters of a path that are told where it is too long."""
_CIDR: Final = 40
"""Steps until a text is read as an address."""

_Match = Callable[[Any], bool]
"""Tells whether a value (or `_ABSENT`) matches."""


class PatternError(ValueError):
    """Raised when a pattern is wrong; the message begins with the path of the mistake."""

    def __init__(self, path: str, message: str) -> None:
        """`path` as `data.new.total[0].numeric`."""
        super().__init__(f"{path or 'the pattern'}: {message}")
        self.path = path


class Matcher:
    """Compiled patterns; an event matches when all of them match."""

    def __init__(self, attributes: list[tuple[str, _Match]], whole: list[_Match], names: Names, steps: Steps) -> None:
        """Made by `compile`."""
        self._steps = steps
        self._attributes = attributes
        self._whole = whole
        self.names = names
        """What the patterns look at."""

    def __call__(self, event: Event) -> bool:
        """Tell whether the event matches.

        Raises:
            ValueError: `data` is not JSON, or too much.
        """
        self._steps.left = STEPS
        if not all(match(_attribute(event, name)) for name, match in self._attributes):
            return False
        if not self._whole:
            return True
        document = make_document(event, self.names)
        return all(match(document) for match in self._whole)

    def fits(self, document: Mapping[str, Any]) -> bool:
        """Tell the same of an event as `make_document` returns it; raises `TooComplex` where it is too much."""
        self._steps.left = STEPS
        if not all(match(document.get(name, _ABSENT)) for name, match in self._attributes):
            return False
        return all(match(document) for match in self._whole)


def compile(*patterns: Mapping[str, Any]) -> Matcher:  # noqa: A001 - as in `re.compile`
    """Compile patterns; without any, everything matches.

    Raises:
        PatternError: naming the path of the first mistake.
    """
    steps = Steps()
    attributes: list[tuple[str, _Match]] = []
    whole: list[_Match] = []
    matches = [_object(pattern, "", steps) for pattern in patterns]
    steps.conditions = 0  # attributes are compiled once more, by themselves
    for pattern, match in zip(patterns, matches, strict=True):
        names = named([pattern])
        for name in sorted(names):
            if name != "data" and not _ATTRIBUTE.fullmatch(name):
                raise PatternError(name, "is no CloudEvents attribute; write an attribute (a-z, 0-9) or `data`")
        if "data" in names or "$or" in pattern:
            whole.append(match)
        for name, below in pattern.items():
            if name not in ("data", "$or"):
                attributes.append((name, _field(below, name, steps)))
    return Matcher(attributes, whole, named(patterns), steps)


def _count(conditions: int, steps: Steps) -> None:
    """Count what is compiled, and go no further where it is too much: who compiles has others to see to."""
    steps.conditions += conditions
    if steps.conditions > CONDITIONS:
        raise PatternError("", f"has more than {CONDITIONS} names and operators; write several Subscriptions")


def _attribute(event: Event, name: str) -> Any:
    if name in FIELDS:
        value = getattr(event, name)
        return _ABSENT if value is None else value
    return event.extensions.get(name, _ABSENT)


def _object(pattern: Any, path: str, steps: Steps) -> _Match:
    """A pattern for an object: all names match; of an array of objects one element does."""
    if not isinstance(pattern, Mapping):
        raise PatternError(path, f"is {_shown(pattern)}; write an object of names")
    if not pattern:
        raise PatternError(path, "is empty; name what must match, or leave it out")
    fields: list[tuple[str, _Match]] = []
    alternatives: list[_Match] = []
    steps.level += 1
    if steps.level > LEVELS:
        raise PatternError(path[:_PATH], f"has more than {LEVELS} objects in one another; name less of the path")
    for name, below in pattern.items():
        if name == "$or":
            alternatives.append(_or(below, _join(path, name), steps))
        else:
            _count(1, steps)
            fields.append((name, _field(below, _join(path, name), steps)))
    steps.level -= 1
    size = _CALL * (1 + len(fields))

    def holds(content: dict[str, Any]) -> bool:
        steps.take(size)
        return all(m(content.get(name, _ABSENT)) for name, m in fields) and all(m(content) for m in alternatives)

    def match(value: Any) -> bool:
        if not isinstance(value, list):
            return holds(value if isinstance(value, dict) else {})
        objects, bare = _elements(value, steps)
        return any(map(holds, objects)) or (bare and holds({}))

    return match


def _elements(array: list[Any], steps: Steps) -> tuple[list[dict[str, Any]], bool]:
    """The objects in an array, however deep in arrays, and whether it has elements without names, or an array without elements."""
    objects, bare, arrays, passed = [], False, [array], 0
    while arrays:
        elements = arrays.pop()
        passed += _PASSED + len(elements)
        kinds = set(map(type, elements))
        bare = bare or not elements or not kinds <= _NESTED
        for element in elements if kinds & _NESTED else ():
            if type(element) is list:
                arrays.append(element)
            elif element and type(element) is dict:
                objects.append(element)
            else:
                bare = True
    steps.take(passed // _PASSED)
    return objects, bare


def _or(branches: Any, path: str, steps: Steps) -> _Match:
    if not isinstance(branches, list) or len(branches) < 2:  # noqa: PLR2004 - an alternative has two sides
        raise PatternError(path, "write a list of two or more patterns")
    matches = [_object(branch, f"{path}[{index}]", steps) for index, branch in enumerate(branches)]
    return lambda value: any(match(value) for match in matches)


def _field(below: Any, path: str, steps: Steps) -> _Match:
    if isinstance(below, Mapping):
        return _object(below, path, steps)
    if not isinstance(below, list):
        raise PatternError(path, f"is {_shown(below)}; write a list of values, [{_shown(below)}], or a pattern object")
    return _leaf(below, path, steps)


def _leaf(conditions: list[Any], path: str, steps: Steps) -> _Match:
    """A list: one of its values or operators matches one of the field's values."""
    if not conditions:
        raise PatternError(path, "is an empty list, which matches nothing; write the values wanted")
    wanted: set[Any] = set()
    tests: list[_Match] = []
    absent, each = False, 0
    for index, condition in enumerate(conditions):
        place = f"{path}[{index}]"
        if isinstance(condition, Mapping):
            name, argument = _operator(condition, place)
            if name == "exists":
                if not isinstance(argument, bool):
                    raise PatternError(f"{place}.exists", "write true or false")
                absent |= not argument
                tests += [_always] if argument else []
            else:
                tests.append(_OPERATORS[name](argument, f"{place}.{name}"))
            _count(size := _size(argument), steps)
            each += size * (_CIDR if name == "cidr" else 1)
        else:
            wanted.add(_exact(condition, place))

    def match(value: Any) -> bool:
        leaves = _leaves(value, steps)
        if not leaves:
            return absent
        steps.try_on(each, leaves)
        if wanted and any(map(wanted.__contains__, map(keyed, leaves))):
            return True
        return any(any(map(test, leaves)) for test in tests)

    return match


def _size(argument: Any) -> int:
    """How many tests an operator is: of a list inside of `anything-but`, of comparisons, of what stands between `*`."""
    if isinstance(argument, Mapping):
        return sum(sum(map(_size, inner)) if isinstance(inner, list) else _size(inner) for inner in argument.values())
    if isinstance(argument, list):
        return 1 + sum(isinstance(one, str) and one in _COMPARISONS for one in argument)
    return 1 + argument.count("*") if isinstance(argument, str) else 1


def _always(_: Any) -> bool:
    return True


def _leaves(value: Any, steps: Steps) -> list[Any]:
    """The scalars of a value: itself, or those of an array, however deep in arrays."""
    if not isinstance(value, list):
        return [] if value is _ABSENT or isinstance(value, dict) else [value]
    leaves: list[Any] = []
    arrays, passed = [value], 0
    while arrays:
        elements = arrays.pop()
        passed += _PASSED + len(elements)
        if _NESTED.isdisjoint(map(type, elements)):
            leaves += elements
            continue
        arrays += [element for element in elements if type(element) is list]
        leaves += [element for element in elements if type(element) not in _NESTED]
    steps.take(passed // _PASSED)
    return leaves


def keyed(value: Any) -> Any:
    """A value so that `==` is JSON's equality: True is not 1, but 1 is 1.0."""
    return (value,) if isinstance(value, bool) else value


def _exact(value: Any, path: str) -> Any:
    if isinstance(value, list):
        raise PatternError(path, "is a list in a list; write the values in one list")
    return keyed(value)


def _operator(condition: Mapping[str, Any], path: str) -> tuple[str, Any]:
    known = [*_OPERATORS, "exists"]
    if len(condition) != 1:
        raise PatternError(path, f"has {len(condition)} operators; write one object for each")
    ((name, argument),) = condition.items()
    if name not in known:
        raise PatternError(f"{path}.{name}", f"is no operator; the operators are {', '.join(sorted(known))}")
    return name, argument


def _text(argument: Any, path: str) -> str:
    if not isinstance(argument, str):
        raise PatternError(path, f"is {_shown(argument)}; write a string")
    return argument


def _affix(method: Callable[[str, str], bool]) -> Callable[[Any, str], _Match]:
    """`prefix` or `suffix`, of a string or, ignoring case, of `{"equals-ignore-case": string}`."""

    def build(argument: Any, path: str) -> _Match:
        if isinstance(argument, Mapping):
            name, inner = _operator(argument, path)
            if name != "equals-ignore-case":
                raise PatternError(f"{path}.{name}", "write a string or {equals-ignore-case: string}")
            folded = _text(inner, f"{path}.{name}").casefold()
            return lambda value: isinstance(value, str) and method(value.casefold(), folded)
        wanted = _text(argument, path)
        return lambda value: isinstance(value, str) and method(value, wanted)

    return build


def _ignore_case(argument: Any, path: str) -> _Match:
    folded = _text(argument, path).casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _wildcard_parts(text: str, path: str) -> list[str]:
    """The literal texts between the `*`."""
    parts = [""]
    star = False
    for piece in re.findall(r"\\.?|\*|[^\\*]+", text, re.DOTALL):
        if piece == "*" and star:
            raise PatternError(path, "two `*` in a row; write one, or `\\*` for the character")
        star = piece == "*"
        if star:
            parts.append("")
        elif piece[0] == "\\" and piece not in ("\\*", "\\\\"):
            raise PatternError(path, f"`{piece}` is no escape; write `\\*` or `\\\\`")
        else:
            parts[-1] += piece.removeprefix("\\") if len(piece) > 1 else piece
    return parts


def _wildcard(argument: Any, path: str) -> _Match:
    """`*` stands for any characters. Each part is searched for once, so the time is bounded by length times parts."""
    parts = _wildcard_parts(_text(argument, path), path)
    first, *middle = parts
    if not middle:
        return lambda value: bool(value == first)
    last = middle.pop()

    def match(value: Any) -> bool:
        if not isinstance(value, str) or not value.startswith(first):
            return False
        position = len(first)
        for part in middle:
            position = value.find(part, position)
            if position < 0:
                return False
            position += len(part)
        return len(value) - position >= len(last) and value.endswith(last)

    return match


def _numeric(argument: Any, path: str) -> _Match:
    """`[">", 0, "<=", 5]`: one comparison or more, all of which hold."""
    if not isinstance(argument, list) or not argument or len(argument) % 2:
        raise PatternError(path, 'write comparisons, as [">", 0, "<=", 5]')
    tests = []
    for index in range(0, len(argument), 2):
        name, limit = argument[index : index + 2]
        if not isinstance(name, str) or name not in _COMPARISONS:
            raise PatternError(f"{path}[{index}]", f"is {_shown(name)}; the comparisons are {' '.join(_COMPARISONS)}")
        if not _is_number(limit):
            raise PatternError(f"{path}[{index + 1}]", f"is {_shown(limit)}; write a number")
        tests.append((_COMPARISONS[name], limit))

    def match(value: Any) -> bool:
        if not _is_number(value):
            return False
        for compare, limit in tests:  # noqa: SIM110 - a third of the time of `all`, for each of an array's values
            if not compare(value, limit):
                return False
        return True

    return match


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _cidr(argument: Any, path: str) -> _Match:
    try:
        network = ipaddress.ip_network(_text(argument, path), strict=False)
    except ValueError as error:
        raise PatternError(path, f"{error}; write an address and the length of its prefix, as 10.0.0.0/24") from None

    def match(value: Any) -> bool:
        try:
            return isinstance(value, str) and ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return match


def _anything_but(argument: Any, path: str) -> _Match:
    """A present value that is none of the scalars given, or that none of the strings given matches under an operator."""
    if isinstance(argument, Mapping):
        name, inner = _operator(argument, path)
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise PatternError(f"{path}.{name}", "takes prefix, suffix, equals-ignore-case or wildcard here")
        listed = inner if isinstance(inner, list) else [inner]
        tests = [_OPERATORS[name](one, f"{path}.{name}") for one in listed]
        if not tests:
            raise PatternError(f"{path}.{name}", "is an empty list; write what must not match")
        return lambda value: not any(test(value) for test in tests)
    listed = argument if isinstance(argument, list) else [argument]
    strings = all(isinstance(one, str) for one in listed)
    if not listed or not (strings or all(_is_number(one) for one in listed)):
        raise PatternError(path, "write a string, a number, a list of either, or one operator")
    unwanted = frozenset(listed)
    return lambda value: keyed(value) not in unwanted


_OPERATORS: Final[Mapping[str, Callable[[Any, str], _Match]]] = {
    "prefix": _affix(str.startswith),
    "suffix": _affix(str.endswith),
    "equals-ignore-case": _ignore_case,
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()
