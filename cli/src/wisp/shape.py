"""A value that a person wrote, checked against a type of `wisp_api`: the first mistake, with its path.

msgspec finds wrong types and values but ignores fields that it doesn't know, which is how a typing mistake looks; they are looked for
here, and the nearest known name is offered.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from wisp.errors import UsageError


def check(struct: type[msgspec.Struct], value: Mapping[str, Any], where: str) -> None:
    """Refuse a value that isn't of the type; `where` is the path of the value itself.

    Raises:
        UsageError: naming the path and what to write.
    """
    shape = inspect.type_info(struct)
    for path, known, name in _unknown(shape, value, where):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(known)}"
        raise UsageError(f"{path}.{name}: there is no such field; {hint}")
    try:
        msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        inner = path.rstrip("`")
        raise UsageError(f"{where}{inner}: {_sentence(message, _at(shape, inner))}") from None


def _unknown(shape: inspect.Type, value: Any, path: str) -> Iterator[tuple[str, list[str], str]]:
    """(path, known names, name) of each field that its type doesn't have."""
    for choice in _choices(shape):
        if isinstance(choice, inspect.StructType) and isinstance(value, dict):
            fields = {field.encode_name: field.type for field in choice.fields}
            for name, item in value.items():
                if name in fields:
                    yield from _unknown(fields[name], item, f"{path}.{name}")
                else:
                    yield path, list(fields), str(name)
        elif isinstance(choice, inspect.ListType) and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _unknown(choice.item_type, item, f"{path}[{index}]")


def _choices(shape: inspect.Type) -> Iterator[inspect.Type]:
    """What a value of the type may be, without its metadata."""
    if isinstance(shape, inspect.Metadata):
        yield from _choices(shape.type)
    elif isinstance(shape, inspect.UnionType):
        for one in shape.types:
            yield from _choices(one)
    else:
        yield shape


def _at(shape: inspect.Type, path: str) -> list[Any]:
    """The literal values that the type takes at a path like `.source.bucket.events[...]`; empty where it takes others."""
    found = [shape]
    for name in path.replace("[...]", ".[]").split(".")[1:]:
        below: list[inspect.Type] = []
        for choice in (choice for one in found for choice in _choices(one)):
            if isinstance(choice, inspect.StructType):
                below += [field.type for field in choice.fields if field.encode_name == name]
            elif isinstance(choice, inspect.ListType):
                below.append(choice.item_type)
        found = below
    return [value for one in found for choice in _choices(one) for value in getattr(choice, "values", ())]


def _sentence(message: str, literals: list[Any]) -> str:
    """What msgspec says, with the values that would be right, where there are only some."""
    return f"{message}; write one of {', '.join(map(str, literals))}" if literals else message
