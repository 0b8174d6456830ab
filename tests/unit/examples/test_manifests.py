"""Every example can be applied as its README says: known kinds, known fields, values within their bounds."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from fixtures.examples import EXAMPLES, sample
from wisp_api import cloudevent, crd, function, subscription
from wisp_events.ingest.s3 import object_event
from wisp_events.sources.row_events import Mapper, Place

MANIFESTS = sorted(EXAMPLES.glob("*/*.yaml"))
OBJECTS = [
    pytest.param(found, id=f"{path.parent.name}/{found['metadata']['name']}")
    for path in MANIFESTS
    for found in yaml.safe_load_all(path.read_text())
]
TYPES = {"Function": function.Function, "Subscription": subscription.Subscription}
SCHEMAS = {
    definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for definition in crd.crds()
}


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths of the fields that the schema does not have and that the API server would drop."""
    if isinstance(value, list):
        return [found for item in value for found in unknown_fields(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    wrong = [f"{path}.{key}" for key in value.keys() - schema["properties"].keys()]
    return wrong + [
        found
        for key, part in value.items()
        if key in schema["properties"] and (path or key != "metadata")
        for found in unknown_fields(part, schema["properties"][key], f"{path}.{key}")
    ]


def test_every_example_has_what_a_reader_looks_for() -> None:
    """Each folder has a README, manifests and a sample event."""
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        assert (folder / "README.md").is_file()
        assert list(folder.glob("*.yaml"))
        assert list(folder.glob("events/*.json"))


def test_kubectl_finds_manifests_only() -> None:
    """`kubectl apply -f examples/NAME/` reads .json, .yaml and .yml files of the folder: all of them are manifests."""
    for path in EXAMPLES.glob("*/*"):
        if path.suffix in (".json", ".yaml", ".yml"):
            assert path.suffix == ".yaml", path
            assert all("apiVersion" in found for found in yaml.safe_load_all(path.read_text())), path


@pytest.mark.parametrize("manifest", OBJECTS)
def test_manifest_is_what_the_kinds_allow(manifest: dict[str, Any]) -> None:
    """Functions and Subscriptions have known fields only, with values of the right type and size, and name no namespace."""
    assert "namespace" not in manifest["metadata"]
    if manifest["kind"] in TYPES:
        assert unknown_fields(manifest, SCHEMAS[manifest["kind"]]) == []
        msgspec.convert(manifest, TYPES[manifest["kind"]])


@pytest.mark.parametrize("manifest", OBJECTS)
def test_no_manifest_holds_a_secret(manifest: dict[str, Any]) -> None:
    """Passwords are made by whoever applies the example."""
    assert manifest["kind"] != "Secret"


def test_an_unknown_field_is_found() -> None:
    """The check above sees a misspelt field however deep it stands."""
    manifest = {"spec": {"scale": {"maximum": 3}, "env": [{"nam": "A"}]}}
    found = unknown_fields(manifest, SCHEMAS["Function"])
    assert sorted(found) == [".spec.env[].nam", ".spec.scale.maximum"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/events/*.json")), ids=lambda path: path.stem)
def test_sample_events_are_events(path: Path) -> None:
    """Every sample but those of the hellos, which are a function URL's requests, is a structured CloudEvent that the platform could carry."""
    if not path.parts[-3].startswith("hello"):
        event = cloudevent.decode(path.read_bytes())
        assert event.partitionkey or path.stem in {"gap", "truncate"}, "only these two concern a whole table"
        assert event.sequence


@pytest.mark.parametrize("name", ["thumbnail", "media-sharing"])
def test_sample_of_an_upload_is_what_the_ingest_makes(name: str) -> None:
    """The sample is, attribute for attribute, the event that the ingest makes of its own data."""
    wanted = sample(f"{name}/events/object-created.json")
    made = object_event("minio", msgspec.Raw(msgspec.json.encode(wanted["data"]))).event
    assert {"specversion": "1.0"} | msgspec.json.decode(cloudevent.encode(made)) == wanted


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"{name}/events/{operation}"
            for name in ("orders", "order-stream")
            for operation in ("insert", "update", "delete")
        ),
        "welcome-mail/events/insert",
    ],
)
def test_sample_of_a_change_is_what_the_reader_makes(path: str) -> None:
    """The samples have the places, keys and sources that the PostgreSQL reader gives."""
    event, operation = sample(f"{path}.json"), path.rpartition("/")[2]
    assert str(Place.parse(event["sequence"])) == event["sequence"] == event["id"]
    assert event["source"] == Mapper("default", "shop-db", 0).source
    assert event["type"] == f"dev.wisp.postgres.{operation}"
    assert event["partitionkey"] == f"{event['subject']}:{list(event['data']['key'].values())}"
    assert event["data"].keys() == {"op", "key", "old", "new"}
