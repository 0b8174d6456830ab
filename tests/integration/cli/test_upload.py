"""`wisp deploy` of a folder that goes as a zip: through the user's bucket, be its server near or in the cluster."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, expose, write_project
from fixtures.kube import Kube
from fixtures.minio import PASSWORD, USER, MinioServer

ZIPPED = HELLO.replace("folder: function", "folder: function, zip: {bucket: code, connection: {name: my-s3}}")


@pytest.fixture(scope="module")
def minio(cluster: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A MinIO that is also a Service of the cluster."""
    running = MinioServer(tmp_path_factory.mktemp("minio"), "http://127.0.0.1:1", "unused", host="0.0.0.0")
    running.start()
    running.client().make_bucket("code")
    expose(cluster, "wisp-minio", 9000, running.port)
    yield running
    running.stop()


def connect(cluster: Kube, namespace: str, **keys: str) -> None:
    """Write the connection's Secret."""
    held = {"accessKey": USER, "secretKey": PASSWORD} | keys
    data = {key: base64.b64encode(value.encode()).decode() for key, value in held.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "my-s3", "namespace": namespace}}
    cluster.apply(secret | {"data": data})


@pytest.mark.parametrize("where", ["near", "in the cluster"])
def test_a_folder_is_uploaded_once(wisp: Wisp, cluster: Kube, minio: MinioServer, tmp_path: Path, where: str) -> None:
    """The Function names the object by its content, the object holds it, and the same folder is not sent again."""
    endpoint = minio.endpoint if where == "near" else "http://wisp-minio.wisp-system.svc:9000"
    connect(cluster, wisp.namespace, endpoint=endpoint)
    folder = write_project(tmp_path, ZIPPED, f"handler = print  # {where}\n")
    (tmp_path / "function/package").mkdir()
    (tmp_path / "function/package/data.bin").write_bytes(b"\xff")
    done = wisp("deploy", folder, "--no-wait", "-o", "json")
    assert done.code == 0, done.err
    (item,) = done.json()["items"]
    zipped = item["spec"]["code"]["zip"]
    data = minio.client().get_object("code", zipped["key"]).read()
    assert zipped["key"] == f"hello/{zipped['sha256']}.zip"
    assert hashlib.sha256(data).hexdigest() == zipped["sha256"]
    assert f"s3://code/{zipped['key']} uploaded" in done.err
    again = wisp("deploy", folder, "--no-wait")
    assert (again.code, "uploaded" in again.err, "unchanged" in again.err) == (0, False, True)


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"endpoint": ""}, 1, "Secret my-s3 has no key endpoint: add it"),
        ({"endpoint": "http://127.0.0.1:1"}, 3, "http://127.0.0.1:1 can't be reached from here"),
        ({"endpoint": "http://gone.wisp-system.svc:9000"}, 1, 'services "gone" not found'),
        ({"secretKey": "wrong-wrong"}, 1, "refuses the upload: 403 SignatureDoesNotMatch"),
        ({"bucket": "lost"}, 1, "refuses the upload: 404 NoSuchBucket"),
        ({}, 1, "there is no Secret my-s3 in namespace"),
    ],
)
def test_what_is_wrong_is_told(
    wisp: Wisp, cluster: Kube, minio: MinioServer, tmp_path: Path, keys: dict[str, str], code: int, said: str
) -> None:
    """An upload that can't be made says why, without a word of the key, and nothing is applied."""
    if keys:
        connect(cluster, wisp.namespace, **{"endpoint": minio.endpoint} | keys)
    text = ZIPPED.replace("bucket: code", f"bucket: {keys.get('bucket', 'code')}")
    done = wisp("deploy", write_project(tmp_path, text), "--no-wait")
    assert (done.code, said in done.err) == (code, True), done.err
    assert "wrong-wrong" not in done.err
    assert cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{wisp.namespace}/functions/hello") is None
