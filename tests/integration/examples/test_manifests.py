"""The examples' manifests against a real Kubernetes API with our CRDs."""

from collections.abc import Iterator

import pytest
from fixtures.examples import EXAMPLES
from fixtures.kube import Kube, kube


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API with our CRDs."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_folder_applies_as_a_whole(api: Kube, name: str) -> None:
    """`kubectl apply -f examples/NAME/` is accepted: every rule of the CRDs holds, and no field is unknown."""
    done = api.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", f"{EXAMPLES / name}/")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "server dry run" in done.stdout


def test_pods_of_the_database_are_admitted_as_restricted(api: Kube) -> None:
    """The example's PostgreSQL runs in a namespace that admits restricted pods only: the API has nothing to warn of."""
    api.kubectl("create", "namespace", "shop")
    api.kubectl("label", "namespace", "shop", "pod-security.kubernetes.io/warn=restricted")
    done = api.kubectl("-n", "shop", "apply", "--dry-run=server", "-f", str(EXAMPLES / "orders" / "database.yaml"))
    assert done.returncode == 0, done.stderr
    assert "PodSecurity" not in done.stderr
