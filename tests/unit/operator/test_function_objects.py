"""A Function becomes an immutable ConfigMap and a Knative Service that a cluster with Knative's default settings takes."""

import json
from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_operator.function_objects import make_config_map, make_knative_service
from wisp_operator.quantities import canonical_resources, quantity

IMAGE = "registry.example/wisp-runtime-python3.13:0.1.0"


def service(**spec: Any) -> dict[str, Any]:
    """The Knative Service of a Function with this spec."""
    function = make_function(**spec)
    return make_knative_service(function, msgspec.convert(function["spec"], FunctionSpec), IMAGE)


def template(**spec: Any) -> dict[str, Any]:
    """Its template's spec."""
    made: dict[str, Any] = service(**spec)["spec"]["template"]["spec"]
    return made


def container(**spec: Any) -> dict[str, Any]:
    """Its container."""
    made: dict[str, Any] = template(**spec)["containers"][0]
    return made


def revision(**spec: Any) -> str:
    """The name of its revision."""
    name: str = service(**spec)["spec"]["template"]["metadata"]["name"]
    return name


def test_same_content_is_the_same_revision() -> None:
    """Compiling the same Function twice gives equal objects, names included."""
    assert service() == service()


@pytest.mark.parametrize(
    ("reason", "spec"),
    [
        ("code", {"code": {"files": {"app.py": "other"}}}),
        ("handler", {"handler": "app.other"}),
        ("memory", {"memory": "256Mi"}),
        ("timeout", {"timeoutSeconds": 31}),
        ("scale", {"scale": {"max": 5}}),
        ("environment", {"env": [{"name": "A", "value": "b"}]}),
        ("pod annotation", {"pod": {"annotations": {"a": "b"}}}),
    ],
)
def test_changed_content_is_another_revision(reason: str, spec: dict[str, Any]) -> None:
    """Whatever the pods depend on is in the revision's name, so Knative starts a new revision for it."""
    assert revision(**spec) != revision(), reason


