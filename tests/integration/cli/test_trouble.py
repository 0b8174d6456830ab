"""Whatever is wrong around the command, it ends with a sentence and an exit code, never with a traceback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fixtures.cli import HELLO, Wisp, write_project
from fixtures.kube import Kube, kube
from fixtures.process import free_port

COMMANDS = [
    ["deploy", "{folder}"],
    ["invoke", "hello"],
    ["logs", "hello"],
    ["logs", "hello", "-f"],
    ["list"],
    ["describe", "hello"],
    ["delete", "hello"],
]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API without our kinds."""
    with kube(tmp_path_factory.mktemp("bare"), wisp=False, knative=False) as running:
        yield running


def ends(wisp: Wisp, command: list[str], folder: Path, code: int) -> str:
    """Run the command; it ends with this exit code and one line on standard error, which is returned."""
    project = write_project(folder / "project", HELLO)
    done = wisp(*(word.format(folder=project) for word in command))
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    assert done.err.startswith("wisp: ")
    assert done.err.count("\n") == 1, done.err
    return done.err


def changed(kubeconfig: Path, target: Path, **cluster: object) -> Path:
    """A copy of a kubeconfig with other values for its cluster."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= cluster
    target.write_text(yaml.safe_dump(config))
    return target


@each_command
def test_without_a_kubeconfig(command: list[str], tmp_path: Path) -> None:
    """The file that was looked for is named, and KUBECONFIG; exit code 3."""
    said = ends(Wisp(tmp_path / "absent"), command, tmp_path, 3)
    assert str(tmp_path / "absent") in said
    assert "KUBECONFIG" in said


@each_command
def test_with_nobody_at_the_servers_address(command: list[str], cluster: Kube, tmp_path: Path) -> None:
    """The address is named; exit code 3."""
    server = f"https://127.0.0.1:{free_port()}"
    wisp = Wisp(changed(cluster.kubeconfig(), tmp_path / "config", server=server))
    assert f"the cluster at {server} can't be reached: Connection refused" in ends(wisp, command, tmp_path, 3)


def test_with_a_certificate_that_is_not_trusted(cluster: Kube, tmp_path: Path) -> None:
    """It is said, and nothing is sent; exit code 3."""
    config = yaml.safe_load(cluster.kubeconfig().read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    assert "isn't trusted" in ends(Wisp(tmp_path / "config"), ["list"], tmp_path, 3)


@each_command
def test_without_the_right(command: list[str], cluster: Kube, tmp_path: Path) -> None:
    """What is not allowed is named, and the role to ask for; exit code 1."""
    said = ends(Wisp(cluster.kubeconfig("stranger")), command, tmp_path, 1)
    assert 'User "stranger" cannot' in said
    assert "wisp-editor" in said


def test_with_credentials_that_nobody_knows(cluster: Kube, tmp_path: Path) -> None:
    """A wrong token is told from a missing right; exit code 1."""
    assert "log in again" in ends(Wisp(cluster.kubeconfig("nobody")), ["list"], tmp_path, 1)


@each_command
def test_on_a_cluster_without_wisp(command: list[str], bare: Kube, tmp_path: Path) -> None:
    """An unknown kind is no absent object: it says that Wisp isn't installed; exit code 1."""
    assert "install Wisp on it first" in ends(Wisp(bare.kubeconfig()), command, tmp_path, 1)


@pytest.mark.parametrize("text", ["{", "- a\n- list\n", "clusters: {}\ncurrent-context: lost\n", "\x00"])
def test_with_a_kubeconfig_that_is_none(text: str, tmp_path: Path) -> None:
    """A broken kubeconfig is a mistake of the user's; exit code 2."""
    (tmp_path / "config").write_text(text)
    assert "kubeconfig" in ends(Wisp(tmp_path / "config"), ["list"], tmp_path, 2)


def test_in_a_namespace_that_is_not_there(cluster: Kube, tmp_path: Path) -> None:
    """The API's sentence names the namespace; exit code 1."""
    assert 'namespaces "nowhere" not found' in ends(
        Wisp(cluster.kubeconfig(), "nowhere"), ["deploy", "{folder}"], tmp_path, 1
    )
