"""Dashboard and alerts speak of metrics that are there, and each alert has its paragraph in the operations guide."""

import json
import re
from typing import Any

import yaml

from .conftest import CHART, ROOT, Render

EVERYTHING = ("monitoring.dashboard=true", "monitoring.podMonitor=true", "monitoring.alerts=true")
METRIC = re.compile(r"\bwisp_[a-z_]+")
SOURCES = ("events/src", "operator/src", "function-runtime/python/src")


def exported() -> set[str]:
    """The names that the code of the parts writes down, with the endings that Prometheus' clients add."""
    names = {"wisp_function_cold_starts_total", "wisp_function_refused_total"}  # put together in `metrics.py`
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            names |= set(re.findall(r"[\"' ](wisp_[a-z_]+)[\"' {]", path.read_text()))
    return names | {f"{name}_{ending}" for name in names for ending in ("total", "bucket", "sum", "count")}


def rules() -> list[dict[str, Any]]:
    """The alerting rules."""
    loaded: list[dict[str, Any]] = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    return loaded


def test_every_metric_is_exported() -> None:
    """A renamed metric must not leave an empty panel or an alert that never fires."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [rule["expr"] for rule in rules()]
    used = {name for expression in expressions for name in METRIC.findall(expression)}
    assert len(used) > 20
    assert used - exported() == set()


def test_every_alert_has_a_runbook() -> None:
    """Who is woken at night finds under the alert's own name what it means and what to do."""
    headings = set(re.findall(r"^#### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert {rule["alert"] for rule in rules()} == headings
    for rule in rules():
        assert rule["annotations"]["runbook_url"].endswith("docs/operations.md#" + rule["alert"].lower())


def test_rendered_only_where_asked(render: Render) -> None:
    """The three objects come by values, for a cluster without Grafana and the Prometheus operator knows nothing of them."""
    kinds = {"ConfigMap": "wisp-dashboard", "PodMonitor": "wisp", "PrometheusRule": "wisp"}
    wanted = set(kinds.items())
    assert not wanted & {(one["kind"], one["metadata"]["name"]) for one in render()}
    made = {(one["kind"], one["metadata"]["name"]): one for one in render(*EVERYTHING)}
    assert wanted <= set(made)
    assert json.loads(made["ConfigMap", "wisp-dashboard"]["data"]["wisp.json"])["title"] == "Wisp"
    assert made["PrometheusRule", "wisp"]["spec"]["groups"][0]["rules"] == rules()
