"""Functions with archives against a real Kubernetes API, a real store and a real MinIO: the test only plays Kubernetes' own controllers."""

import io
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from fixtures.code_store import CodeStore, JobController, make_zip
from fixtures.control_plane import WISP, Knative, audit_position, conditions_of, secret, wait_condition, writes
from fixtures.kube import Kube
from fixtures.minio import MinioServer
from fixtures.objects import make_function
from fixtures.process import wait_until

pytestmark = pytest.mark.usefixtures("operator", "nats")
READY, CODE_READY, OK = "Ready", "CodeReady", ("True", "AsWanted")
APP = "def handler(event, context):\n    return 'from the zip'\n"
Upload = Callable[[str, bytes], None]


@pytest.fixture
def upload(minio: MinioServer) -> Upload:
    """Put an object into the users' bucket."""

    def upload(key: str, data: bytes) -> None:
        minio.client().put_object("code", key, io.BytesIO(data), len(data))

    return upload


def archive(key: str, **fields: Any) -> dict[str, Any]:
    """An object of the users' bucket, as a Function names it."""
    return {"bucket": "code", "key": key, "connection": {"name": "my-s3"}, **fields}


def function(namespace: str, **spec: Any) -> dict[str, Any]:
    """A Function as a user writes it."""
    return make_function("hello", namespace, **spec) | {"metadata": {"name": "hello", "namespace": namespace}}


def digests(knative: Knative) -> dict[str, str]:
    """What the Service's template says about archives."""
    container = knative.wait_service("hello")["spec"]["template"]["spec"]["containers"][0]
    return {item["name"]: item["value"] for item in container["env"] if item["name"] in {"WISP_CODE", "WISP_LAYERS"}}


def fetched(knative: Knative, jobs: JobController, sha256: str) -> None:
    """Run Jobs until the Service names this archive: one that a busy machine took too long to name is collected, and fetched again."""

    def named() -> bool:
        if jobs.running("hello"):
            jobs.finish("hello")
        return knative.service("hello") is not None and digests(knative)["WISP_CODE"] == sha256

    wait_until(named, "its Service")


def deployed(cluster: Kube, knative: Knative, jobs: JobController, sha256: str) -> None:
    """Bring a Function that names this archive to Ready."""
    fetched(knative, jobs, sha256)
    knative.roll_out("hello")
    wait_condition(cluster, "functions", knative.namespace, "hello", READY, OK)


def sha256_of(data: bytes) -> str:
    """The SHA-256 of an archive."""
    import hashlib  # noqa: PLC0415 - used here only

    return hashlib.sha256(data).hexdigest()


def test_zip_is_fetched_once_and_deployed(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, upload: Upload
) -> None:
    """CodeReady tells of the fetch while it runs; then the revision names the digests, the Job goes, and nothing is written any more."""
    code, layer = make_zip({"app.py": APP}), make_zip({"python/x.py": ""})
    upload("app.zip", code)
    upload("layer.zip", layer)
    pinned = archive("app.zip", sha256=sha256_of(code)), archive("layer.zip", sha256=sha256_of(layer))
    cluster.apply(function(namespace, code={"zip": pinned[0]}, layers=[pinned[1]]))
    message = wait_condition(cluster, "functions", namespace, "hello", CODE_READY, ("Unknown", "FetchingCode"))
    assert "s3://code/app.zip" in message
    assert knative.service("hello") is None
    deployed(cluster, knative, jobs, sha256_of(code))
    assert digests(knative) == {"WISP_CODE": sha256_of(code), "WISP_LAYERS": sha256_of(layer)}
    wait_until(lambda: jobs.job("hello") is None, "the Job goes")
    found = cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/hello")
    assert found["status"]["codeSha256"] == sha256_of(code)
    assert [one["source"]["key"] for one in found["status"]["archives"]] == ["app.zip", "layer.zip"]
    since = audit_position(cluster)
    cluster.apply(function(namespace, code={"zip": pinned[0]}, layers=[pinned[1]], memory="256Mi"))
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    assert writes(cluster, since, namespace) == ["patch services/hello", "patch functions/hello status"]


def test_pods_and_job_hold_no_more_than_they_need(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, upload: Upload
) -> None:
    """The pod mounts the right to read, the Job that to write; neither is in an environment, and no token of the API is mounted."""
    data = make_zip({"app.py": APP})
    upload("app.zip", data)
    cluster.apply(function(namespace, code={"zip": archive("app.zip", sha256=sha256_of(data))}))
    wait_until(lambda: jobs.job("hello") is not None, "a Job")
    job = jobs.job("hello")
    assert job
    job_pod = job["spec"]["template"]["spec"]
    assert job_pod["automountServiceAccountToken"] is False
    deployed(cluster, knative, jobs, sha256_of(data))
    pod = knative.wait_service("hello")["spec"]["template"]["spec"]
    for spec, right in ((pod, "read"), (job_pod, "write")):
        (mounted,) = [
            one["secret"] for one in spec["volumes"] if one.get("secret", {}).get("secretName") == "wisp-code"
        ]
        assert [item["key"] for item in mounted["items"]] == [right]
        assert secret(cluster, namespace, "wisp-code", right) not in str(spec)


