"""The CRDs say what the types say, in the form that Kubernetes asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wisp_api import crd, function, subscription

CRDS = Path(__file__).parents[3] / "manifests" / "crds"
KINDS = {item["spec"]["names"]["kind"]: item["spec"]["versions"][0] for item in crd.crds()}


def _nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _nodes(schema[name], f"{path}[]")


def _schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = KINDS[kind]["schema"]["openAPIV3Schema"]
    return schema


def test_files_are_current() -> None:
    """The committed CRDs are what the types generate."""
    assert crd.main(["--check", str(CRDS)]) == 0


def test_stale_file_is_found(tmp_path: Path) -> None:
    """A CRD that was edited by hand fails the check."""
    assert crd.main([str(tmp_path)]) == 0
    edited = tmp_path / "functions_wisp_dev.yaml"
    edited.write_text(edited.read_text().replace("Namespaced", "Cluster"))
    assert crd.main(["--check", str(tmp_path)]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_structural(kind: str) -> None:
    """Every node has one type and nothing of JSON Schema that Kubernetes refuses."""
    for path, node in _nodes(_schema(kind), kind):
        assert isinstance(node.get("type"), str), path
        assert not node.keys() & {"anyOf", "oneOf", "$ref", "$defs", "title"}, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_documented(kind: str) -> None:
    """`kubectl explain` has a sentence for every field of spec and status."""
    for part in ("spec", "status"):
        for path, node in _nodes(_schema(kind)["properties"][part], part):
            for name, field in node.get("properties", {}).items():
                assert field.get("description"), f"{path}.{name}"


@pytest.mark.parametrize("kind", KINDS)
def test_lists_maps_and_strings_of_the_spec_are_bounded(kind: str) -> None:
    """No field of a spec grows without limit: CEL's cost budget and etcd depend on it."""
    for path, node in _nodes(_schema(kind)["properties"]["spec"], "spec"):
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_rules_say_what_to_write() -> None:
    """Each CEL rule comes with a message of its own, not with the expression."""
    for kind in KINDS:
        for path, node in _nodes(_schema(kind), kind):
            for rule in node.get("x-kubernetes-validations", []):
                assert len(rule["message"]) > 15, path


def test_absent_fields_take_their_defaults() -> None:
    """A spec without the optional fields decodes to the documented defaults."""
    spec = msgspec.convert(
        {"runtime": "python3.13", "handler": "app.handler", "code": {"files": {"app.py": ""}}}, function.FunctionSpec
    )
    assert (spec.scale.min, spec.scale.max, spec.scale.idle_seconds, spec.visibility) == (0, 100, 30, "cluster")
    source = {"bucket": {"name": "photos", "connection": {"name": "minio"}}}
    wish = msgspec.convert({"function": {"name": "f"}, "source": source}, subscription.SubscriptionSpec)
    assert wish.source.bucket
    assert wish.source.bucket.events == ["ObjectCreated:*"]
    assert (wish.order, wish.start, wish.retry.max_attempts) == (None, "latest", 5)
