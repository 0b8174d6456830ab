"""What a source reader runs as: a Deployment in the tenant's namespace and the Secret with its NATS credentials.

The reader holds no Kubernetes token. The tenant's connection Secret is mounted by the kubelet, so the operator never
reads it; it is optional, so that a missing one is the reader's to report and heals when it appears.
"""

from typing import Any, Final

from wisp_api import names

from wisp_operator.api import Object
from wisp_operator.apply import digest
from wisp_operator.config import OperatorConfig
from wisp_operator.nats_auth import User
from wisp_operator.quantities import canonical_resources
from wisp_operator.sources import ReaderKey

COMPONENT: Final = "reader"
KIND_LABEL: Final = "wisp.dev/source"
CONNECTED: Final = "wisp.dev/connected"
"""Annotation of a reader that has been ready: only such a one has anything to take away at its source."""
_NAME_LENGTH: Final = 52
"""Leaves room for what a Deployment's pods are called."""


def reader_name(reader: ReaderKey) -> str:
    """Name of the Deployment and the Secret."""
    name = f"wisp-reader-{reader.kind}-{reader.connection}"
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 9]}-{digest(name)[:8]}"


def make_labels(reader: ReaderKey) -> dict[str, str]:
    """Labels of Deployment, pods and Secret."""
    return names.LABELS | {
        "app.kubernetes.io/name": "wisp",
        names.COMPONENT_LABEL: COMPONENT,
        KIND_LABEL: reader.kind,
        names.CONNECTION_LABEL: reader.connection,
    }


def make_secret(namespace: str, reader: ReaderKey, credentials: str) -> Object:
    """The reader's NATS credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": reader_name(reader), "namespace": namespace, "labels": make_labels(reader)},
        "type": "Opaque",
        "stringData": {"creds": credentials},
    }


def make_deployment(
    namespace: str, reader: ReaderKey, user: User, credentials: str, config: OperatorConfig, *, connected: bool
) -> Object:
    """The reader itself: one pod, never two at once. `connected`: it has been ready at some time."""
    labels = make_labels(reader)
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 30,
        "tolerations": _LOST_NODE,
        "containers": [_make_container(namespace, reader, user, config)],
        "volumes": [
            {"name": "nats", "secret": {"secretName": reader_name(reader), "defaultMode": 0o440}},
            {"name": "connection", "secret": {"secretName": reader.connection, "defaultMode": 0o440, "optional": True}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    # Other credentials make other pods: they are read at start only.
    annotations = {
        "wisp.dev/credentials": digest(credentials),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9090",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": reader_name(reader),
            "namespace": namespace,
            "labels": labels,
            "annotations": {CONNECTED: "true"} if connected else {},
        },
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    }


_LOST_NODE: Final = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    for taint in ("not-ready", "unreachable")
]
"""A reader is alone with its source: on a node that is gone it is made elsewhere after 5 s, not Kubernetes' 300; one that still runs there is fenced off."""


def _make_container(namespace: str, reader: ReaderKey, user: User, config: OperatorConfig) -> Object:
    env = {
        "WISP_NATS_URL": config.nats_url,
        "WISP_NATS_CREDS": "/etc/wisp/nats/creds",
        "WISP_NATS_INBOX": user.inbox,
        "WISP_READER_NAMESPACE": namespace,
        "WISP_READER_KIND": reader.kind,
        "WISP_READER_CONNECTION": reader.connection,
    }
    return {
        "name": "reader",
        "image": config.events_image,
        "imagePullPolicy": config.image_pull_policy,
        "args": ["reader"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"name": "health", "containerPort": 9090, "protocol": "TCP"}],
        "startupProbe": _probe("/healthz", periodSeconds=1, failureThreshold=60),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=6, timeoutSeconds=5),
        "readinessProbe": _probe("/readyz", periodSeconds=5, timeoutSeconds=3),
        "resources": canonical_resources(config.reader_resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "nats", "mountPath": "/etc/wisp/nats", "readOnly": True},
            {"name": "connection", "mountPath": "/etc/wisp/connection", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }


def _probe(path: str, **settings: Any) -> Object:
    return {"httpGet": {"path": path, "port": "health"}, **settings}
