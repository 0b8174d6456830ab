"""What the node runs with: settings that keep it safe, small and complete to remove."""

import tomllib
from pathlib import Path

import pytest
import yaml
from wisp_cluster import components, faults, knative, network, onenode
from wisp_cluster.build import manifests
from wisp_cluster.components import Component
from wisp_cluster.kubectl import Object
from wisp_cluster.paths import state_dir

REFERENCES = {
    name: f"dev.local/{name}:1"
    for name in (
        "traefik",
        *(f"knative-{each}" for each in ("controller", "webhook", "autoscaler", "activator", "queue")),
    )
}


def own_path(path: str) -> bool:
    """Whether `down` removes what is written here."""
    return path.startswith((str(state_dir()), str(components.RUN_DIR)))


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """Knative's objects as they are applied."""
    return knative.knative_objects(REFERENCES)


def test_containerd_keeps_to_its_own_folders() -> None:
    """Root, state and socket are the node's own, whatever else runs containerd on this machine."""
    component = components.containerd("dev.local/pause:1")
    (text,) = [text for path, text in component.files.items() if path.suffix == ".toml"]
    config = tomllib.loads(text)
    assert all(own_path(each) for each in (config["root"], config["state"], config["grpc"]["address"]))
    images = config["plugins"]["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == "dev.local/pause:1"
    assert own_path(images["registry"]["config_path"])


def test_kubelet_stays_below_the_node_s_cgroup_and_folders() -> None:
    """Its pods' cgroups, logs and volumes are where `down` looks for them, and only the API server may use it."""
    component = components.kubelet()
    (text,) = [text for path, text in component.files.items() if path.suffix == ".yaml"]
    config = yaml.safe_load(text)
    assert config["cgroupRoot"] == components.CGROUP_ROOT
    assert own_path(config["podLogsDir"])
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert any(own_path(each.partition("=")[2]) for each in component.argv if each.startswith("--root-dir="))


def test_etcd_is_out_of_reach_of_pods() -> None:
    """The store asks nobody who they are, so it listens only where pods can't come."""
    client = next(each for each in components.etcd().argv if each.startswith("--listen-client-urls="))
    peer = next(each for each in components.etcd().argv if each.startswith("--listen-peer-urls="))
    assert "127.0.0.1" in client
    assert network.NODE_IP not in client + peer


def test_changed_configuration_changes_the_revision() -> None:
    """Command line, files and environment each lead to a restart when they change; the same ones do not."""
    first = Component("a", ["x"], lambda: None, {Path("/f"): "1"}, {"E": "1"})
    same = Component("a", ["x"], lambda: None, {Path("/f"): "1"}, {"E": "1"})
    others = [
        Component("a", ["x", "y"], lambda: None, {Path("/f"): "1"}, {"E": "1"}),
        Component("a", ["x"], lambda: None, {Path("/f"): "2"}, {"E": "1"}),
        Component("a", ["x"], lambda: None, {Path("/f"): "1"}, {"E": "2"}),
    ]
    assert first.revision == same.revision
    assert len({first.revision, *(each.revision for each in others)}) == 4


def test_knative_is_complete(objects: list[Object]) -> None:
    """Every placeholder of the release became one of our images, and all resource kinds of Knative are defined."""
    assert "ko://" not in knative.as_list(objects)
    kinds = {each["spec"]["names"]["kind"] for each in objects if each["kind"] == "CustomResourceDefinition"}
    assert {"Service", "Route", "Configuration", "Revision", "Ingress", "ServerlessService", "Image"} <= kinds


def test_knative_keeps_its_default_flags(objects: list[Object]) -> None:
    """Feature flags, defaults and initial scale are the release's, because those are what users' clusters have."""
    configs = {each["metadata"]["name"]: each.get("data", {}) for each in objects if each["kind"] == "ConfigMap"}
    for name in ("config-features", "config-defaults"):
        assert set(configs[name]) <= {"_example"}
    assert not {"initial-scale", "allow-zero-initial-scale"} & set(configs["config-autoscaler"])


def test_webhooks_come_last(objects: list[Object]) -> None:
    """Definitions are applied first and webhook configurations last: they refuse everything until somebody answers for them."""
    ranks = [knative.order(each) for each in objects]
    assert ranks == sorted(ranks)
    assert objects[0]["kind"] == "Namespace"
    assert objects[-1]["kind"].endswith("WebhookConfiguration")


def test_knative_fits_two_cores(objects: list[Object]) -> None:
    """All requests of Knative together leave most of one core free."""
    requested = [
        int(container["resources"]["requests"]["cpu"].removesuffix("m"))
        for each in objects
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
    ]
    assert sum(requested) <= 200


def test_ingress_has_the_address_that_the_forwarder_uses() -> None:
    """The ingress' Service takes the fixed ClusterIP, and nothing in its manifest is left to fill in."""
    found = knative.ingress_objects(REFERENCES)
    assert "$" not in knative.as_list(found)
    services = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "Service"}
    assert services["traefik"]["clusterIP"] == network.INGRESS_SERVICE_IP
    assert network.INGRESS_SERVICE_IP in " ".join(onenode.forwarder().argv)


def test_manifests_are_cached() -> None:
    """They are copied out of Go's module cache once, whole."""
    assert {path.name for path in manifests("knative").iterdir()} == {"serving", "networking", "caching"}


def test_only_running_containers_are_hit() -> None:
    """Faults go to the containers that are reported as running, of the name that was asked for."""
    statuses = [
        {"name": "a", "containerID": "containerd://1", "state": {"running": {}}},
        {"name": "b", "containerID": "containerd://2", "state": {"running": {}}},
        {"name": "c", "containerID": "containerd://3", "state": {"terminated": {}}},
        {"name": "d", "state": {"waiting": {}}},
    ]
    pods: list[Object] = [{"status": {"containerStatuses": statuses}}, {"status": {}}]
    assert faults.running_containers(pods) == {"1", "2"}
    assert faults.running_containers(pods, "b") == {"2"}


def test_cut_off_drops_both_directions() -> None:
    """Packets from the pods and to the pods are dropped, each pod named."""
    rules = faults.cut_off_rules("t", ["198.18.0.2", "198.18.0.3"])
    assert "ip saddr { 198.18.0.2, 198.18.0.3 } drop" in rules
    assert "ip daddr { 198.18.0.2, 198.18.0.3 } drop" in rules
