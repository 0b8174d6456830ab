"""Functions with requirements against a real Kubernetes API, store and resolver: the test only plays Kubernetes' own controllers."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures.code_store import CodeStore, JobController
from fixtures.control_plane import Knative, secret, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function
from fixtures.package_index import PASSWORD, USER, PackageIndex, package_index
from fixtures.process import wait_until

pytestmark = pytest.mark.usefixtures("operator", "nats")
CODE_READY, OK = "CodeReady", ("True", "AsWanted")


@pytest.fixture
def index(jobs: JobController, package_port: int) -> Iterator[PackageIndex]:
    """The installation's package index, to which the namespace has the key."""
    with package_index(port=package_port) as running:
        running.offer("alpha", "1.0", {"alpha.py": "N = 1"})
        jobs.tenant.open_index(username=USER, password=PASSWORD)
        yield running


def function(namespace: str, *requirements: str, name: str = "hello", **spec: Any) -> dict[str, Any]:
    """A Function as a user writes it."""
    made = make_function(name, namespace, requirements=list(requirements), **spec)
    return made | {"metadata": {"name": name, "namespace": namespace}}


def status(cluster: Kube, namespace: str, name: str = "hello") -> dict[str, Any]:
    """What a Function's status says of its requirements."""
    found = cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/{name}")
    built: dict[str, Any] = found["status"].get("requirements", {})
    return built


def layers(knative: Knative, name: str = "hello") -> str:
    """The layers that a Service's template names."""
    container = knative.wait_service(name)["spec"]["template"]["spec"]["containers"][0]
    return next((item["value"] for item in container["env"] if item["name"] == "WISP_LAYERS"), "")


def test_built_once_and_shared(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, index: PackageIndex
) -> None:
    """One Job builds the layer for two Functions that want the same; a third that comes later takes it over without one."""
    cluster.apply(function(namespace, "alpha==1.0"))
    message = wait_condition(cluster, "functions", namespace, "hello", CODE_READY, ("Unknown", "BuildingRequirements"))
    assert "wisp-build-" in message
    cluster.apply(function(namespace, "alpha  == 1.0", name="second"))
    wait_condition(cluster, "functions", namespace, "second", CODE_READY, ("Unknown", "BuildingRequirements"))
    (job,) = jobs.builds()
    result = jobs.finish_build("alpha")
    assert result["status"] == 0, result
    sha256 = result["archives"][0]["sha256"]
    wait_until(lambda: layers(knative) == layers(knative, "second") == sha256, "both name the layer")
    wait_until(lambda: status(cluster, namespace).get("packages") == ["alpha==1.0"], "the status names it")
    cluster.request("DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs/{job['metadata']['name']}")
    asked = len(index.asked)
    cluster.apply(function(namespace, "alpha==1.0", name="third"))
    wait_until(lambda: layers(knative, "third") == sha256, "the third names it")
    assert not [one for one in jobs.builds() if one["metadata"]["uid"] != job["metadata"]["uid"]]
    assert len(index.asked) == asked
    assert f"{namespace}/{sha256}" in jobs.tenant.store.archives()


def test_job_holds_no_more_than_it_needs(
    cluster: Kube, namespace: str, jobs: JobController, index: PackageIndex
) -> None:
    """Pod Security restricted admits it; it has the right to write its namespace's code, the index's Secret, and no token of the API."""
    assert index
    cluster.apply(function(namespace, "alpha", pod={"nodeSelector": {"kubernetes.io/arch": "arm64"}}))
    wait_until(lambda: bool(jobs.builds()), "a Job")
    (job,) = jobs.builds()
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume} == {
        "wisp-code",
        "wisp-package-index",
    }
    assert secret(cluster, namespace, "wisp-code", "write") not in str(job)
    assert jobs.finish_build("alpha")["status"] == 0  # makes its pod, which the namespace's Pod Security has to admit


