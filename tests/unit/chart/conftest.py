"""Renders the chart with the real Helm."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from wisp_cluster.build import binary

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "wisp"
Render = Callable[..., list[dict[str, Any]]]


def helm_template(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm template` of the chart as release wisp in wisp-system; returns also when it failed."""
    command = [
        str(binary("helm")),
        "template",
        "wisp",
        str(CHART),
        "--namespace",
        "wisp-system",
        "--kube-version",
        "1.30.0",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="session")
def render() -> Render:
    """`render("key=value", ...)`: the chart's objects, hooks included, with these values set."""

    def objects(*values: str, arguments: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        settings = [
            part for value in values for part in ("--set-json" if value.endswith(("]", "}")) else "--set", value)
        ]
        answer = helm_template(*arguments, *settings)
        assert answer.returncode == 0, answer.stderr
        return [document for document in yaml.safe_load_all(answer.stdout) if document]

    return objects
