"""The chart renders what each set of values promises, hardened, and refuses what it does not know."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml
from fixtures.process import free_port
from wisp_operator.config import OperatorConfig
from wisp_operator.reader import make_labels
from wisp_operator.sources import ReaderKey

from .conftest import CHART, ROOT, Render, helm_template

EXTERNAL = (
    "nats.enabled=false",
    "nats.external.url=tls://nats.example:4222",
    "log.replicas=3",
    "minio.enabled=false",
    's3.servers=[{"name": "store-1", "endpoint": "https://s3.example", "notificationArns": ["arn:aws:sqs:::wisp"]}]',
)
TOPIC_OF_AWS = '["arn:aws:sns:eu-west-1:123456789012:wisp"]'
TOPIC_AND_OTHER = '["arn:aws:sns:default::wisp", "arn:minio:sqs::WISP:webhook"]'
PLAIN = ("networkPolicy.enabled=false", "rbac.aggregate=false", "uninstall.drain=false", "crds.install=false")
PLACED = (
    'scheduling.tolerations=[{"key": "faas", "operator": "Exists"}]',
    'image.pullSecrets=["registry"]',
    'scheduling.nodeSelector={"pool": "faas"}',
)
CLUSTER = ("nats.replicas=3",)
TRACED = ("tracing.otlp.endpoint=https://otlp.example/api", "tracing.otlp.headersSecretName=otlp")
VALUE_SETS = {
    "default": (),
    "external": EXTERNAL,
    "plain": PLAIN,
    "placed": PLACED,
    "cluster": CLUSTER,
    "traced": TRACED,
}


@pytest.fixture(params=VALUE_SETS)
def objects(request: pytest.FixtureRequest, render: Render) -> list[dict[str, Any]]:
    """The rendered objects of each set of values."""
    return render(*VALUE_SETS[request.param])


def pod_specs(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod spec by `Kind/name`."""
    specs = {}
    for one in objects:
        spec = one["spec"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("spec")
        if spec:
            specs[f"{one['kind']}/{one['metadata']['name']}"] = spec
    return specs


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def operator_config(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The operator's configuration file, parsed."""
    config: dict[str, Any] = yaml.safe_load(named(objects, "ConfigMap", "wisp-operator")["data"]["operator.yaml"])
    return config


def test_no_object_stands_twice(objects: list[dict[str, Any]]) -> None:
    """Kind and name identify an object: a second one would replace the first at apply."""
    keys = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(keys) == len(set(keys))


def test_namespaced_objects_name_the_release_namespace(objects: list[dict[str, Any]]) -> None:
    """`kubectl apply` without -n must not scatter objects over namespaces."""
    for one in objects:
        if not one["kind"].startswith(("Cluster", "CustomResource", "Namespace", "ValidatingWebhook")):
            assert one["metadata"].get("namespace") == "wisp-system", one["metadata"]["name"]


def test_pods_meet_the_restricted_pod_security_standard(objects: list[dict[str, Any]]) -> None:
    """Every pod passes the checks of the `restricted` standard, with a read-only root file system on top."""
    for name, spec in pod_specs(objects).items():
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] == 65532, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys(), name
        for volume in spec.get("volumes", []):
            assert not volume.keys() - {"name", "configMap", "secret", "projected", "emptyDir"}, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_only_pods_that_call_the_api_have_a_token(objects: list[dict[str, Any]]) -> None:
    """A ServiceAccount token is mounted into the operator and the drain Job and nowhere else."""
    with_token = {name for name, spec in pod_specs(objects).items() if spec["automountServiceAccountToken"]}
    assert with_token <= {"Deployment/wisp-operator", "Job/wisp-drain"}
    assert "Deployment/wisp-operator" in with_token


def test_containers_state_what_they_need(objects: list[dict[str, Any]]) -> None:
    """Each container requests CPU and memory and bounds its memory; all long-lived ones fit beside Knative on 2 cores."""
    total = 0
    for name, spec in pod_specs(objects).items():
        for container in spec["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert "memory" in resources["limits"], name
            total += (
                int(resources["requests"]["cpu"].removesuffix("m")) if "Deployment" in name or "Stateful" in name else 0
            )
    assert total <= 250


def test_long_lived_pods_have_probes(objects: list[dict[str, Any]]) -> None:
    """Start, liveness and readiness are probed over HTTP on a declared port."""
    for name, spec in pod_specs(objects).items():
        if name.startswith(("Job", "Pod")):
            continue
        (container,) = spec["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports, (name, probe)


def test_no_secret_is_rendered(objects: list[dict[str, Any]]) -> None:
    """Passwords, tokens and keys are made in the cluster: none is an object, a plain environment value or configuration."""
    assert not [one for one in objects if one["kind"] == "Secret"]
    for name, spec in pod_specs(objects).items():
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if re.search("TOKEN|PASSWORD|ROOT_USER|SECRET", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])


def test_rbac_is_narrow(objects: list[dict[str, Any]]) -> None:
    """No rule uses a wildcard, and no cluster-wide rule reads Secrets, by the answer to a patch neither."""
    for one in objects:
        for rule in one.get("rules", []) if one["kind"] in ("ClusterRole", "Role") else []:
            assert "*" not in "".join(value for values in rule.values() for value in values), one["metadata"]["name"]
            if one["kind"] == "ClusterRole" and "secrets" in rule.get("resources", []):
                assert not {"get", "list", "watch", "patch"} & set(rule["verbs"]), one["metadata"]["name"]


def test_selectors_match_their_pods(objects: list[dict[str, Any]]) -> None:
    """A workload selects its own pods and a Service some workload's."""
    pods = []
    for one in objects:
        if template := one.get("spec", {}).get("template"):
            pods.append(template["metadata"]["labels"])
            if one["kind"] != "Job":
                assert one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    for one in objects:
        if one["kind"] == "Service":
            assert any(one["spec"]["selector"].items() <= labels.items() for labels in pods), one["metadata"]["name"]


def test_operator_understands_its_configuration(objects: list[dict[str, Any]]) -> None:
    """What the chart writes is an OperatorConfig, without a key too many."""
    config = msgspec.convert(operator_config(objects), OperatorConfig)
    assert config.namespace == "wisp-system"
    assert set(config.random_secrets["wisp-s3-tokens"]) == {server.name for server in config.s3_servers}


def test_network_policy_admits_the_operators_readers(render: Render) -> None:
    """The labels by which NATS lets readers in are those that the operator gives them, in any namespace."""
    (rule,) = named(render(), "NetworkPolicy", "wisp-nats")["spec"]["ingress"]
    peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "namespaceSelector" in peer]
    labels = make_labels(ReaderKey("postgres", "shop-db"))
    assert [peer.items() <= labels.items() for peer in peers] == [True]


READER = make_labels(ReaderKey("postgres", "shop-db"))
FUNCTION = {"app.kubernetes.io/part-of": "wisp", "app.kubernetes.io/component": "function"}
STRANGER = {"app": "x"}


@pytest.mark.parametrize(
    ("who", "namespace", "whom", "ports"),
    [
        ("operator", "wisp-system", "nats", {4222}),
        ("router", "wisp-system", "nats", {4222}),
        ("ingest", "wisp-system", "nats", {4222}),
        ("test", "wisp-system", "nats", {4222}),
        ("nats", "wisp-system", "nats", {6222}),
        ("store", "wisp-system", "nats", set()),
        ("minio", "wisp-system", "nats", set()),
        (READER, "shop", "nats", {4222}),
        (FUNCTION, "shop", "nats", set()),
        ({"app.kubernetes.io/component": "router"}, "shop", "nats", set()),
        ({"app.kubernetes.io/part-of": "wisp", "app.kubernetes.io/component": "router"}, "shop", "nats", set()),
        ({"app.kubernetes.io/component": "reader"}, "shop", "nats", set()),
        (STRANGER, "wisp-system", "nats", set()),
        (STRANGER, "shop", "nats", set()),
        ("minio", "wisp-system", "ingest", {8080, 9090}),
        (FUNCTION, "shop", "ingest", {8080, 9090}),
        (FUNCTION, "shop", "store", {8080, 9090}),
        (FUNCTION, "shop", "minio", {9000}),
        (STRANGER, "kube-system", "operator", {9090, 9443}),
        (STRANGER, "monitoring", "router", {9090}),
    ],
)
def test_who_reaches_whom(
    render: Render, who: str | dict[str, str], namespace: str, whom: str, ports: set[int]
) -> None:
    """A pod of ours, or of a tenant's, reaches these ports of a part and no others: what the parts need, and of the log nobody else anything."""
    objects = render(*CLUSTER)
    labels = who if isinstance(who, dict) else part(objects, who)
    assert reachable(objects, labels, namespace, part(objects, whom)) == ports


def part(objects: list[dict[str, Any]], component: str) -> dict[str, str]:
    """The labels of a part's pods."""
    return next(
        labels
        for one in objects
        if (
            labels := (one if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}))
            .get("metadata", {})
            .get("labels", {})
        )
        and labels["app.kubernetes.io/component"] == component
    )


