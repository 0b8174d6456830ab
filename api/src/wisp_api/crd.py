"""Generate the CustomResourceDefinitions from the types: `python -m wisp_api.crd [--check] [DIRECTORY]`.

msgspec writes the JSON schema; here it becomes what Kubernetes calls structural: references inlined, `null` alternatives
gone, field docstrings as descriptions (so that `kubectl explain` shows them). Invariant: the files in manifests/crds are
what this module makes of the types, nothing edited by hand; `--check` ends with 1 where they differ.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from wisp_api import caller, destination, function, kube, names, pod, quota, requirements, sink, subscription

Schema = dict[str, Any]

_GROUP: Final = names.GROUP
_READY: Final = '.status.conditions[?(@.type=="Ready")]'


class _Column(NamedTuple):
    name: str
    type: str
    path: str
    wide: bool = False


class _Kind(NamedTuple):
    """What a CRD holds besides the type's schema."""

    struct: type[msgspec.Struct]
    plural: str
    short_name: str
    rules: msgspec.Meta
    columns: list[_Column]


_KINDS: Final = [
    _Kind(
        function.Function,
        "functions",
        "fn",
        function.NAME_RULES,
        [
            _Column("Ready", "string", f"{_READY}.status"),
            _Column("URL", "string", ".status.url"),
            _Column("Runtime", "string", ".spec.runtime"),
            _Column("Reason", "string", f"{_READY}.reason", wide=True),
            _Column("Revision", "string", ".status.revision", wide=True),
            _Column("Age", "date", ".metadata.creationTimestamp"),
        ],
    ),
    _Kind(
        subscription.Subscription,
        "subscriptions",
        "sub",
        subscription.NAME_RULES,
        [
            _Column("Source", "string", ".status.source"),
            _Column("Function", "string", ".spec.function.name"),
            _Column("Ready", "string", f"{_READY}.status"),
            _Column("Reason", "string", f"{_READY}.reason", wide=True),
            _Column("Delivered", "integer", ".status.delivered", wide=True),
            _Column("Failed", "integer", ".status.failed", wide=True),
            _Column("Pending", "integer", ".status.pending"),
            _Column("Oldest", "date", ".status.oldestPending"),
            _Column("DeadLettered", "integer", ".status.deadLettered"),
            _Column("Age", "date", ".metadata.creationTimestamp"),
        ],
    ),
    _Kind(
        quota.FunctionQuota,
        "functionquotas",
        "fq",
        quota.NAME_RULES,
        [
            _Column("Functions", "integer", ".status.functions"),
            _Column("of", "integer", ".spec.functions"),
            _Column("Instances", "integer", ".status.instances"),
            _Column("of", "integer", ".spec.instances"),
            _Column("Memory", "string", ".status.memory"),
            _Column("of", "string", ".spec.memory"),
            _Column("Age", "date", ".metadata.creationTimestamp"),
        ],
    ),
]


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with `--check`; the exit code."""
    check = "--check" in arguments
    directory = Path(next((a for a in arguments if not a.startswith("-")), "manifests/crds"))
    stale = []
    for crd in crds():
        path = directory / f"{crd['metadata']['name'].replace('.', '_')}.yaml"
        text = _yaml(crd)
        if check and (not path.is_file() or path.read_text() != text):
            stale.append(str(path))
        elif not check:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"not what the types say: {', '.join(stale)}; run python -m wisp_api.crd\n")
    return 1 if stale else 0


def crds() -> list[Schema]:
    """All CustomResourceDefinitions, as JSON objects."""
    return [_crd(kind) for kind in _KINDS]


def _crd(kind: _Kind) -> Schema:
    schema = structural(kind.struct)
    known: Schema = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema["properties"] = known | schema["properties"]
    name = kind.struct.__name__
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema | (kind.rules.extra_json_schema or {})},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": column.name, "type": column.type, "jsonPath": column.path, "priority": int(column.wide)}
            for column in kind.columns
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{_GROUP}", "labels": dict(names.LABELS)},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["wisp"],
            },
            "versions": [version],
        },
    }


def structural(kind: type[msgspec.Struct]) -> Schema:
    """The structural OpenAPI v3 schema of a type.

    Raises:
        ValueError: a field has no docstring.
    """
    generated = msgspec.json.schema(kind)
    definitions: Schema = generated["$defs"]
    documents = {
        name: text
        for module in (kube, caller, destination, requirements, pod, function, sink, subscription, quota)
        for name, text in _field_docs(module)
    }
    return _inline(generated, definitions, documents)


def _inline(schema: Schema, definitions: Schema, documents: dict[str, str]) -> Schema:
    """`schema` with what it refers to in its place, children first."""
    schema = {key: value for key, value in schema.items() if key not in {"$defs", "title"}}
    for reference in _alternatives(schema):
        schema = _inline(reference, definitions, documents) | schema
    if name := schema.pop("$ref", ""):
        type_name = name.rpartition("/")[2]
        target = dict(definitions[type_name])
        target["properties"] = {
            field: value | {"description": _document(documents, type_name, field)}
            for field, value in target["properties"].items()
        }
        schema = _inline(target, definitions, documents) | schema
    if schema.pop(kube.NO_DEFAULT, False) or schema.get("default", ...) is None:
        del schema["default"]
    if not schema.get("required", True):
        del schema["required"]
    if "enum" in schema:
        schema["type"] = "string"
    if "properties" in schema:
        schema["properties"] = {
            field: _inline(value, definitions, documents) for field, value in schema["properties"].items()
        }
    for child in ("items", "additionalProperties"):
        if isinstance(schema.get(child), dict):
            schema[child] = _inline(schema[child], definitions, documents)
    return schema


def _alternatives(schema: Schema) -> list[Schema]:
    """What an optional field may be besides null."""
    return [choice for choice in schema.pop("anyOf", []) if choice != {"type": "null"}]


def _document(documents: dict[str, str], type_name: str, field: str) -> str:
    try:
        return documents[f"{type_name}.{field}"]
    except KeyError:
        raise ValueError(f"{type_name}.{field} has no docstring under it") from None


def _field_docs(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(`Type.jsonName`, docstring) of every documented field of a module's types."""
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        struct = getattr(module, node.name)
        encoded = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name):
                yield f"{node.name}.{encoded[field.target.id]}", inspect.cleandoc(ast.literal_eval(text.value))


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time instead of as anchors, which people misread."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        """True: no anchors at all."""
        return True


def _yaml(crd: Schema) -> str:
    """The file's text."""
    header = "# Generated by `python -m wisp_api.crd` from the types in api/src/wisp_api. Change those, not this.\n"
    return header + yaml.dump(crd, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
