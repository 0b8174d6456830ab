"""The reference of the resource types in Markdown: `python -m wisp_api.reference > docs/reference.md`.

It says what the CustomResourceDefinitions say, which say what the types say; a test compares the file with this output.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from wisp_api import crd

Schema = dict[str, Any]
_HEAD = """\
# Reference

Generated from the types in `api/src/wisp_api` by `python -m wisp_api.reference`. The same text is what
`kubectl explain functions.wisp.dev.spec` shows. A field marked *required* has to be written; the others have the default given,
or none. The rules under a table are what the API server insists on at apply time, in the words of its answer.
"""


def document() -> str:
    """The whole page."""
    return "\n\n".join(_blocks()) + "\n"


def _blocks() -> Iterator[str]:
    """The page's paragraphs, headings, tables and lists."""
    yield _HEAD.strip()
    for definition in crd.crds():
        (version,) = definition["spec"]["versions"]
        schema, named = version["schema"]["openAPIV3Schema"], definition["spec"]["names"]
        yield f"## {named['kind']}"
        yield schema["description"]
        short = ", ".join(f"`{name}`" for name in named["shortNames"])
        yield f"`apiVersion: {definition['spec']['group']}/{version['name']}`, short name {short}."
        yield from _rules(schema, "Rules:")
        for part in ("spec", "status"):
            yield from _sections(part, schema["properties"][part])


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """The table of an object and, behind it, those of the objects in it."""
    yield f"### {path}"
    if "description" in schema:
        yield schema["description"]
    required = schema.get("required", [])
    rows = ["| Field | Type | Meaning |", "| --- | --- | --- |"]
    for name, field in schema["properties"].items():
        mark = " *required*" if name in required else ""
        rows.append(f"| `{name}`{mark} | {_type(field)} | {_cell(field.get('description', ''))} |")
    yield "\n".join(rows)
    yield from _rules(schema, "Rules:")
    for name, field in schema["properties"].items():
        inner, suffix = field, ""
        while inner.get("type") == "array":
            inner, suffix = inner["items"], f"{suffix}[]"
        if "properties" in inner:
            yield from _sections(f"{path}.{name}{suffix}", inner)
        else:
            yield from _rules(inner, f"Rules of `{path}.{name}{suffix}`:")


def _rules(schema: Schema, title: str) -> Iterator[str]:
    """What the API server insists on, as a list; nothing where there is nothing."""
    if rules := schema.get("x-kubernetes-validations"):
        yield title
        yield "\n".join(f"- {rule['message']}" for rule in rules)


def _type(schema: Schema) -> str:
    """A field's type with its bounds and default, as a table cell."""
    words = [_type_name(schema)]
    for key, word in (
        ("minimum", "from {}"),
        ("maximum", "to {}"),
        ("minLength", "at least {} long"),
        ("maxLength", "at most {} long"),
        ("minItems", "at least {}"),
        ("maxItems", "at most {}"),
        ("maxProperties", "at most {}"),
    ):
        if key in schema:
            words.append(word.format(schema[key]))
    if "default" in schema and not isinstance(schema["default"], dict):
        words.append(f"default `{_cell(json.dumps(schema['default']))}`")
    return ", ".join(words)


def _type_name(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type_name(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type_name(schema['additionalProperties'])}"
    return str(schema.get("format", schema.get("type", "any")))


def _cell(text: str) -> str:
    """Text that a table cell can hold."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(document())