@pytest.mark.parametrize(
    ("reason", "key", "content"),
    [("CodeNotFound", "missing.zip", None), ("UnsafeArchive", "evil.zip", {"../evil": ""})],
)
def test_fault_is_a_condition_and_heals(
    cluster: Kube,
    namespace: str,
    knative: Knative,
    jobs: JobController,
    upload: Upload,
    reason: str,
    key: str,
    content: dict[str, str] | None,
) -> None:
    """Code that can't be had is CodeReady False with the reason; a corrected Function deploys."""
    if content:
        upload(key, make_zip(content))
    cluster.apply(function(namespace, code={"zip": archive(key)}))
    jobs.finish("hello")
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", reason))
    assert f"s3://code/{key}" in message
    assert knative.service("hello") is None
    data = make_zip({"app.py": APP})
    upload("good.zip", data)
    cluster.apply(function(namespace, code={"zip": archive("good.zip")}))
    deployed(cluster, knative, jobs, sha256_of(data))


def test_what_goes_on_failing_is_tried_ever_later(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController
) -> None:
    """The condition stands while the next Job runs and says when the one after it comes; another spec begins anew."""

    def told() -> tuple[datetime, datetime]:
        """Since when the code can't be had, and when it is tried again."""
        message = wait_condition(cluster, "functions", namespace, "hello", CODE_READY, ("False", "CodeNotFound"))
        found = cluster.get(f"{WISP}/namespaces/{namespace}/functions/hello")
        assert found
        (state,) = [one for one in found["status"]["conditions"] if one["type"] == CODE_READY]
        return datetime.fromisoformat(state["lastTransitionTime"]), datetime.fromisoformat(message.rpartition(" ")[2])

    cluster.apply(function(namespace, code={"zip": archive("missing.zip")}))
    jobs.finish("hello")
    since, first = told()
    wait_until(lambda: jobs.running("hello"), "another Job")
    assert told() == (since, first)
    jobs.finish("hello")
    wait_until(lambda: told()[1] != first, "the condition says when the next one comes")
    assert told()[0] == since
    assert told()[1] - first >= first - since
    cluster.apply(function(namespace, code={"zip": archive("missing-too.zip")}))
    jobs.finish("hello")
    wait_until(lambda: told()[0] != since, "what failed before counts no more")
    assert abs((told()[1] - told()[0]).total_seconds() - 15) < 10
    assert knative.service("hello") is None


def test_changed_object_is_noticed(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, upload: Upload
) -> None:
    """Another object behind the same key is rolled out without a change of the Function; while it can't be had the old one serves."""
    first, second = make_zip({"app.py": APP}), make_zip({"app.py": APP + "# changed"})
    upload(f"{namespace}.zip", first)
    cluster.apply(function(namespace, code={"zip": archive(f"{namespace}.zip")}))
    deployed(cluster, knative, jobs, sha256_of(first))
    upload(f"{namespace}.zip", b"no archive")
    assert jobs.finish("hello")["reason"] == "InvalidArchive"
    message = wait_condition(cluster, "functions", namespace, "hello", CODE_READY, ("True", "InvalidArchive"))
    assert "what was fetched before serves on" in message
    assert conditions_of(cluster, "functions", namespace, "hello")[READY] == OK
    wait_until(lambda: jobs.running("hello"), "another look")
    assert conditions_of(cluster, "functions", namespace, "hello")[CODE_READY] == ("True", "InvalidArchive")
    upload(f"{namespace}.zip", second)
    deployed(cluster, knative, jobs, sha256_of(second))