def reachable(
    objects: list[dict[str, Any]], labels: dict[str, str], namespace: str, target: dict[str, str]
) -> set[int]:
    """The ports of a pod in the release's namespace that NetworkPolicies leave open to another pod; it has one at least, so all else is shut."""
    policies = [
        one["spec"] for one in objects if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"], target)
    ]
    assert policies
    return {
        port["port"]
        for policy in policies
        for rule in policy["ingress"]
        if "from" not in rule or any(admits(peer, labels, namespace) for peer in rule["from"])
        for port in rule["ports"]
    }


def admits(peer: dict[str, Any], labels: dict[str, str], namespace: str) -> bool:
    """Whether a rule's peer is such a pod."""
    inside = peer["namespaceSelector"] == {} if "namespaceSelector" in peer else namespace == "wisp-system"
    return inside and selects(peer["podSelector"], labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector takes these labels."""
    listed = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in listed)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in listed
    )


def test_three_nats_servers_find_each_other(render: Render) -> None:
    """One value makes a cluster: peers by name, routes that other pods don't reach, a copy of each stream on every server."""
    objects = render(*CLUSTER)
    config = operator_config(objects)
    assert config["natsReplicas"] == len(config["natsPeers"]) == 3
    assert config["natsPeers"][2] == "wisp-nats-2.wisp-nats-peers.wisp-system.svc:6222"
    servers = named(objects, "StatefulSet", "wisp-nats")["spec"]
    assert (servers["replicas"], servers["serviceName"]) == (3, "wisp-nats-peers")
    assert "include cluster.conf" in named(objects, "ConfigMap", "wisp-nats")["data"]["nats.conf"]
    rules = named(objects, "NetworkPolicy", "wisp-nats")["spec"]["ingress"]
    (routes,) = [rule for rule in rules if rule["ports"][0]["port"] == 6222]
    assert [*routes["from"][0]] == ["podSelector"]
    assert routes["from"][0]["podSelector"]["matchLabels"] == servers["selector"]["matchLabels"]
    assert named(objects, "PodDisruptionBudget", "wisp-nats")["spec"]["maxUnavailable"] == 1


def test_external_servers_replace_the_bundled_ones(render: Render) -> None:
    """With external NATS and S3, neither StatefulSet is rendered and the operator knows the addresses given."""
    objects = render(*EXTERNAL)
    assert not [one for one in objects if one["kind"] == "StatefulSet"]
    config = operator_config(objects)
    assert config["natsUrl"] == "tls://nats.example:4222"
    assert config["natsReplicas"] == 3
    assert config["s3Servers"] == [
        {"name": "store-1", "endpoint": "https://s3.example", "notificationArns": ["arn:aws:sqs:::wisp"]}
    ]
    assert config["randomSecrets"] == {"wisp-s3-tokens": ["store-1"]}


def test_uploads_of_code_find_their_way_where_there_is_a_store(render: Render) -> None:
    """The ingest gets the key of tickets alone, who may use its door may bring code to the store; without a store there is neither."""
    objects = render()
    assert operator_config(objects)["randomSecrets"]["wisp-store"] == ["key", "tickets"]
    ingest = str(named(objects, "Deployment", "wisp-ingest"))
    assert str({"name": "wisp-store", "key": "tickets"}) in ingest
    assert str({"name": "wisp-store", "key": "key"}) not in ingest
    rules = named(objects, "Role", "wisp-ingest-caller")["rules"]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in rules] == [
        (["http:wisp-ingest:8080"], ["get", "create"]),
        (["http:wisp-store:8080"], ["create", "update"]),
    ]
    without = render(*EXTERNAL)
    assert "wisp-store" not in str(
        [named(without, "Deployment", "wisp-ingest"), named(without, "Role", "wisp-ingest-caller")]
    )


