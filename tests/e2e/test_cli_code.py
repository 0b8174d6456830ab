"""Every way to bring code, with the command, as a new user goes about it; `files` has its own tests beside the command's."""

import io
import json
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, printing, write_project
from fixtures.platform import bucket_connection
from fixtures.process import wait_until
from wisp_cluster.images import built_images
from wisp_cluster.kubectl import Kubectl

PROJECT = """
functions:
  zipped:
    runtime: python3.13
    handler: pkg.app.handler
    code: {{folder: zipped, zip: {{bucket: {bucket}, connection: {{name: my-s3}}}}}}
    layers: [{{bucket: {bucket}, key: layer.zip, connection: {{name: my-s3}}}}]
  started:
    runtime: provided
    code: {{folder: started}}
  served:
    runtime: container
    code: {{image: "{served}"}}
  lambda:
    runtime: container
    signature: lambda
    code: {{image: "{client}"}}
subscriptions:
  on-greeting:
    function: {{name: zipped}}
    source: {{bus: {{name: greetings}}}}
"""
ZIPPED = """
from greeting import text

def handler(event, context):
    return {"message": text}
"""


@pytest.fixture
def wisp(namespace: Kubectl) -> Wisp:
    """The command as an administrator, in the test's own namespace."""
    return Wisp(namespace.kubeconfig, namespace.namespace)


def write(wisp: Wisp, folder: Path, bucket: str) -> None:
    """A wisp.yaml with a function of each kind: the templates' code for `provided` and the image, a package for the zip."""
    assert Wisp(wisp.kubeconfig)("init", str(folder / "template"), "--runtime", "provided").code == 0
    shutil.copytree(folder / "template" / "function", folder / "started")
    (folder / "zipped" / "pkg").mkdir(parents=True)
    (folder / "zipped" / "pkg" / "app.py").write_text(ZIPPED)
    images = built_images()
    served, client = images["template-container"], images["example-hello-image"]
    (folder / "wisp.yaml").write_text(PROJECT.format(bucket=bucket, served=served, client=client))


def make_layer() -> bytes:
    """An archive with a module for all Python functions."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("python/greeting.py", "text = 'Hello, Ada!'\n")
    return made.getvalue()


def test_a_project_with_code_of_each_kind_answers(wisp: Wisp, namespace: Kubectl, tmp_path: Path) -> None:
    """One `deploy` brings a zip with a layer, a bootstrap, an image that serves HTTP, one made for AWS Lambda, and a subscription; each answers."""
    bucket = f"code-{namespace.namespace}"
    minio = bucket_connection(namespace, "my-s3", [bucket])
    layer = make_layer()
    minio.put_object(bucket, "layer.zip", io.BytesIO(layer), len(layer))
    write(wisp, tmp_path, bucket)
    done = wisp("deploy", str(tmp_path))
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "function/zipped",
        "function/started",
        "function/served",
        "function/lambda",
        "subscription/on-greeting",
    ]
    for name in ("zipped", "started", "served", "lambda"):
        called = wisp("invoke", name, "-d", '{"name": "Ada"}', "--path", "/?name=Ada")
        assert called.code == 0, called.err
        assert json.loads(called.out)["message"] == "Hello, Ada!", name
    assert "function/zipped unchanged" in wisp("deploy", str(tmp_path)).err


def test_a_save_is_on_the_cluster_soon(wisp: Wisp, tmp_path: Path) -> None:
    """`dev` brings what is saved and prints the function's lines; ended, it leaves the function."""
    code = "def handler(event, context):\n    print('called')\n    return {!r}\n"
    running = wisp.start("dev", write_project(tmp_path, HELLO, code.format("one")))
    with printing(running) as seen, printing(running, "stderr") as told:
        wait_until(lambda: any("function/hello ready" in line for line in told), "the first is ready", 180)
        assert wisp("invoke", "hello").out == '"one"'
        write_project(tmp_path, HELLO, code.format("two"))
        wait_until(lambda: wisp("invoke", "hello").out == '"two"', "the save answers", 180)
        wait_until(lambda: any("called" in line for line in seen), "its line is shown")
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert wisp("invoke", "hello").out == '"two"'