def test_visibility_keeps_the_revision() -> None:
    """Who may reach the function is the Service's affair; no pod restarts for it."""
    public = service(visibility="public", auth={"type": "none"})
    assert public["spec"] == service()["spec"]
    assert "networking.knative.dev/visibility" not in public["metadata"]["labels"]
    assert service()["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"


def test_names_fit_dns_labels() -> None:
    """The longest name that the CRD admits still makes revisions whose names are DNS labels."""
    function = make_function("a" * 50)
    made = make_knative_service(function, msgspec.convert(function["spec"], FunctionSpec), IMAGE)
    name = made["spec"]["template"]["metadata"]["name"]
    assert name.startswith("a" * 50 + "-")
    assert len(name) <= 63


def test_code_is_mounted_from_an_immutable_config_map() -> None:
    """Inline code is a ConfigMap named by its content, owned by the Function, read-only in the pod."""
    function = make_function()
    made = make_config_map(function, {"app.py": "x"})
    assert made["immutable"] is True
    assert made["data"] == {"app.py": "x"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-of-hello"
    names = {volume["name"]: volume for volume in template()["volumes"]}
    assert names["code"]["configMap"]["name"].startswith("hello-")
    assert {"name": "code", "mountPath": "/var/task", "readOnly": True} in container()["volumeMounts"]


def test_an_inline_bootstrap_can_be_executed() -> None:
    """With runtime provided the mounted files are executable; with others they stay as they were."""
    modes = []
    for runtime in ("provided", "python3.13"):
        volumes = {volume["name"]: volume for volume in template(runtime=runtime)["volumes"]}
        modes.append(volumes["code"]["configMap"].get("defaultMode"))
    assert modes == [0o555, None]


def test_image_brings_its_own_code() -> None:
    """With code.image nothing is mounted over the code that the image holds."""
    made = template(code={"image": "registry.example/thumbnail@sha256:1"})
    assert made["containers"][0]["image"] == "registry.example/thumbnail@sha256:1"
    assert [volume["name"] for volume in made["volumes"]] == ["tmp"]


def test_container_runtime_is_probed_by_port_only() -> None:
    """An image that serves HTTP itself knows nothing of our health path and handler."""
    made = container(runtime="container", handler=None, code={"image": "registry.example/web:1"})
    assert "readinessProbe" not in made
    assert {variable["name"] for variable in made["env"]}.isdisjoint({"WISP_HANDLER", "WISP_SIGNATURE"})


CLIENT: dict[str, Any] = {
    "runtime": "container",
    "signature": "lambda",
    "handler": None,
    "code": {"image": "registry.example/a:1"},
}


def test_an_image_with_its_own_client_has_our_front_beside_it() -> None:
    """Two containers, the front's first; Knative's one port and the probes are the image's, as default flags have it."""
    front, own = template(**CLIENT)["containers"]
    assert (front["name"], front["image"]) == ("front", IMAGE)
    assert (own["name"], own["image"], own["ports"]) == ("function", "registry.example/a:1", [{"containerPort": 8080}])
    assert not {"ports", "readinessProbe", "livenessProbe", "volumeMounts"} & front.keys()
    assert own["readinessProbe"]["httpGet"]["path"] == "/_wisp/health"
    assert own["livenessProbe"]["httpGet"]["path"] == "/_wisp/life"
    assert own["livenessProbe"]["failureThreshold"] == 1
    assert "terminationGracePeriodSeconds" not in own["livenessProbe"], "Knative's schema refuses it"


def test_front_and_client_meet_at_one_address() -> None:
    """The front has the platform's settings, the image AWS Lambda's environment and the Function's; none has the other's."""
    front, own = (
        {item["name"]: item.get("value") for item in made["env"]}
        for made in template(**CLIENT, env=[{"name": "KEY", "value": "secret"}, {"name": "TZ", "value": "CET"}])[
            "containers"
        ]
    )
    assert front["WISP_RUNTIME_API"] == own["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001"
    assert front["WISP_TIMEOUT_SECONDS"] == "30"
    assert not any(name.startswith("WISP_") for name in own)
    assert "KEY" not in front
    assert (own["KEY"], own["TZ"], own["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) == ("secret", "CET", "128")


def test_both_containers_are_restricted() -> None:
    """As any function's; the image's own USER doesn't count, as in AWS Lambda: most of these images have none, which is root."""
    front, own = (made["securityContext"] for made in template(**CLIENT)["containers"])
    assert front == container()["securityContext"]
    assert own == front | {"runAsUser": 993}


def test_the_handler_is_the_images_argument() -> None:
    """As AWS' base images and clients take it; without one the image's CMD says it."""
    assert "args" not in template(**CLIENT)["containers"][1]
    own = template(**CLIENT | {"handler": "app.handler"})["containers"][1]
    assert own["args"] == ["app.handler"]
    assert {"name": "_HANDLER", "value": "app.handler"} in own["env"]


def test_pods_are_restricted() -> None:
    """Non-root, no capabilities, no escalation, read-only root, default seccomp, no token."""
    context = container()["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert template()["automountServiceAccountToken"] is False


def test_token_is_mounted_with_a_service_account_only() -> None:
    """Naming a ServiceAccount is asking for its token; Knative admits no explicit true."""
    made = template(serviceAccountName="thumbnail")
    assert made["serviceAccountName"] == "thumbnail"
    assert "automountServiceAccountToken" not in made


@pytest.mark.parametrize(
    ("reason", "spec"),
    [
        ("code in our runtime", {}),
        (
            "a client of its own",
            {"runtime": "container", "signature": "lambda", "code": {"image": "i"}, "handler": None},
        ),
        ("an image that serves itself", {"runtime": "container", "code": {"image": "i"}, "handler": None}),
    ],
)
def test_code_may_post_in_its_service_accounts_name(reason: str, spec: dict[str, Any]) -> None:
    """With a ServiceAccount the code gets a token for the ingest alone, and its address; without one neither."""
    for account in ({"serviceAccountName": "thumbnail"}, {}):
        function = make_function(**spec, **account)
        wanted = msgspec.convert(function["spec"], FunctionSpec)
        made = make_knative_service(function, wanted, IMAGE, ingest_url="http://ingest:8080")["spec"]["template"][
            "spec"
        ]
        code, *others = reversed(made["containers"])
        tokens = [volume["projected"]["sources"][0] for volume in made["volumes"] if volume["name"] == "ingest"]
        told = {item["name"]: item["value"] for item in code["env"] if item["name"].startswith("WISP_INGEST")}
        mounts = [mount for mount in code["volumeMounts"] if mount["name"] == "ingest"]
        assert [token["serviceAccountToken"]["audience"] for token in tokens] == ["wisp.dev/ingest"] * len(account), (
            reason
        )
        assert len(mounts) == len(account)
        if account:
            assert told["WISP_INGEST_URL"] == "http://ingest:8080"
            assert told["WISP_INGEST_TOKEN_FILE"].startswith(mounts[0]["mountPath"] + "/")
        else:
            assert not told
        assert not any(mount["name"] == "ingest" for other in others for mount in other.get("volumeMounts", []))


@pytest.mark.parametrize(
    ("reason", "spec", "cpu"),
    [
        ("1769 MiB is one CPU", {"memory": "1769Mi"}, "1"),
        ("a share of one, rounded up", {"memory": "128Mi"}, "73m"),
        ("whole gibibytes count too", {"memory": "2Gi"}, "1158m"),
        ("written out", {"cpu": "0.5"}, "500m"),
        ("written in thousandths", {"cpu": "2000m"}, "2"),
    ],
)
def test_cpu_follows_memory(reason: str, spec: dict[str, Any], cpu: str) -> None:
    """The CPU request is the memory's share, unless it is written out; always in canonical form."""
    assert container(**spec)["resources"]["requests"]["cpu"] == cpu, reason


@pytest.mark.parametrize(
    ("written", "canonical"), [("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("2Gi", "2Gi"), ("128Mi", "128Mi")]
)
def test_quantities_are_canonical(written: str, canonical: str) -> None:
    """Knative's webhook rewrites quantities; ones that it leaves alone are no drift."""
    assert quantity(written) == canonical


def test_reader_resources_are_canonical() -> None:
    """What an administrator writes in another form is no drift either."""
    written = {"requests": {"cpu": "0.05", "memory": "1024Mi"}, "limits": {"memory": "512Mi"}}
    assert canonical_resources(written) == {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "512Mi"}}


def test_environment_keeps_references_and_drops_what_is_empty() -> None:
    """Secrets come by reference; an empty value is left out, as Go's encoding does."""
    made = container(
        env=[
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "EMPTY", "value": ""},
        ],
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "c"}}],
    )
    assert made["env"][-2:] == [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "EMPTY"},
    ]
    assert made["envFrom"] == [{"prefix": "P_", "configMapRef": {"name": "c"}}]


def test_secrets_are_mounted_beside_their_variables() -> None:
    """A key that a variable comes from is mounted, and no other; whole Secrets whole; nothing keeps a pod from starting."""
    env = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "DSN", "value": "x:$(KEY)"},
        {"name": "PLAIN", "value": "1"},
    ]
    pod = template(env=env)
    volume = {"secretName": "s", "items": [{"key": "k", "path": "k"}], "optional": True}
    assert pod["volumes"][-1] == {"name": "env-0", "secret": volume}
    made = pod["containers"][0]
    assert made["volumeMounts"][-1] == {"name": "env-0", "mountPath": "/etc/wisp/env/secrets/s", "readOnly": True}
    told = [{"name": "KEY", "at": "secrets/s", "key": "k"}, {"name": "DSN", "value": "x:$(KEY)"}, {"name": "PLAIN"}]
    assert json.loads(next(one["value"] for one in made["env"] if one["name"] == "WISP_ENV")) == {"env": told}
    whole = template(envFrom=[{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}])["volumes"][-2:]
    assert [one.get("configMap") or one["secret"] for one in whole] == [
        {"name": "c", "optional": True},
        {"secretName": "s", "optional": True},
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            ]
        },
        {"envFrom": [{"configMapRef": {"name": "c"}}]},
        {"runtime": "container", "code": {"image": "i"}, "handler": None, "envFrom": [{"secretRef": {"name": "s"}}]},
        {
            "runtime": "container",
            "code": {"image": "i"},
            "signature": "lambda",
            "envFrom": [{"secretRef": {"name": "s"}}],
        },
        {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "../k"}}}]},
        {
            "envFrom": [{"secretRef": {"name": "s"}}],
            "env": [{"name": "A", "value": "$" * 32768}],  # each is written as six bytes
        },
    ],
)
def test_pods_without_mounted_secrets(spec: dict[str, Any]) -> None:
    """No Secret, nobody of ours in the pod who would look, no key that there could be, or too much to tell: nothing is mounted."""
    pod = template(**{key: value for key, value in spec.items() if value is not None})
    assert not [one for one in pod["volumes"] if one["name"].startswith("env-")]
    assert not [one for made in pod["containers"] for one in made["env"] if one["name"] == "WISP_ENV"]


