"""The Function kind: code that runs on an event or a request, and what it runs with."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from wisp_api.caller import AUTH_RULES, Auth
from wisp_api.destination import DESTINATION_RULES, Destination
from wisp_api.kube import (
    NOT_FOR_FUNCTIONS,
    OPEN,
    OWN_SECRETS,
    SIZE_RULES,
    Conditions,
    EnvFrom,
    EnvVar,
    Name,
    Posters,
    Quantity,
    SubdomainName,
    Time,
    map_list,
    rules,
)
from wisp_api.pod import POD_RULES, Pod
from wisp_api.requirements import MAX_REQUIREMENTS, BuiltRequirements, Requirement

CODE_BYTES: Final = 192 * 1024
"""Inline code in all, in bytes of UTF-8: kubectl copies the object into an annotation, which may hold 256 KiB."""
FILES: Final = 64
"""Of inline code."""
FILE_NAME: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""Of a file of inline code: a key of a ConfigMap."""
MAX_LAYERS: Final = 5
"""As many as AWS Lambda takes."""
CONTAINER: Final = "container"
"""The runtime of images that serve HTTP themselves or, with signature lambda, speak Lambda's Runtime API."""

FileText = Annotated[str, Meta(max_length=256 * 1024)]
Files = Annotated[
    dict[str, FileText],
    Meta(min_length=1, max_length=FILES),
    rules(
        (
            f"self.map(name, bytes(self[name]).size()).sum() <= {CODE_BYTES}",
            "the files hold more than 192 KiB in all (bytes of UTF-8): put larger code into an archive (code.stored, code.zip) or an image (code.image)",
        ),
    ),
]
Image = Annotated[
    str,
    Meta(min_length=1, max_length=512),
    rules(("!self.matches('[[:space:]]')", "an image is written without spaces, as registry.example/name:tag")),
]
Handler = Annotated[
    str,
    Meta(max_length=256),
    rules(
        (
            "self.matches('^[A-Za-z_][A-Za-z0-9_]*([./][A-Za-z_][A-Za-z0-9_]*)*[.][A-Za-z_][A-Za-z0-9_]*$')",
            "a handler is module.attribute, as app.handler",
        )
    ),
]
Cpu = Annotated[
    str,
    Meta(max_length=16),
    rules(
        ("self.matches('^([1-9][0-9]*m?|[0-9]+[.][0-9]+)$')", "write a number of CPUs or thousandths, as '0.5' or 500m")
    ),
]
ListedVariable = Annotated[
    EnvVar,
    rules(
        ("!has(self.value) || !has(self.valueFrom)", "write value or valueFrom, not both"),
        (
            "!self.name.startsWith('WISP_') && !self.name.startsWith('K_') && !(self.name in ['PORT', 'AWS_LAMBDA_RUNTIME_API'])",
            "names that start with WISP_ or K_, PORT and AWS_LAMBDA_RUNTIME_API belong to the platform: choose another",
        ),
        (
            f"!has(self.valueFrom) || !has(self.valueFrom.secretKeyRef) || !self.valueFrom.secretKeyRef.name.matches('{OWN_SECRETS}')",
            NOT_FOR_FUNCTIONS,
        ),
    ),
]
ListedEnvFrom = Annotated[
    EnvFrom,
    rules(
        ("has(self.secretRef) != has(self.configMapRef)", "name one source: secretRef or configMapRef"),
        (f"!has(self.secretRef) || !self.secretRef.name.matches('{OWN_SECRETS}')", NOT_FOR_FUNCTIONS),
    ),
]


class CodeConnection(Struct, rename="camel", kw_only=True):
    """A Secret of the same namespace that says how to reach the S3 server."""

    name: Name
    """The Secret's name. Its keys: endpoint, accessKey, secretKey, and where the server needs it region."""


