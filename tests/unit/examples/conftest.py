"""Loads the examples' code and samples as their users do."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from cloudevents.core.v1.event import CloudEvent

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def load(name: str) -> ModuleType:
    """The module `app.py` of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample(path: str) -> dict[str, Any]:
    """A sample event, as `thumbnail/events/object-created.json`."""
    event: dict[str, Any] = json.loads((EXAMPLES / path).read_text())
    return event


def cloud_event(path: str) -> CloudEvent:
    """A sample as the object that a cloudevent handler receives."""
    attributes = sample(path)
    data = attributes.pop("data")
    del attributes["time"]
    return CloudEvent(attributes, data)