def test_minio_notifies_through_both_targets(render: Render) -> None:
    """MinIO's fast and its queued target exist under the ARNs that the operator is told, with the token from its Secret."""
    objects = render()
    (container,) = named(objects, "StatefulSet", "wisp-minio")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    (server,) = operator_config(objects)["s3Servers"]
    for arn in server["notificationArns"]:
        target = arn.split(":")[4]
        assert env[f"MINIO_NOTIFY_WEBHOOK_ENABLE_{target}"]["value"] == "on"
        assert env[f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{target}"]["value"].endswith(f"/v1/s3/{server['name']}")
        token = env[f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{target}"]["valueFrom"]["secretKeyRef"]
        assert token == {"name": "wisp-s3-tokens", "key": server["name"]}
    assert env["MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_WISPQUEUE"]["value"].startswith("/data/")
    assert env["MINIO_API_SYNC_EVENTS"]["value"] == "on"


def test_nats_accepts_its_configuration(render: Render, tmp_path: Path) -> None:
    """nats-server itself parses the rendered nats.conf and keeps every message on the disk before it acknowledges."""
    text = named(render(), "ConfigMap", "wisp-nats")["data"]["nats.conf"]
    assert "sync_interval: always" in text
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path)))
    (tmp_path / "auth.conf").write_text("accounts {}\n")
    command = ["nats-server", "-t", "-c", str(tmp_path / "nats.conf")]
    answer = subprocess.run(
        command, env=os.environ | {"SERVER_NAME": "wisp-nats-0"}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (("image.registry=mirror.example/wisp",), "mirror.example/wisp/wisp-events:0.1.0"),
        (("image.registry=dev.local", "images.events.tag=0.1.0-1a2b3c4d"), "dev.local/wisp-events:0.1.0-1a2b3c4d"),
        (("images.events.registry=other.example", "images.events.repository=e"), "other.example/e:0.1.0"),
        ((f"images.events.digest=sha256:{'0' * 64}",), f"ghcr.io/wisp-faas/wisp-events@sha256:{'0' * 64}"),
    ],
)
def test_images_can_come_from_anywhere(render: Render, values: tuple[str, ...], wanted: str) -> None:
    """Registry, repository, tag and digest can be overridden, in pods and in what the operator starts."""
    objects = render(*values)
    assert pod_specs(objects)["Deployment/wisp-router"]["containers"][0]["image"] == wanted
    assert operator_config(objects)["eventsImage"] == wanted


