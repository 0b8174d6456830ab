"""The operator's configuration: one YAML file, which the chart writes."""

from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from wisp_api.quota import FunctionQuotaSpec
from wisp_api.source import S3Server

PATH: Final = Path("/etc/wisp/operator.yaml")


class Runtime(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """How functions of one runtime run."""

    image: str
    """The runtime's own image, for code that comes without one."""


class OperatorConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Everything that differs between installations."""

    namespace: str
    """The operator's own namespace: its Lease and the NATS keys live there."""
    runtimes: dict[str, Runtime]
    """By the name that a Function's spec.runtime uses."""
    events_image: str
    """Image of the source readers."""
    image_pull_policy: str = "IfNotPresent"
    """For readers' pods."""
    image_pull_secrets: list[str] = []
    """Names of Secrets for readers' pods; they must exist in the tenants' namespaces."""
    nats_url: str
    """Where the operator and the readers find the event log."""
    nats_replicas: int = 1
    """Copies of each stream and bucket; more than 1 needs a NATS cluster of that size."""
    nats_peers: list[str] = []
    """`host:port` of the bundled NATS servers for each other, where there are several."""
    stream_max_bytes: int = 256 * 1024 * 1024
    """Quota of one source's stream; a full one pushes back its own source only."""
    dead_letter_max_bytes: int = 64 * 1024 * 1024
    """Quota of each namespace's stream of dead letters; the oldest go first."""
    log_lines_max_bytes: int = 512 * 1024 * 1024
    """Quota of the stream of functions' log lines; the oldest go first. 0: there is none."""
    log_lines_retention_seconds: int = 604800
    """How long log lines stay, where the quota allows."""
    log_retention_seconds: int = 604800
    """How long the router keeps delivered events; here so that one file states it."""
    s3_servers: list[S3Server] = []
    """S3 servers that can call the ingest."""
    reader_resources: dict[str, Any] = {}
    """Resource requests and limits of a reader."""
    allowed_sinks: list[str] = []
    """Hosts outside of the cluster that a Subscription's sink.uri may name, as https://*.example.com."""
    shared_services: list[str] = []
    """Services that Subscriptions of other namespaces may have as a sink, as name.namespace: gateways, brokers' doors."""
    ingest_url: str = ""
    """The ingest, as pods reach it to hand in their log lines."""
    random_secrets: dict[str, list[str]] = {}
    """Secrets of the own namespace to make where they are missing: name to keys, each with a random value."""
    cluster_domain: str = "cluster.local"
    """The cluster's DNS suffix."""
    quota: FunctionQuotaSpec = msgspec.field(default_factory=FunctionQuotaSpec)
    """For namespaces without a FunctionQuota of their own."""
    drain_seconds: float = 300
    """How long a deleted Subscription waits for its reader to take away slots and bucket rules."""
    store_url: str = ""
    """The code store, as pods reach it; empty: there is none, and Functions take no zip and no layers."""
    package_index_url: str = "https://pypi.org/simple"
    """Where Python functions' requirements come from."""
    package_index_secret: str = "wisp-package-index"  # noqa: S105 - a name
    """Name of the Secret in a tenant's namespace with another url, or username, password and ca.crt; it may be missing."""
    code_check_seconds: float = 300
    """How often archives without versionId and sha256 are looked at."""
    code_retention_seconds: float = 21600
    """How long code stays in the store that nothing refers to."""
    resync_seconds: float = 600
    """Everything is compared with the cluster this often, besides on events."""

    @property
    def log_lines_url(self) -> str:
        """Where pods hand in their log lines; empty where none are kept."""
        return self.ingest_url if self.log_lines_max_bytes else ""


def load(path: Path = PATH) -> OperatorConfig:
    """Read the configuration.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not YAML or not an OperatorConfig; the message names the field.
    """
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), OperatorConfig)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: {error}") from error