def test_scale_becomes_knative_annotations() -> None:
    """Bounds and idle time are annotations; a revision starts one pod to prove itself whatever the cluster's default."""
    made = service(scale={"min": 1, "max": 4, "perInstance": 8, "idleSeconds": 60})["spec"]["template"]
    annotations = made["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/min-scale"] == "1"
    assert annotations["autoscaling.knative.dev/max-scale"] == "4"
    assert annotations["autoscaling.knative.dev/window"] == "60s"
    assert annotations["autoscaling.knative.dev/initial-scale"] == "1"
    assert made["spec"]["containerConcurrency"] == 8


def test_each_pod_may_be_filled() -> None:
    """Knative's own 70 % would start a second pod for each request of a Function that takes one at a time."""
    annotations = service()["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/target-utilization-percentage"] == "100"


def test_tmp_is_bounded() -> None:
    """/tmp holds as much as ephemeralStorage says, and half a gibibyte where it says nothing."""
    assert template(ephemeralStorage="1Gi")["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}
    assert template()["volumes"][0]["emptyDir"] == {"sizeLimit": "512Mi"}


def test_pods_carry_what_the_function_adds() -> None:
    """Nodes, taints, registries' Secrets and annotations are the pods', word for word; the platform's own annotations stay."""
    added: dict[str, Any] = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
    }
    annotations = {"team": "a", "autoscaling.knative.dev/max-scale": "9"}
    made = service(pod=added | {"annotations": annotations}, scale={"max": 4})["spec"]["template"]
    assert {key: made["spec"][key] for key in added} == added
    assert made["metadata"]["annotations"]["team"] == "a"
    assert made["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"] == "4"