def test_only_what_nothing_names_is_collected(
    cluster: Kube, namespace: str, knative: Knative, jobs: JobController, upload: Upload, store: CodeStore
) -> None:
    """An archive goes when its last revision has gone, not when a newer one is there; one that is collected and wanted again is fetched again."""
    contents = [make_zip({"app.py": APP + f"# {number}"}) for number in range(2)]
    revisions = []
    for number, data in enumerate(contents):
        upload(f"{number}.zip", data)
        cluster.apply(function(namespace, code={"zip": archive(f"{number}.zip", sha256=sha256_of(data))}))
        fetched(knative, jobs, sha256_of(data))
        revisions.append(knative.roll_out("hello"))
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    keys = [f"{namespace}/{sha256_of(data)}" for data in contents]
    stray = f"{namespace}/{'0' * 64}"
    store.minio.client().put_object("wisp-code", stray, io.BytesIO(b""), 0)
    wait_until(lambda: stray not in store.archives(), "what nothing names is collected")
    assert set(keys) <= store.archives(), "the old revision names its archive still"
    cluster.request("DELETE", f"/apis/serving.knative.dev/v1/namespaces/{namespace}/revisions/{revisions[0]}")
    wait_until(lambda: keys[0] not in store.archives(), "the old archive is collected")
    assert keys[1] in store.archives()
    cluster.apply(function(namespace, code={"zip": archive("0.zip", sha256=sha256_of(contents[0]))}))
    deployed(cluster, knative, jobs, sha256_of(contents[0]))
    assert keys[0] in store.archives()
    held = f"/api/v1/namespaces/{namespace}/secrets/wisp-code"
    assert cluster.get(held)
    cluster.request("DELETE", f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/hello")
    for kind in ("services", "revisions"):  # what Kubernetes' collector does
        cluster.request("DELETE", f"/apis/serving.knative.dev/v1/namespaces/{namespace}/{kind}")
    wait_until(lambda: cluster.get(held) is None, "after the last archive the capabilities go")
    assert not [key for key in store.archives() if key.startswith(f"{namespace}/")]


def upload_to(store: CodeStore, namespace: str, data: bytes) -> None:
    """Bring an archive into a namespace's part of the store, as `wisp deploy` does."""
    sha256 = sha256_of(data)
    assert store.ask("PUT", f"{namespace}/{sha256}", store.ticket(namespace, sha256), data) == (201, "")


def serve_stored(cluster: Kube, knative: Knative, store: CodeStore, data: bytes) -> str:
    """Bring a Function that names this archive to Ready; its revision. Named first: the operator of these tests soon collects what nothing names."""
    cluster.apply(function(knative.namespace, code={"stored": {"sha256": sha256_of(data)}}))
    upload_to(store, knative.namespace, data)
    wanted = {"WISP_CODE": sha256_of(data)}
    wait_until(lambda: knative.service("hello") is not None and digests(knative) == wanted, "its Service")
    revision = knative.roll_out("hello")
    wait_condition(cluster, "functions", knative.namespace, "hello", READY, OK)
    return revision


def test_what_was_uploaded_is_deployed(cluster: Kube, namespace: str, knative: Knative, store: CodeStore) -> None:
    """Without a Job; what another namespace has uploaded, or nobody, is a condition that says what to do, until this one has uploaded it."""
    first, second = (make_zip({"app.py": APP + f"# {namespace} {number}"}) for number in range(2))
    serve_stored(cluster, knative, store, first)
    status = cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/hello")["status"]
    assert (status["codeSha256"], status.get("archives")) == (sha256_of(first), None)
    upload_to(store, f"{namespace}-other", second)
    cluster.apply(function(namespace, code={"stored": {"sha256": sha256_of(second)}}))
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "CodeNotFound"))
    assert f"no archive {sha256_of(second)} of this namespace: run `wisp deploy` again" in message
    assert digests(knative) == {"WISP_CODE": sha256_of(first)}
    upload_to(store, namespace, second)
    wait_until(lambda: digests(knative) == {"WISP_CODE": sha256_of(second)}, "it is found without a change")


def test_what_was_uploaded_stays_while_something_names_it(
    cluster: Kube, namespace: str, knative: Knative, store: CodeStore
) -> None:
    """A spec that has no revision yet, or an old revision, to which a rollback goes; what is never named goes."""
    named, newer, never = (make_zip({"app.py": APP + f"# {namespace} {number}"}) for number in range(3))
    code = {"stored": {"sha256": sha256_of(newer)}}
    meta = {"name": "unserved", "namespace": namespace}
    cluster.apply(function(namespace, code=code, runtime="provided") | {"metadata": meta})
    old = serve_stored(cluster, knative, store, named)
    for data in (newer, never):
        upload_to(store, namespace, data)
    wait_until(lambda: f"{namespace}/{sha256_of(never)}" not in store.archives(), "what nothing names is collected")
    assert {f"{namespace}/{sha256_of(data)}" for data in (named, newer)} <= store.archives()
    serve_stored(cluster, knative, store, newer)
    cluster.apply(function(namespace, code=code, pin=old))

    def pinned() -> bool:
        targets = knative.wait_service("hello")["spec"]["traffic"]
        return [(one.get("revisionName"), one["percent"]) for one in targets] == [(old, 100)]

    wait_until(pinned, "all requests go to the old revision")
    assert f"{namespace}/{sha256_of(named)}" in store.archives()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"code": {"stored": {"sha256": "0" * 64}, "zip": archive("a.zip")}}, "exactly one kind of code"),
        ({"code": {"stored": {"sha256": "0" * 63}}}, "sha256"),
        ({"code": {"stored": {"sha256": "0" * 64}}, "runtime": "container", "handler": None}, "needs code.image"),
        ({"code": {"files": {"app.py": ""}, "zip": archive("a.zip")}}, "exactly one kind of code"),
        ({"code": {"image": "a"}, "layers": [archive("a.zip")]}, "copy them into the image"),
        ({"code": {"zip": archive("a.zip")}, "runtime": "container", "handler": None}, "needs code.image"),
        ({"code": {"zip": archive("a.zip", sha256="xyz")}}, "sha256"),
        ({"code": {"files": {"app.py": ""}}, "layers": [archive("a.zip")] * 6}, "layers"),
    ],
)
def test_wrong_spec_is_refused(cluster: Kube, namespace: str, spec: dict[str, Any], says: str) -> None:
    """The CRD says what to write instead."""
    assert says in cluster.refusal(function(namespace, **spec))