def test_pull_settings_reach_every_pod(render: Render) -> None:
    """Pull secrets and placement apply to every pod of the chart, and pull settings to the pods that the operator makes."""
    objects = render(*PLACED)
    for name, spec in pod_specs(objects).items():
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert spec["nodeSelector"] == {"pool": "faas"}, name
        assert spec["tolerations"] == [{"key": "faas", "operator": "Exists"}], name
    assert operator_config(objects)["imagePullSecrets"] == ["registry"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--set", "routr.replicas=2"), "routr"),
        (("--set", "router.replica=2"), "replica"),
        (("--set", "nats.replicas=2"), "replicas"),
        (("--set", "images.events.digest=abc"), "digest"),
        (("--set", "nats.enabled=false"), "nats.external.url"),
        (
            (
                "--set-json",
                f's3.servers=[{{"name": "a", "endpoint": "http://x", "notificationArns": {TOPIC_AND_OTHER}}}]',
            ),
            "notificationArns",
        ),
        (
            ("--set-json", f's3.servers=[{{"name": "a", "endpoint": "http://x", "notificationArns": {TOPIC_OF_AWS}}}]'),
            "notificationArns",
        ),
        (("--set-json", 's3.servers=[{"name": "a/b", "endpoint": "http://x", "notificationArns": ["arn:x"]}]'), "name"),
        (
            ("--set-json", 's3.servers=[{"name": "minio", "endpoint": "http://x", "notificationArns": ["arn:x"]}]'),
            "minio",
        ),
        (("--set", "minio.persistence.size=ten"), "size"),
    ],
)
def test_wrong_values_are_refused(arguments: tuple[str, ...], complaint: str) -> None:
    """A value that the chart does not know or can't do ends the command with a message that names it."""
    answer = helm_template(*arguments)
    assert answer.returncode != 0
    assert complaint in answer.stderr


def test_every_value_is_described_and_has_a_default() -> None:
    """values.yaml and values.schema.json hold the same keys, and each is described."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict[str, Any], schema_part: dict[str, Any], path: str) -> None:
        part = schema["$defs"][schema_part["$ref"].rpartition("/")[2]] if "$ref" in schema_part else schema_part
        properties = part.get("properties", {})
        assert values.keys() == properties.keys() - {"global"} or not properties, path
        for key, value in values.items():
            if key in properties:
                described = "description" in properties[key] or "$ref" in schema_part
                assert described, f"{path}.{key}"
                if isinstance(value, dict) and "additionalProperties" in part:
                    compare(value, properties[key], f"{path}.{key}")

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    compare(values, schema, "values")


def test_quota_reaches_the_operator(render: Render) -> None:
    """The platform's quota and defaults are the operator's, and a wrong field is refused."""
    values = 'quota={"functions": 5, "perFunction": {"memory": "2Gi"}, "defaults": {"instances": 10}}'
    config = msgspec.convert(operator_config(render(values)), OperatorConfig)
    assert (config.quota.functions, config.quota.instances) == (5, None)
    assert config.quota.per_function is not None
    assert config.quota.per_function.memory == "2Gi"
    assert "pods" in helm_template("--set-json", 'quota={"pods": 5}').stderr


def test_crds_are_those_that_the_types_say() -> None:
    """The chart's copies equal manifests/crds."""
    wanted = {path.name: path.read_text() for path in (ROOT / "manifests" / "crds").glob("*.yaml")}
    assert wanted
    assert {path.name: path.read_text() for path in (CHART / "files" / "crds").iterdir()} == wanted, (
        "run make manifests"
    )