def test_volumes_lie_in_the_functions_container_under_names_of_their_own() -> None:
    """All that hold configuration are read-only; none meets a volume of the platform's, whatever it is called; the front beside an image has none."""
    pod = {
        "runtimeClassName": "gvisor",
        "volumes": [
            {"name": "tmp", "configMap": {"name": "settings", "items": [{"key": "a", "path": "b/c"}]}},
            {"name": "code", "secret": {"secretName": "mail", "optional": True}},
            {
                "name": "both",
                "projected": {"sources": [{"secret": {"name": "mail"}}, {"configMap": {"name": "settings"}}]},
            },
            {"name": "cache", "emptyDir": {"sizeLimit": "2048Mi", "medium": "Memory"}},
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "out", "persistentVolumeClaim": {"claimName": "out", "readOnly": False}},
        ],
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/mnt/settings", "subPath": "b"},
            *({"name": name, "mountPath": f"/mnt/{name}"} for name in ("code", "both", "cache", "models", "out")),
        ],
    }
    for given in ({}, {"runtime": "container", "handler": None, "signature": "lambda", "code": {"image": "a"}}):
        made = template(pod=pod, **given)
        volumes = {one["name"]: {key: one[key] for key in one if key != "name"} for one in made["volumes"]}
        assert len(volumes) == len(made["volumes"])
        assert volumes["tmp"] == {"emptyDir": {"sizeLimit": "512Mi"}}
        assert volumes["own-tmp"] == {"configMap": {"name": "settings", "items": [{"key": "a", "path": "b/c"}]}}
        assert volumes["own-code"] == {"secret": {"secretName": "mail", "optional": True}}
        assert volumes["own-both"] == {
            "projected": {"sources": [{"secret": {"name": "mail"}}, {"configMap": {"name": "settings"}}]}
        }
        assert volumes["own-cache"] == {"emptyDir": {"sizeLimit": "2Gi", "medium": "Memory"}}
        assert volumes["own-models"] == {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
        assert volumes["own-out"] == {"persistentVolumeClaim": {"claimName": "out"}}
        *others, own = made["containers"]
        mounts = [one for one in own["volumeMounts"] if one["name"].startswith("own-")]
        assert mounts[0] == {"name": "own-tmp", "mountPath": "/mnt/settings", "subPath": "b", "readOnly": True}
        assert [one["name"] for one in mounts if not one.get("readOnly")] == ["own-cache", "own-out"]
        assert len(mounts) == 6
        assert not [one for other in others for one in other.get("volumeMounts", []) if one["name"].startswith("own-")]
        assert made["runtimeClassName"] == "gvisor"


def test_knatives_burst_capacity_is_left_to_the_function() -> None:
    """Nothing is said of it, so that the activator holds what pods have no room for, unless the Function says otherwise."""
    name = "autoscaling.knative.dev/target-burst-capacity"
    assert name not in service()["spec"]["template"]["metadata"]["annotations"]
    made = service(pod={"annotations": {name: "0"}})["spec"]["template"]
    assert made["metadata"]["annotations"][name] == "0"


def test_the_runtime_is_told_what_the_function_says() -> None:
    """What Knative lets into a pod at once is what the runtime runs at once, apart or together, with the logs that the Function asks for."""
    made = container(scale={"perInstance": 8}, isolation="shared", logFormat="text")
    told = {item["name"]: item.get("value") for item in made["env"]}
    assert (told["WISP_CONCURRENCY"], told["WISP_ISOLATION"], told["WISP_LOG_FORMAT"]) == ("8", "shared", "text")
    assert template(scale={"perInstance": 8})["containerConcurrency"] == 8


def test_platform_labels_win() -> None:
    """A pod label of the user's can't take a pod away from its Function."""
    made = service(pod={"labels": {"wisp.dev/function": "other", "team": "a"}})["spec"]["template"]["metadata"][
        "labels"
    ]
    assert made["wisp.dev/function"] == "hello"
    assert made["team"] == "a"


def test_long_answers_are_allowed_as_long_as_the_timeout() -> None:
    """Knative's own limit for the first byte, 300 s, does not cut a longer timeout."""
    made = template(timeoutSeconds=600)
    assert (made["timeoutSeconds"], made["responseStartTimeoutSeconds"]) == (600, 600)


def test_pods_are_told_where_log_lines_go() -> None:
    """The front gets address and token, one that is good for nothing else; without a log stream there is neither."""
    function = make_function()
    spec = msgspec.convert(function["spec"], FunctionSpec)
    made = make_knative_service(function, spec, IMAGE, log_lines_url="http://ingest:8080")["spec"]["template"]["spec"]
    meta, told = function["metadata"], made["containers"][0]
    url = f"http://ingest:8080/v1/namespaces/{meta['namespace']}/functions/{meta['name']}/logs/{meta['uid']}"
    assert {"name": "WISP_LOG_URL", "value": url} in told["env"]
    [volume] = [volume for volume in made["volumes"] if volume["name"] == "logs"]
    [source] = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "wisp.dev/logs"
    assert {"name": "logs", "mountPath": "/etc/wisp/logs", "readOnly": True} in told["volumeMounts"]
    assert not made["automountServiceAccountToken"]
    assert "logs" not in [volume["name"] for volume in template()["volumes"]]


def test_an_image_that_serves_itself_gets_no_token_for_log_lines() -> None:
    """Nothing there would send them; where the front stands before the image, it is the front's."""
    image: dict[str, Any] = {"runtime": "container", "code": {"image": "example/app"}, "handler": None}
    for signature, wanted in (("http", []), ("lambda", ["front"])):
        function = make_function(**image, signature=signature)
        spec = msgspec.convert(function["spec"], FunctionSpec)
        made = make_knative_service(function, spec, IMAGE, log_lines_url="http://ingest:8080")
        mounts = {
            container["name"]
            for container in made["spec"]["template"]["spec"]["containers"]
            for mount in container.get("volumeMounts", [])
            if mount["name"] == "logs"
        }
        assert sorted(mounts) == wanted
