"""What can be known of the kind cluster without Docker, and how the way to a cluster is chosen."""

from pathlib import Path

import pytest
import yaml
from wisp_cluster import images, kind, onenode, way
from wisp_cluster.progress import ClusterError


def test_port_of_this_machine_leads_to_the_ingress() -> None:
    """The chosen port, on loopback only, is mapped to the NodePort that Kourier's service takes."""
    config = yaml.safe_load(kind.render_config(9090))
    (mapping,) = config["nodes"][0]["extraPortMappings"]
    assert mapping == {"containerPort": 31080, "hostPort": 9090, "listenAddress": "127.0.0.1", "protocol": "TCP"}
    assert kind.node_port_service()["spec"]["ports"][0]["nodePort"] == mapping["containerPort"]


def test_creation_touches_only_our_cluster_and_kubeconfig() -> None:
    """The cluster has a name of its own, and the user's kubeconfig is left alone."""
    command = " ".join(kind.create_command(Path("/c.yaml"), Path("/k")))
    assert "--name wisp " in command
    assert "--kubeconfig /k" in command
    assert "--config /c.yaml" in command


def test_settings_leave_feature_flags_alone() -> None:
    """Users' clusters have Knative's default feature flags, so ours have them too."""
    assert {each["metadata"]["name"] for each in kind.settings()} == {"config-network", "config-domain"}


def test_images_of_the_node_alone_are_not_built_for_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker builds Wisp's images and the examples', not Kubernetes' and Knative's; an image below another one comes first."""
    monkeypatch.setattr(images, "program", lambda _: Path("/bin/true"))
    monkeypatch.setenv("WISP_CACHE", str(tmp_path))
    built: list[str] = []
    builder = images.Builder(lambda _: False, lambda reference, *_: built.append(reference), onenode=False)
    references = images.built_images(builder=builder)
    assert built == list(references.values())
    assert not {"pause", "traefik", "knative-controller"} & references.keys()
    assert {
        "wisp-operator",
        "wisp-events",
        "wisp-python",
        "wisp-nodejs",
        "wisp-provided",
        "nats",
        "minio",
    } <= references.keys()
    assert list(references).index("wisp-python") < list(references).index("example-thumbnail")


def test_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLUSTER decides over what the machine has; another value is refused with the two that there are."""
    monkeypatch.setenv("CLUSTER", "kind")
    assert way.chosen() is kind
    monkeypatch.setenv("CLUSTER", "onenode")
    assert way.chosen() is onenode
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(ClusterError, match="minikube") as failure:
        way.chosen()
    assert "CLUSTER=kind or CLUSTER=onenode" in failure.value.report()


@pytest.mark.parametrize("there", [True, False])
def test_machine_chooses(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    """Without CLUSTER it is kind where Docker and kind are, else the one-node cluster."""
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(kind, "available", lambda: there)
    assert way.chosen() is (kind if there else onenode)
