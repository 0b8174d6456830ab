"""`wisp deploy` of a folder that no `code.files` can carry: through a real ingest to a real code store, both behind the API server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, expose, write_project
from fixtures.code_store import CodeStore, code_store
from fixtures.dataplane import DataPlane
from fixtures.kube import Kube
from fixtures.minio import MinioServer, minio_server
from fixtures.process import wait_until
from wisp_api import names

pytestmark = pytest.mark.usefixtures("plane")


@pytest.fixture(scope="module")
def store(cluster: Kube, plane: DataPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeStore]:
    """A code store that is also a Service of the cluster."""
    assert plane
    folder = tmp_path_factory.mktemp("store")
    with minio_server(folder / "minio", "http://127.0.0.1:1", "unused") as minio, code_store(folder, minio) as running:
        wait_until(lambda: _has_bucket(minio), "the store has its bucket")
        expose(cluster, "wisp-store", 8080, running.port)
        yield running


def _has_bucket(minio: MinioServer) -> bool:
    return bool(minio.client().bucket_exists("wisp-code"))


def make_account(cluster: Kube, namespace: str) -> None:
    """What Kubernetes makes in each namespace."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    assert cluster.request("POST", accounts, {"metadata": {"name": "default"}})[0] == 201


def large_project(folder: Path) -> str:
    """A project whose code has a folder and more bytes than the API server takes in an object."""
    path = write_project(folder, HELLO)
    (folder / "function/model").mkdir()
    (folder / "function/model/weights.bin").write_bytes(os.urandom(8 << 20))
    return path


def test_a_folder_goes_to_the_code_store(wisp: Wisp, cluster: Kube, store: CodeStore, tmp_path: Path) -> None:
    """The Function names the archive by its content, the store has it in the namespace's part, and what it has is not sent again."""
    make_account(cluster, wisp.namespace)
    folder = large_project(tmp_path)
    done = wisp("deploy", folder, "--no-wait", "-o", "json")
    assert done.code == 0, done.err
    (item,) = done.json()["items"]
    sha256 = item["spec"]["code"]["stored"]["sha256"]
    assert f"{wisp.namespace}/{sha256}" in store.archives()
    assert "goes to the code store, 8.0 MiB" in done.err
    assert names.UPLOADED_ANNOTATION in item["metadata"]["annotations"]
    again = wisp("deploy", folder, "--no-wait")
    assert (again.code, "goes to" in again.err, "unchanged" in again.err) == (0, False, True), again.err
    assert f"archive {sha256} in the code store" in wisp("describe", "hello").out


def test_functions_of_one_folder_are_all_looked_at_again(
    wisp: Wisp, cluster: Kube, store: CodeStore, tmp_path: Path
) -> None:
    """It is sent once, and each that names it gets the mark: all of them may have waited for it."""
    make_account(cluster, wisp.namespace)
    folder = large_project(tmp_path)
    (tmp_path / "wisp.yaml").write_text(HELLO + HELLO.replace("\nfunctions:\n", "").replace("hello:", "other:"))
    done = wisp("deploy", folder, "--no-wait", "-o", "json")
    assert (done.code, done.err.count("goes to the code store")) == (0, 1), done.err
    items = done.json()["items"]
    assert {item["metadata"]["name"] for item in items} == {"hello", "other"}
    assert (
        len(
            {item["spec"]["code"]["stored"]["sha256"] for item in items}
            & {k.partition("/")[2] for k in store.archives()}
        )
        == 1
    )
    assert all(names.UPLOADED_ANNOTATION in item["metadata"].get("annotations", {}) for item in items), items


def test_a_lost_archive_is_uploaded_again(wisp: Wisp, cluster: Kube, store: CodeStore, tmp_path: Path) -> None:
    """And the Function gets a mark by which the operator looks again, though its spec is the same."""
    make_account(cluster, wisp.namespace)
    folder = large_project(tmp_path)
    (item,) = wisp("deploy", folder, "--no-wait", "-o", "json").json()["items"]
    key = f"{wisp.namespace}/{item['spec']['code']['stored']['sha256']}"
    store.minio.client().remove_object("wisp-code", key)
    done = wisp("deploy", folder, "--no-wait")
    assert (done.code, "goes to" in done.err, "unchanged" in done.err) == (0, True, True), done.err
    assert key in store.archives()


@pytest.mark.usefixtures("store")
def test_what_the_store_refuses_is_told(wisp: Wisp, cluster: Kube, tmp_path: Path) -> None:
    """A folder that breaks a rule of archives, and a namespace in whose name nobody can act, end with a sentence, and nothing is applied."""
    folder = write_project(tmp_path, HELLO)
    (tmp_path / "function/zeros").write_bytes(bytes(32 << 20))
    done = wisp("deploy", folder, "--no-wait")
    assert (done.code, "no token for ServiceAccount default" in done.err) == (1, True), done.err
    make_account(cluster, wisp.namespace)
    done = wisp("deploy", folder, "--no-wait")
    assert (done.code, "UnsafeArchive: 33554432" in done.err or "code never is" in done.err) == (1, True), done.err
    assert cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{wisp.namespace}/functions/hello") is None
