"""Bad input is refused by `kubectl apply` with a sentence that says what to write instead."""

import copy
from typing import Any

import pytest
from fixtures.kube import Kube
from fixtures.objects import bucket, make_function, make_subscription, mongodb, mysql, postgres, schedule


def plain(item: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """The object as a user writes it."""
    return {**copy.deepcopy(item), "metadata": {"name": name or item["metadata"]["name"], "namespace": "default"}}


def asynchronous(**wanted: Any) -> dict[str, Any]:
    """A Function with this as `async`."""
    fields: dict[str, Any] = {"async": wanted}
    return make_function(**fields)


@pytest.mark.parametrize(
    ("case", "function", "message"),
    [
        (
            "two kinds of code",
            make_function(code={"files": {"app.py": ""}, "image": "a"}),
            "exactly one kind of code: code.files, code.stored, code.zip or code.image",
        ),
        ("no code", make_function(code={}), "exactly one kind of code"),
        (
            "unknown runtime",
            make_function(runtime="python2.7"),
            'supported values: "container", "nodejs24", "provided", "python3.13"',
        ),
        ("no handler", make_function(handler=None), "handler is missing: write module.attribute"),
        ("handler without module", make_function(handler="handler"), "a handler is module.attribute"),
        (
            "handler of a container",
            make_function(runtime="container", code={"image": "a"}),
            "runtime container takes no handler",
        ),
        (
            "another signature of a container",
            make_function(runtime="container", handler=None, signature="http", code={"image": "a"}),
            "runtime container takes signature lambda",
        ),
        (
            "events side by side at a client of the Runtime API",
            make_function(runtime="container", signature="lambda", code={"image": "a"}, scale={"perInstance": 2}),
            "write scale.perInstance 1",
        ),
        (
            "the Runtime API's address",
            make_function(env=[{"name": "AWS_LAMBDA_RUNTIME_API", "value": "x"}]),
            "belong to the platform",
        ),
        ("jwt without an issuer", make_function(auth={"type": "jwt"}), "jwt needs issuer and audiences"),
        (
            "an issuer without TLS",
            make_function(auth={"type": "jwt", "issuer": "http://login.example", "audiences": ["a"]}),
            "write an https:// address",
        ),
        (
            "scopes of the cluster's tokens",
            make_function(auth={"type": "token", "scopes": ["a"]}),
            "are for auth type jwt",
        ),
        (
            "callers without a token",
            make_function(auth={"type": "none", "callers": [{"namespace": "a"}]}),
            "callers are for auth type token",
        ),
        (
            "tokens at an image that serves itself",
            make_function(runtime="container", handler=None, code={"image": "a"}, auth={"type": "token"}),
            "check them in the image",
        ),
        (
            "two destinations of one outcome",
            asynchronous(onSuccess={"bus": {"name": "a"}, "function": {"name": "a"}}),
            "write exactly one destination: bus, function, ref or uri",
        ),
        (
            "a function that is its own destination",
            asynchronous(onFailure={"function": {"name": "hello"}}),
            "async.onFailure: a function that is invoked with each of its own results never ends",
        ),
        (
            "files in a container",
            make_function(runtime="container", handler=None),
            "runtime container needs code.image",
        ),
        (
            "too much code",
            make_function(code={"files": {"a.py": "x" * 100_000, "b.py": "x" * 100_000}}),
            "more than 192 KiB in all",
        ),
        ("too many bytes, not characters", make_function(code={"files": {"app.py": "ø" * 98_305}}), "bytes of UTF-8"),
        ("image with a space", make_function(code={"image": "a b"}), "without spaces"),
        ("memory without unit", make_function(memory="256"), "as 256Mi"),
        ("too little memory", make_function(memory="8Mi"), "32Mi or more"),
        ("endless timeout", make_function(timeoutSeconds=901), "less than or equal to 900"),
        ("public without auth", make_function(visibility="public"), "auth: {type: none}"),
        (
            "unknown auth",
            make_function(visibility="public", auth={"type": "maybe"}),
            'supported values: "jwt", "none", "token"',
        ),
        ("roll-out without an end", make_function(rollout={"steps": [10, 50]}), "rollout.steps ends with 100"),
        ("roll-out up and down", make_function(rollout={"steps": [50, 10, 100]}), "rollout.steps go up"),
        ("error rate in percent", make_function(rollout={"maxErrorRate": "5%"}), "a share of 1"),
        (
            "errors of a container",
            make_function(runtime="container", handler=None, code={"image": "a"}, rollout={"maxErrorRate": "0.1"}),
            "the errors of runtime container can't be seen",
        ),
        (
            "Node.js in the serving process",
            make_function(isolation="none", runtime="nodejs24"),
            "isolation none is for handlers in Python",
        ),
        ("ASGI in the serving process", make_function(isolation="none", signature="asgi"), "together already"),
        (
            "tokens in the serving process",
            make_function(isolation="none", auth={"type": "token"}),
            "without looking at tokens",
        ),
        ("long tag", make_function(tags={"a-very-long-tag": {"revision": "hello-1"}}), "at most 12"),
        ("scale upside down", make_function(scale={"min": 5, "max": 2}), "scale.min is above scale.max"),
        ("reserved variable", make_function(env=[{"name": "WISP_HANDLER", "value": "x"}]), "belong to the platform"),
        (
            "value twice",
            make_function(env=[{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
            "not both",
        ),
        ("value from nowhere", make_function(env=[{"name": "A", "valueFrom": {}}]), "secretKeyRef or configMapKeyRef"),
        ("misspelt field", make_function(memroy="256Mi"), 'unknown field "spec.memroy"'),
        ("long name", make_function("a" * 51), "at most 50"),
        ("name that no DNS label is", make_function("9lives"), "first a letter"),
    ],
)
def test_function(cluster: Kube, case: str, function: dict[str, Any], message: str) -> None:
    """Each mistake in a Function is named."""
    assert message in cluster.refusal(plain(function)), case


def make_sink(uri: str, **fields: Any) -> dict[str, Any]:
    """A Subscription with this sink."""
    made = make_subscription(**fields)
    del made["spec"]["function"]
    made["spec"]["sink"] = {"uri": uri}
    return made


MOUNT = {"name": "a", "mountPath": "/mnt/a"}


def mounting(volume: dict[str, Any], **mount: Any) -> dict[str, Any]:
    """A Function with a volume."""
    return make_function(pod={"volumes": [{"name": "a"} | volume], "volumeMounts": [MOUNT | mount]})


@pytest.mark.parametrize(
    ("case", "function", "message"),
    [
        ("the node's disk", mounting({"hostPath": {"path": "/"}}), 'unknown field "spec.pod.volumes[0].hostPath"'),
        ("no kind", mounting({}), "exactly one kind of volume"),
        ("two kinds", mounting({"emptyDir": {}, "configMap": {"name": "a"}}), "exactly one kind of volume"),
        (
            "another audience's token",
            mounting(
                {"projected": {"sources": [{"serviceAccountToken": {"audience": "wisp.dev/ingest", "path": "a"}}]}}
            ),
            'unknown field "spec.pod.volumes[0].projected.sources[0].serviceAccountToken"',
        ),
        ("the code's token", mounting({"secret": {"secretName": "wisp-code"}}), "the platform's own credentials"),
        (
            "a reader's credentials",
            mounting({"projected": {"sources": [{"secret": {"name": "wisp-reader-postgres-db"}}]}}),
            "the platform's own credentials",
        ),
        (
            "the code's token as a variable",
            make_function(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "wisp-code", "key": "read"}}}]),
            "the platform's own credentials",
        ),
        (
            "a reader's credentials as variables",
            make_function(envFrom=[{"secretRef": {"name": "wisp-reader-s3-files"}}]),
            "the platform's own credentials",
        ),
        ("over the code", mounting({"emptyDir": {}}, mountPath="/var/task/x"), "write a path as /mnt/config"),
        ("over the layers", mounting({"emptyDir": {}}, mountPath="/opt"), "write a path as /mnt/config"),
        ("over the runtime", mounting({"emptyDir": {}}, mountPath="/var/runtime"), "write a path as /mnt/config"),
        ("over all of these", mounting({"emptyDir": {}}, mountPath="/var"), "write a path as /mnt/config"),
        ("over tokens", mounting({"emptyDir": {}}, mountPath="/var/run/secrets"), "write a path as /mnt/config"),
        (
            "over the platform's files",
            mounting({"emptyDir": {}}, mountPath="/etc/wisp/auth"),
            "write a path as /mnt/config",
        ),
        ("a way out", mounting({"emptyDir": {}}, mountPath="/mnt/../opt"), "an absolute path without '..'"),
        ("a relative path", mounting({"emptyDir": {}}, mountPath="mnt/a"), "an absolute path without '..'"),
        ("out of the volume", mounting({"emptyDir": {}}, subPath="../b"), "spec.pod.volumeMounts[0].subPath"),
        (
            "out of the files",
            mounting({"configMap": {"name": "a", "items": [{"key": "a", "path": "../b"}]}}),
            "spec.pod.volumes[0].configMap.items[0].path",
        ),
        ("nothing of that name", mounting({"emptyDir": {}}, name="b"), "names one of pod.volumes"),
        ("not mounted", make_function(pod={"volumes": [{"name": "a", "emptyDir": {}}]}), "is mounted by one of"),
        ("without end", mounting({"emptyDir": {"sizeLimit": "65Gi"}}), "write 64Gi or less"),
    ],
)
def test_volume(cluster: Kube, case: str, function: dict[str, Any], message: str) -> None:
    """No Function reaches the node, or what the platform keeps in its namespace, or hides its own code; each mistake is named."""
    assert message in cluster.refusal(plain(function)), case