class Archive(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A zip archive in an S3 bucket, at most 250 MiB unpacked."""

    bucket: Annotated[str, Meta(min_length=3, max_length=63, pattern="^[a-z0-9][-.a-z0-9]*[a-z0-9]$")]
    """The bucket."""
    key: Annotated[str, Meta(min_length=1, max_length=1024)]
    """The object's key."""
    version_id: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    """A version of the object. Without it and without sha256 the object is looked at every few minutes, and a changed one is rolled out."""
    sha256: Annotated[str, Meta(min_length=64, max_length=64, pattern="^[0-9a-f]+$")] | None = None
    """What the archive must be, as 64 hex digits: another one is refused."""
    connection: CodeConnection
    """The Secret with the server's endpoint and keys."""


class StoredCode(Struct, rename="camel", kw_only=True):
    """An archive in this namespace's part of the platform's code store."""

    sha256: Annotated[str, Meta(min_length=64, max_length=64, pattern="^[0-9a-f]+$")]
    """The archive's SHA-256, as 64 hex digits."""


class Code(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The function's code: exactly one of the fields."""

    files: Files | None = None
    """Source files by name, written here: {app.py: "..."}. At most 192 KiB in all.

    A name is letters, digits, '.', '_' and '-'; code with folders goes into the code store, a zip or an image.
    """
    stored: StoredCode | None = None
    """An archive that `wisp deploy` has uploaded to the platform's code store; it lies in /var/task. For runtimes other than container."""
    zip: Archive | None = None
    """A zip archive in an S3 bucket; it lies in /var/task. For runtimes other than container."""
    image: Image | None = None
    """A container image, best by digest.

    With runtime container it serves HTTP on $PORT, or asks AWS_LAMBDA_RUNTIME_API for its events (signature lambda); with another it is
    built on that runtime's image, the handler in /var/task.
    """


class Scale(Struct, rename="camel", kw_only=True):
    """How many pods run."""

    min: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Pods that stay when nothing happens; 0 costs nothing and makes the first request wait for a start."""
    max: Annotated[int, Meta(ge=1, le=1000), OPEN] = 100
    """Pods at most. Absent: what the namespace's FunctionQuota says, or 100."""
    per_instance: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Invocations that one pod runs at once."""
    idle_seconds: Annotated[int, Meta(ge=6, le=3600)] = 30
    """How long the load is averaged over before pods go: about how long the last one stays after the last request."""


class Async(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """How the function is invoked by callers that wait for no answer."""

    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    """Attempts that the function failed or let time out, pauses of up to a minute, then two, in between; then the invocation is a dead letter."""
    max_age_seconds: Annotated[int, Meta(ge=60, le=21600)] = 21600
    """An invocation that is older than this and not done becomes a dead letter, whatever the cause."""
    allow_from: Posters = []
    """ServiceAccounts of other namespaces that may invoke it so, as shop/checkout or shop/*; those of this namespace always may."""
    on_success: Annotated[Destination | None, DESTINATION_RULES] = None
    """Where the record of an invocation goes that succeeded: request, answer and circumstances, as AWS Lambda writes them."""
    on_failure: Annotated[Destination | None, DESTINATION_RULES] = None
    """Where the record of an invocation goes that was given up, besides its dead letter."""


Revision = Annotated[str, Meta(min_length=1, max_length=63, pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""Name of a revision, as status.history lists them."""


class Rollout(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """How a new revision takes the requests over."""

    steps: Annotated[
        list[Annotated[int, Meta(ge=1, le=100)]],
        Meta(min_length=1, max_length=20),
        rules(
            ("self[self.size() - 1] == 100", "rollout.steps ends with 100: write [10, 50, 100]"),
            (
                "self.map(step, self.filter(other, other <= step).size()) == self.map(step, self.indexOf(step) + 1)",
                "rollout.steps go up: write [10, 50, 100]",
            ),
        ),
    ] = field(default_factory=lambda: [10, 50, 100])
    """The new revision's share of the requests, in percent, step by step. Absent: 10, 50, 100."""
    interval_seconds: Annotated[int, Meta(ge=1, le=86400)] = 60
    """How long a step lasts."""
    max_error_rate: (
        Annotated[
            str,
            Meta(max_length=8),
            rules(
                ("self.matches('^(0([.][0-9]+)?|1)$')", "write a share of 1, as a string: '0.01' is one in a hundred")
            ),
        ]
        | None
    ) = None
    """All requests go back to the old revision when a larger share of the new one's invocations fail: '0.01' is one in a hundred.

    Looked at every 5 s, from 10 invocations on, and at each step's end. Absent: errors don't count.
    """


class Tag(Struct, rename="camel", kw_only=True):
    """A name for a revision."""

    revision: Revision
    """The revision."""


Tags = Annotated[
    dict[str, Tag],
    Meta(max_length=8),
    rules(
        (
            "self.all(name, name.matches('^[a-z]([-a-z0-9]{0,10}[a-z0-9])?$'))",
            "a tag's name is at most 12 lower-case letters, digits and '-', first a letter, as stable",
        )
    ),
]


class FunctionSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What the function is; every change makes a new revision, and the old one serves until the new one has started."""

    runtime: Literal["python3.13", "nodejs24", "provided", "container"]
    """What runs the code: python3.13, nodejs24, provided (an executable `bootstrap`, Lambda's Runtime API) or container (an image that serves HTTP itself
    or, with signature lambda, brings a client of the Runtime API, as AWS' base images do)."""
    handler: Handler | None = None
    """The callable, as module.attribute: app.handler is `handler` in app.py, or in app.mjs, app.js, app.cjs, app.ts.

    With runtime provided it is what `bootstrap` makes of it, and may be absent. With runtime container and signature lambda it is the
    image's argument, in place of its CMD, and may be absent. Not with an image that serves HTTP itself.
    """
    signature: Literal["auto", "lambda", "cloudevent", "http", "asgi"] = "auto"
    """How the handler is called: lambda handler(event, context), cloudevent handler(event), http handler(request), asgi any ASGI 3 app.

    auto finds out from the handler. asgi is Python's only. With runtime container auto is an image that serves HTTP itself, lambda one that
    speaks Lambda's Runtime API.
    """
    code: Annotated[
        Code,
        rules(
            (
                "(has(self.files) ? 1 : 0) + (has(self.stored) ? 1 : 0) + (has(self.zip) ? 1 : 0) + (has(self.image) ? 1 : 0) == 1",
                "write exactly one kind of code: code.files, code.stored, code.zip or code.image",
            )
        ),
    ]
    """The code: exactly one of files, stored, zip and image."""
    requirements: Annotated[list[Requirement], Meta(min_length=1, max_length=MAX_REQUIREMENTS)] | None = None
    """Python packages as in requirements.txt, [Pillow==11.0.0], with any code but an image; they lie in /opt/python, below the layers.

    Resolved and built once, by a Job of this namespace, from wheels of the installation's package index; functions of the namespace with the
    same list share the result (status.requirements). Versions that are not pinned stay as they were then, until the list changes.
    """
    layers: Annotated[list[Archive], Meta(min_length=1, max_length=MAX_LAYERS)] | None = None
    """Zip archives that are unpacked to /opt, one over the other in this order; with any code but an image.

    /opt/python and /opt/nodejs/node_modules are on the import paths, /opt/bin is on PATH, /opt/lib on LD_LIBRARY_PATH.
    Together with the code's archive and requirements at most 250 MiB unpacked.
    """
    memory: Annotated[Quantity, SIZE_RULES, OPEN] = "128Mi"
    """The memory limit, in Mi or Gi. The CPU share follows it: 1769Mi is one CPU. Absent: what the namespace's FunctionQuota says, or 128Mi."""
    cpu: Cpu | None = None
    """The CPU share, as a string: 500m or '1'. Absent: from memory. Idle CPU beyond it is used too."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=900)] = 30
    """How long one invocation may take.

    The cluster's Knative may allow less: max-revision-timeout-seconds in its ConfigMap config-defaults, 600 unless changed.
    """
    ephemeral_storage: Annotated[Quantity, SIZE_RULES] = "512Mi"
    """Size of /tmp, the only place that can be written to."""
    env: Annotated[list[ListedVariable], Meta(max_length=128), map_list("name")] | None = None
    """Environment variables."""
    env_from: Annotated[list[ListedEnvFrom], Meta(max_length=16)] | None = None
    """Whole Secrets and ConfigMaps as environment variables."""
    service_account_name: SubdomainName | None = None
    """The ServiceAccount that the pods run as, with its token for the API mounted, and one for the ingest (WISP_INGEST_TOKEN_FILE). Absent: neither."""
    scale: Annotated[
        Scale,
        rules(("!has(self.max) || self.min <= self.max", "scale.min is above scale.max: lower it or raise scale.max")),
    ] = field(default_factory=Scale)
    """How many pods run."""
    isolation: Literal["worker", "shared", "none"] = "worker"
    """worker: each event alone in its process. shared: the events of an asynchronous handler run together in one, up to scale.perInstance.

    none: events run one after the other in the process that serves their callers, the quickest for short handlers in Python; up to scale.perInstance
    wait there. An ASGI app always has its events together. Without effect for runtime container.
    """
    log_format: Literal["json", "text"] = "json"
    """How log lines are written: as JSON objects with time, level and request id, or as the code writes them. Without effect for runtime container."""
    visibility: Literal["cluster", "public"] = "cluster"
    """cluster: reachable inside the cluster. public: through the cluster's ingress too; needs `auth`."""
    auth: Annotated[Auth | None, AUTH_RULES] = None
    """Who may call it; must be written out where visibility is public."""
    rollout: Rollout | None = None
    """How a new revision takes the requests over, once it has started. Absent: all at once."""
    pin: Revision | None = None
    """All requests go to this revision, whatever the rest of the spec says, until the field is taken away.

    `wisp rollback` sets it, `wisp deploy` takes it away.
    """
    tags: Tags | None = None
    """Names for revisions, each with a URL of its own (status.tags) and for a Subscription's function.tag: {stable: {revision: hello-0123456789}}."""
    revision_history_limit: Annotated[int, Meta(ge=1, le=100)] = 10
    """How many revisions are kept to go back to; those with a share, a tag or the pin stay besides."""
    async_: Async | None = field(default=None, name="async")
    """Write async: {} to let it be invoked asynchronously: the ingest answers 202 once the event log has the invocation. Absent: it is not."""
    pod: Annotated[Pod | None, POD_RULES] = None
    """What the pods carry besides."""


class Address(Struct, rename="camel", kw_only=True):
    """Where the function is reached inside the cluster (Knative's Addressable)."""

    url: str
    """Its URL."""


class Traffic(Struct, rename="camel", kw_only=True):
    """One revision's share of the requests."""

    revision: str
    """The revision."""
    percent: int
    """Its share, in percent."""


class RolloutStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """How far the roll-out of the newest revision is."""

    revision: str
    """The new revision."""
    stable: str | None = None
    """The revision that has the other requests; absent where there was none."""
    state: Literal["Progressing", "Done", "RolledBack"]
    """Progressing: it has its step's share, or none before it has started. RolledBack: too many of its invocations failed."""
    percent: int = 0
    """The new revision's share."""
    since: Time
    """When the state or the share last changed."""
    message: str = ""
    """Why it went back."""


class PastRevision(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A revision that can be gone back to."""

    revision: str
    """Its name."""
    created: Time
    """When it was made."""
    started: bool = False
    """Whether it has started once: only such a revision can serve."""
    code_sha256: str | None = None
    """SHA-256 of its inline code."""


class FetchedArchive(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """An archive as it was fetched into the code store."""

    source: Archive
    """The entry of the spec."""
    sha256: str
    """The archive's SHA-256."""
    etag: str
    """The object's ETag."""
    unpacked_bytes: Annotated[int, Meta(ge=0)]
    """Bytes that it holds."""
    time: Time
    """When it was last looked at."""


class Reserved(Struct, rename="camel", kw_only=True):
    """What a Function has of its namespace's quota."""

    instances: int
    """Pods that it may have: its scale.max, or that of the revision which serves where that is more, and those of the revisions that its tags name."""
    memory: str
    """Memory of each; of the largest where they differ."""
    total_memory: str | None = None
    """Memory of all."""


class FunctionStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What became of the spec."""

    observed_generation: int = 0
    """The metadata.generation that this speaks of."""
    conditions: Conditions = []
    """Ready: it serves. CodeReady: the code is there and its handler was imported. ServiceReady: requests reach it."""
    url: str | None = None
    """Where it answers: from outside too with visibility public."""
    address: Address | None = None
    """Where it is reached inside the cluster."""
    revision: str | None = None
    """The newest revision that has started."""
    traffic: Annotated[list[Traffic], Meta(max_length=16)] | None = None
    """Which revisions requests and events go to."""
    code_sha256: str | None = None
    """SHA-256 of the inline code, or of its archive."""
    archives: Annotated[list[FetchedArchive], Meta(max_length=MAX_LAYERS + 1)] | None = None
    """What code.zip and layers were when they were last fetched."""
    requirements: BuiltRequirements | None = None
    """What spec.requirements was built to."""
    reserved: Reserved | None = None
    """What it has of the namespace's quota, since it was last deployed."""
    rollout: RolloutStatus | None = None
    """How far the roll-out of the newest revision is; absent without spec.rollout."""
    history: Annotated[list[PastRevision], Meta(max_length=128)] | None = None
    """The revisions that are there, the newest first."""
    tags: dict[str, str] | None = None
    """The URL of each tag."""


SPEC_RULES = rules(
    (
        "!has(self.layers) || !has(self.code.image)",
        "layers go with any code but an image: copy them into the image, or remove them",
    ),
    (
        "!has(self.requirements) || self.runtime.startsWith('python')",
        "requirements are Python packages: with another runtime bring them as a layer, in the zip or in an image",
    ),
    (
        "!has(self.requirements) || !has(self.code.image)",
        "requirements go with any code but an image: install them in the image, or remove them",
    ),
    (
        "self.runtime in ['container', 'provided'] || has(self.handler)",
        "handler is missing: write module.attribute, as app.handler",
    ),
    (
        "self.runtime != 'container' || !has(self.handler) || self.signature == 'lambda'",
        "runtime container takes no handler: the image itself serves HTTP on $PORT; remove handler, choose another runtime, or say signature lambda",
    ),
    (
        "self.runtime != 'container' || self.signature in ['auto', 'lambda']",
        "runtime container takes signature lambda, for an image that speaks Lambda's Runtime API, or none, for one that serves HTTP itself",
    ),
    (
        "self.runtime != 'container' || self.signature != 'lambda' || !has(self.scale) || self.scale.perInstance == 1",
        "a client of Lambda's Runtime API takes one event at a time: with runtime container and signature lambda write scale.perInstance 1",
    ),
    (
        "self.runtime != 'container' || has(self.code.image)",
        "runtime container needs code.image; for other code choose another runtime",
    ),
    (
        "self.runtime != 'container' || !has(self.rollout) || !has(self.rollout.maxErrorRate)",
        "rollout.maxErrorRate: the errors of runtime container can't be seen; leave it out, the steps then go by time alone",
    ),
    (
        "self.isolation != 'none' || self.runtime.startsWith('python')",
        "isolation none is for handlers in Python: choose worker or shared",
    ),
    (
        "self.isolation != 'none' || self.signature != 'asgi'",
        "an ASGI app has its events together already: choose isolation worker or shared",
    ),
    (
        "self.isolation != 'none' || !has(self.auth) || self.auth.type == 'none'",
        "isolation none serves callers without looking at tokens: choose worker or shared, or write auth: {type: none}",
    ),
    (
        "self.visibility != 'public' || has(self.auth)",
        "visibility public lets anyone reach the function: write who may call it, as auth: {type: none}, or choose visibility cluster",
    ),
    (
        "self.runtime != 'container' || self.signature == 'lambda' || !has(self.auth) || self.auth.type == 'none'",
        "an image that serves HTTP itself has nothing of the platform before it that checks tokens: check them in the image, and write auth: {type: none}",
    ),
)


class Function(Struct, rename="camel", kw_only=True):
    """Code that runs on an event or a request, from zero pods to as many as the load asks for."""

    spec: Annotated[FunctionSpec, SPEC_RULES]
    """What the function is."""
    status: FunctionStatus | None = None
    """What became of it."""


NAME_RULES = rules(
    (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$')",
        "metadata.name: at most 50 lower-case letters, digits and '-', first a letter, so that the names of revisions and URLs fit",
    ),
    *(
        (
            f"!has(self.spec.async) || !has({on}) || !has({on}.__function__) || {on}.__function__.name != self.metadata.name",
            f"{on.removeprefix('self.spec.')}: a function that is invoked with each of its own results never ends: name another one",
        )
        for on in ("self.spec.async.onSuccess", "self.spec.async.onFailure")
    ),
)
"""On the object itself. Names of Functions: a revision is `<name>-<10 hex digits>` and a DNS label."""
