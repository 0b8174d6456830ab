"""A Function that names the platform's own Secrets, or lives among them, is not deployed, whatever the CRD said when it was stored."""

from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_api.kube import NOT_FOR_FUNCTIONS
from wisp_operator.config import OperatorConfig
from wisp_operator.fence import trespass

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")


def told(namespace: str = "media", **fields: Any) -> str:
    """What such a Function must not have."""
    return trespass(msgspec.convert(make_function(**fields)["spec"], FunctionSpec), namespace, CONFIG)


def wanting(name: str) -> dict[str, dict[str, Any]]:
    """Fields that name this Secret, by the field that the message begins with."""
    volume = {"name": "v", "secret": {"secretName": name}}
    sources = [{"configMap": {"name": "wisp-code"}}, {"secret": {"name": name}}]
    mounted = {"name": "v", "mountPath": "/mnt/v"}
    return {
        "spec.env": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "write"}}}]},
        "spec.envFrom": {"envFrom": [{"secretRef": {"name": name}}]},
        "spec.pod.volumes": {"pod": {"volumes": [volume], "volumeMounts": [mounted]}},
        "spec.pod.volumes, projected": {
            "pod": {"volumes": [{"name": "v", "projected": {"sources": sources}}], "volumeMounts": [mounted]}
        },
    }


@pytest.mark.parametrize("name", ["wisp-code", "wisp-code-old", "wisp-reader-postgres-shop-db"])
@pytest.mark.parametrize("field", wanting(""))
def test_own_secrets(field: str, name: str) -> None:
    """Each way to a Secret of the platform's is told of with its field, its name and the sentence of the CRD."""
    message = told(**wanting(name)[field])
    assert message.startswith(f"{field.partition(',')[0]} names the Secret {name}: ")
    assert message.endswith(NOT_FOR_FUNCTIONS)


@pytest.mark.parametrize("name", ["shop", "wisp-package-index", "wisp-codes", "my-wisp-code"])
@pytest.mark.parametrize("field", wanting(""))
def test_others(field: str, name: str) -> None:
    """The tenant's own Secrets are let through, and so are ConfigMaps of any name."""
    assert told(**wanting(name)[field]) == ""


def test_own_namespace() -> None:
    """The platform's own namespace has no Functions; every other one has."""
    assert "own namespace wisp-system" in told("wisp-system")
    assert told("wisp-system-2") == told() == ""