def test_volumes_that_may_be(cluster: Kube) -> None:
    """Every kind passes, as many as there may be."""
    kinds: list[dict[str, Any]] = [
        {"configMap": {"name": "wisp-settings", "items": [{"key": "a", "path": "b/c.yaml"}]}},
        {"secret": {"secretName": "wisp-package-index", "optional": True}},
        {"projected": {"sources": [{"secret": {"name": "a"}}, {"configMap": {"name": "a"}}]}},
        {"emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
        {"persistentVolumeClaim": {"claimName": "a", "readOnly": False}},
    ]
    volumes = [{"name": f"v{number}"} | kinds[number % 5] for number in range(16)]
    paths = ["/mnt/a", "/srv", "/home/x", "/etc/app", "/var/lib/x", "/data.d/a_b", *(f"/mnt/{n}" for n in range(10))]
    mounts = [{"name": f"v{n}", "mountPath": path, "subPath": "a/b"} for n, path in enumerate(paths)]
    pod = {"volumes": volumes, "volumeMounts": mounts, "runtimeClassName": "gvisor"}
    cluster.apply(plain(make_function(pod=pod), "volumes"))


@pytest.mark.parametrize(
    ("case", "subscription", "message"),
    [
        ("cron and at", make_subscription(source=schedule(at="2030-01-01T00:00:00Z")), "exactly one of schedule.cron"),
        ("neither cron nor at", make_subscription(source=schedule(None)), "exactly one of schedule.cron"),
        ("four fields", make_subscription(source=schedule("* * * *")), "as */5 * * * *"),
        ("a macro", make_subscription(source=schedule("@daily")), "as */5 * * * *"),
        ("at that is no time", make_subscription(source=schedule(None, at="noon")), "as 2026-01-31T12:00:00Z"),
        ("no time zone", make_subscription(source=schedule(timezone="UTC+1;")), "as Europe/Oslo or UTC"),
        (
            "unknown policy",
            make_subscription(source=schedule(missed="twice")),
            'supported values: "all", "once", "skip"',
        ),
        ("schedule and bucket", make_subscription(source=bucket() | schedule()), "exactly one source"),
        ("two sources", make_subscription(source=bucket() | postgres()), "exactly one source"),
        ("no host", make_sink("https://a..example.com/x"), "1 to 63 letters"),
        ("long label", make_sink(f"https://{'a' * 64}.example.com"), "1 to 63 letters"),
        ("no source", make_subscription(source={"bucket": None}), "exactly one source"),
        ("table without database", make_subscription(source=mysql("orders")), "as shop.orders"),
        ("collection without database", make_subscription(source=mongodb("orders")), "as shop.orders"),
        ("table without schema", make_subscription(source=postgres("orders")), "as public.orders"),
        ("unknown event", make_subscription(source=bucket(events=["ObjectEaten:*"])), "supported values"),
        ("unknown operation", make_subscription(source=postgres(operations=["upsert"])), "supported values"),
        (
            "no table",
            make_subscription(source={"postgres": {"connection": {"name": "db"}, "tables": []}}),
            "at least 1",
        ),
        ("start that is no time", make_subscription(start="yesterday"), "latest, earliest or a time"),
        (
            "retries upside down",
            make_subscription(retry={"initialSeconds": 10, "maxSeconds": 1}),
            "initialSeconds is above",
        ),
        (
            "replies to a batch",
            make_subscription(reply={"bus": {"name": "a"}}, batch={}),
            "reply is for events that are delivered alone",
        ),
        (
            "windows without order",
            make_subscription(batch={"tumblingWindowSeconds": 60}),
            "passes a state on in order: write order: key",
        ),
        ("unknown format", make_subscription(format="xml"), 'supported values: "aws", "cloudevent", "debezium"'),
        ("rows' format of objects", make_subscription(format="debezium"), "format debezium is of rows"),
        (
            "two destinations of a dead letter",
            make_subscription(deadLetter={"bus": {"name": "a"}, "function": {"name": "a"}}),
            "write exactly one destination: bus, function, ref or uri",
        ),
        (
            "a bus that gets its own records",
            make_subscription(source={"bus": {"name": "a"}}, deadLetter={"bus": {"name": "a"}}),
            "never ends: name another one",
        ),
        ("a sink's format", make_sink("https://example.com", format="aws"), "a sink takes CloudEvents"),
        ("name with a dot", make_subscription("a.b"), "metadata.name"),
    ],
)
def test_subscription(cluster: Kube, case: str, subscription: dict[str, Any], message: str) -> None:
    """Each mistake in a Subscription is named."""
    assert message in cluster.refusal(plain(subscription)), case


def test_windows_stay(cluster: Kube) -> None:
    """Windows need no more than a database's order, and can't be taken away while one may be open."""
    item = make_subscription(source=postgres(), batch={"tumblingWindowSeconds": 60})
    cluster.apply(plain(item, "windows"))
    path = "/apis/wisp.dev/v1alpha1/namespaces/default/subscriptions/windows"
    status, answer = cluster.request("PATCH", path, {"spec": {"batch": None}}, "application/merge-patch+json")
    assert status == 422
    assert "can't be added or taken away: make another Subscription" in answer["message"]
    shorter = {"spec": {"batch": {"tumblingWindowSeconds": 30}}}
    assert cluster.request("PATCH", path, shorter, "application/merge-patch+json")[0] == 200


@pytest.mark.parametrize(
    ("case", "before", "after", "message"),
    [
        ("kind", bucket(), postgres(), "the kind of source can't be changed"),
        ("kind of database", postgres(), mysql(), "the kind of source can't be changed"),
        ("deployment", mongodb(), mongodb(connection="other"), "the connection can't be changed"),
        ("server", mysql(), mysql(connection="other"), "the connection can't be changed"),
        ("to a schedule", bucket(), schedule(), "the kind of source can't be changed"),
        ("connection", bucket(), bucket(connection="other"), "the connection can't be changed"),
        ("bucket", bucket(), bucket("other"), "the bucket can't be changed"),
        ("database", postgres(), postgres(connection="other"), "the connection can't be changed"),
    ],
)
def test_source_stays(cluster: Kube, case: str, before: dict[str, Any], after: dict[str, Any], message: str) -> None:
    """A Subscription can't be moved to another source, where its cursor would mean nothing."""
    name = f"fixed-{case.replace(' ', '-')}"
    cluster.apply(plain(make_subscription(source=before), name))
    path = f"/apis/wisp.dev/v1alpha1/namespaces/default/subscriptions/{name}"
    change = {"spec": {"source": dict.fromkeys(before) | after}}
    status, answer = cluster.request("PATCH", path, change, "application/merge-patch+json")
    assert status == 422, case
    assert message in answer["message"], case


def test_192_kib_of_other_letters_are_accepted(cluster: Kube) -> None:
    """Exactly the limit in bytes is fine, whatever the characters."""
    cluster.apply(plain(make_function(code={"files": {"app.py": "ø" * 98_304}}), "full"))


def test_an_image_made_for_lambda_needs_no_word_about_scale(cluster: Kube) -> None:
    """One event at a time is what is left out, too."""
    function = make_function(runtime="container", handler=None, signature="lambda", code={"image": "a"})
    cluster.apply(plain(function, "client"))


def test_explain_reads_well(cluster: Kube) -> None:
    """`kubectl explain` shows what the fields mean."""
    text = cluster.kubectl("explain", "fn.spec.code").stdout
    assert "exactly one of files, stored, zip and image" in text
    assert "A container image, best by digest" in text


def test_columns(cluster: Kube) -> None:
    """`kubectl get` shows what one wants to know first."""
    cluster.apply(plain(make_function(), "columns"), plain(make_subscription(), "columns"))
    text = cluster.kubectl("get", "fn,sub", "-n", "default").stdout
    assert [line.split() for line in text.splitlines() if line.startswith("NAME")] == [
        ["NAME", "READY", "URL", "RUNTIME", "AGE"],
        ["NAME", "SOURCE", "FUNCTION", "READY", "PENDING", "OLDEST", "DEADLETTERED", "AGE"],
    ]