def test_fault_is_a_condition_and_heals(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, index: PackageIndex
) -> None:
    """The resolver's words stand in CodeReady; what served goes on meanwhile, and a corrected list deploys."""
    cluster.apply(function(namespace, "alpha"))
    jobs.finish_build("alpha")
    wait_until(lambda: bool(layers(knative)), "its Service")
    before = layers(knative)
    cluster.apply(function(namespace, "alpha", "missing"))
    jobs.finish_build("missing")
    message = wait_condition(cluster, "functions", namespace, "hello", CODE_READY, ("False", "ResolutionFailed"))
    assert message.startswith("spec.requirements: ")
    assert "missing was not found" in message
    assert layers(knative) == before
    index.offer("beta", "1.0", {"beta.py": ""})
    cluster.apply(function(namespace, "alpha", "beta"))
    jobs.finish_build("beta")
    wait_until(lambda: layers(knative) != before, "the new layer")
    packages = ["alpha==1.0", "beta==1.0"]
    wait_until(lambda: status(cluster, namespace)["packages"] == packages, "the status names both")


def test_layer_waits_for_the_rest_of_the_code(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, index: PackageIndex, store: CodeStore
) -> None:
    """A layer that no Service names yet, because the zip is still being fetched, is not collected: the Function remembers it."""
    assert index
    code = {"zip": {"bucket": "code", "key": "later.zip", "connection": {"name": "my-s3"}}}
    cluster.apply(function(namespace, "alpha", code=code))
    sha256 = jobs.finish_build("alpha")["archives"][0]["sha256"]
    wait_until(lambda: status(cluster, namespace).get("sha256") == sha256, "the Function remembers it")
    stray = f"{namespace}/{'0' * 64}"
    store.minio.client().put_object("wisp-code", stray, io.BytesIO(b""), 0)
    wait_until(lambda: stray not in store.archives(), "what nothing names is collected")
    assert f"{namespace}/{sha256}" in store.archives()
    assert knative.service("hello") is None


def test_layer_goes_with_its_last_function(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, index: PackageIndex, store: CodeStore
) -> None:
    """A layer that no Function and no revision names is collected, and one that was lost is built again."""
    assert index
    cluster.apply(function(namespace, "alpha"))
    sha256 = jobs.finish_build("alpha")["archives"][0]["sha256"]
    wait_until(lambda: layers(knative) == sha256, "its Service")
    store.minio.client().remove_object("wisp-code", f"{namespace}/{sha256}")
    cluster.apply(function(namespace, "alpha", name="second"))
    assert jobs.finish_build("alpha")["archives"][0]["sha256"] == sha256
    wait_until(lambda: layers(knative, "second") == sha256, "it is there again")
    for name in ("hello", "second"):
        cluster.request("DELETE", f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/{name}")
    for kind in ("services", "revisions"):  # what Kubernetes' collector does
        cluster.request("DELETE", f"/apis/serving.knative.dev/v1/namespaces/{namespace}/{kind}")
    wait_until(lambda: f"{namespace}/{sha256}" not in store.archives(), "it is collected")


@pytest.mark.parametrize(
    ("requirements", "spec", "says"),
    [
        (["-r other.txt"], {}, "without options, URLs and paths"),
        (["a @ https://example.org/a.whl"], {}, "without options, URLs and paths"),
        (["./a.whl"], {}, "without options, URLs and paths"),
        (["alpha --index-url=x"], {}, "without options, URLs and paths"),
        (["${HOME}"], {}, "write a package as pip does"),
        (["alpha\nbeta"], {}, "write a package as pip does"),
        (["alpha"], {"runtime": "nodejs24"}, "requirements are Python packages"),
        (["alpha"], {"code": {"image": "a"}}, "install them in the image"),
        (["alpha"] * 101, {}, "requirements"),
    ],
)
def test_wrong_list_is_refused(
    cluster: Kube, namespace: str, requirements: list[str], spec: dict[str, Any], says: str
) -> None:
    """The CRD says what to write instead."""
    assert says in cluster.refusal(function(namespace, *requirements, **spec))


def test_what_pip_takes_is_taken(cluster: Kube, namespace: str) -> None:
    """Versions, extras and markers as requirements.txt has them."""
    taken = [
        "Pillow==11.0.0",
        "requests[socks, security] >=2.31, <3",
        "tomli; python_version < '3.11'",
        'a ~= 1!2.0.*;extra=="b"',
    ]
    cluster.apply(function(namespace, *taken))