def test_crds_stay_on_uninstall(render: Render) -> None:
    """Removing the release must not remove all Functions with their CRD."""
    crds = [one for one in render() if one["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 3
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in crds)


def test_install_yaml_is_current() -> None:
    """manifests/install.yaml is what the chart renders, without hooks and with its namespace."""
    answer = helm_template("--no-hooks", "--set", "namespace.create=true")
    assert (ROOT / "manifests" / "install.yaml").read_text() == answer.stdout, "run make manifests"


def test_subscriptions_are_drained_before_uninstall(render: Render) -> None:
    """The drain Job and its rights are pre-delete hooks that go again when it has succeeded; the value switches all off."""
    hooks = [one for one in render() if one["metadata"]["name"] == "wisp-drain"]
    assert {one["kind"] for one in hooks} == {"Job", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    assert all(one["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete" for one in hooks)
    assert not [one for one in render("uninstall.drain=false") if one["metadata"]["name"] == "wisp-drain"]


def test_functions_are_addressable(render: Render) -> None:
    """Knative may resolve a Function as a sink, and users' own roles cover both kinds."""
    roles = {one["metadata"]["name"]: one for one in render() if one["kind"] == "ClusterRole"}
    assert roles["wisp-addressable"]["metadata"]["labels"]["duck.knative.dev/addressable"] == "true"
    assert roles["wisp-viewer"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert roles["wisp-editor"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def test_check_passes_only_where_all_answer(render: Render) -> None:
    """`helm test` succeeds where every address answers, and names the one that does not, with the reason."""
    pod = named(render(), "Pod", "wisp-test")["spec"]["containers"][0]["command"]
    assert pod[:2] == ["python3", "-c"]
    assert {urlsplit(url).scheme for url in pod[4:]} == {"http", "nats"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()
            self.wfile.write(b"NATS is away")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def check(*urls: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", pod[2], "0.1", *urls]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{server.server_port}"
        good = check(f"http://{here}/readyz", f"nats://{here}")
        assert (good.returncode, good.stderr) == (0, "")
        bad = check(f"http://{here}/readyz", f"http://{here}/other", f"nats://127.0.0.1:{free_port()}")
        server.shutdown()
    assert bad.returncode == 1
    assert "503 NATS is away" in bad.stdout
    assert "refused" in bad.stdout


def test_the_router_alone_knows_the_collector(render: Render) -> None:
    """And the credentials for it come from a Secret; without an endpoint nothing of it is there."""
    for values, wanted in (((), []), (TRACED, ["Deployment/wisp-router"])):
        specs = pod_specs(render(*values))
        assert [name for name, spec in specs.items() if "WISP_TRACES" in json.dumps(spec)] == wanted
        assert [name for name, spec in specs.items() if '"traces"' in json.dumps(spec)] == wanted
    spec = pod_specs(render(*TRACED))["Deployment/wisp-router"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert env["WISP_TRACES_ENDPOINT"] == "https://otlp.example/api"
    assert float(env["WISP_TRACES_RATIO"] or "") == 0.05
    (mount,) = (one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "traces")
    assert mount["mountPath"] == env["WISP_TRACES_HEADERS"]
    (volume,) = (one for one in spec["volumes"] if one["name"] == "traces")
    assert volume["secret"]["secretName"] == "otlp"


@pytest.mark.parametrize(
    "value", ["tracing.otlp.endpoint=otlp.example:4318", "tracing.ratio=2", "tracing.otlp.endpoint=http://a:b@c"]
)
def test_tracing_that_can_not_be_is_refused(value: str) -> None:
    """By the schema, before a router starts with it."""
    answer = helm_template("--set", value)
    assert answer.returncode != 0
    assert "tracing" in answer.stderr
