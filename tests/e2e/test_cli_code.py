"""Every way to bring code, with the command, as a new user goes about it; `files` has its own tests beside the command's."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, printing, write_project
from fixtures.functions import call
from fixtures.platform import bucket_connection, host_address, person, uploading
from fixtures.process import wait_until
from fixtures.registry import registry, use_buildah
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

WEIGHED = """
import hashlib
from pathlib import Path

def handler(event, context):
    return hashlib.sha256(Path(__file__).with_name("model").joinpath("weights.bin").read_bytes()).hexdigest()
"""

PUBLIC = "    visibility: public\n    auth: {type: none}\n"
SITE = """
functions:
  hello:
    runtime: container
    code: {folder: site}
"""
SERVER = """package main

import (
	"net/http"
	"os"
)

func main() {
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), http.FileServer(http.Dir("/pages"))))
}
"""
DOCKERFILE = """
FROM scratch
COPY server /server
COPY pages /pages
USER 65532
ENTRYPOINT ["/server"]
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


def test_a_folder_of_any_kind_goes_to_the_platforms_store(namespace: Kubectl, tmp_path: Path) -> None:
    """Somebody with the role wisp-editor and no bucket deploys a package with bytes: what is missing is told, the same again is no revision."""
    editor = Wisp(person(namespace, tmp_path, "wisp-editor"), namespace.namespace)
    project = write_project(tmp_path / "project", HELLO + PUBLIC, WEIGHED)
    weights = tmp_path / "project" / "function" / "model" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(os.urandom(2 << 20))
    refused = editor("deploy", project)
    assert (refused.code, "the right to create serviceaccounts/token" in refused.err) == (1, True), refused.err
    with uploading(namespace):
        seen = [deploy(editor, project)]
        wait_answer(namespace.wait_ready("functions", "hello")["status"]["url"], weight_of(weights))
        seen.append(deploy(editor, project))
        weights.write_bytes(os.urandom(2 << 20))
        seen.append(deploy(editor, project))
    wait_answer(namespace.wait_ready("functions", "hello")["status"]["url"], weight_of(weights))
    assert seen == ["created, sent", "unchanged", "updated, sent"]
    revisions = namespace.items("revisions.serving.knative.dev", "wisp.dev/function=hello")
    assert len(revisions) == 2


def deploy(wisp: Wisp, project: str) -> str:
    """What `deploy` says that it did: to the Function, and whether it sent code."""
    done = wisp("deploy", project)
    assert done.code == 0, done.err
    (told,) = re.findall(r"function/hello (created|updated|unchanged)$", done.err, re.MULTILINE)
    return f"{told}, sent" if "goes to the code store" in done.err else told


def wait_answer(url: str, text: str) -> None:
    """Wait until a function answers this: the route follows its status."""
    wait_until(lambda: call(url) == (200, text), f"{url} answers {text}")


def weight_of(weights: Path) -> str:
    """What the function answers: as text of JSON."""
    return json.dumps(hashlib.sha256(weights.read_bytes()).hexdigest())


def test_a_folder_with_a_dockerfile_is_built_pushed_and_served(
    namespace: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each content runs by the digest that it was pushed under: the same folder again is no revision, a changed file is one."""
    editor = Wisp(person(namespace, tmp_path, "wisp-editor"), namespace.namespace)
    page = write_site(tmp_path / "site")
    (tmp_path / "wisp.yaml").write_text(SITE + PUBLIC)
    seen = []
    with registry(tmp_path, host_address(namespace)) as host:
        use_buildah(tmp_path, host, monkeypatch)
        monkeypatch.setenv("WISP_REGISTRY", host)
        for text in ("one", "one", "two"):
            page.write_text(text)
            told = deploy(editor, str(tmp_path))
            found = namespace.wait_ready("functions", "hello")
            wait_answer(found["status"]["url"], text)
            seen.append((told, found["spec"]["code"]["image"]))
    assert [told for told, _ in seen] == ["created", "unchanged", "updated"]
    (_, one), (_, same), (_, two) = seen
    assert all(re.fullmatch(re.escape(f"{host}/hello@sha256:") + "[0-9a-f]{64}", image) for image in (one, two))
    assert one == same != two
    assert len(namespace.items("revisions.serving.knative.dev", "wisp.dev/function=hello")) == 2


def write_site(folder: Path) -> Path:
    """A folder with a program that serves pages, and its Dockerfile; returns the page."""
    (folder / "pages").mkdir(parents=True)
    (folder / "main.go").write_text(SERVER)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    build = ["go", "build", "-o", "server", "main.go"]
    subprocess.run(build, cwd=folder, env=os.environ | {"CGO_ENABLED": "0"}, check=True, timeout=300)
    return folder / "pages" / "index.html"


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
