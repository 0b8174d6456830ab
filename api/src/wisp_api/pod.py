"""What a function's pods carry besides: the bounded part of a Pod that a Function may set.

Invariant: nothing here reaches the node (no hostPath, no host's namespaces, no security context), another namespace, or what the platform itself
keeps in this one; every pod stays within the Pod Security standard `restricted`.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from wisp_api.kube import (
    NOT_FOR_FUNCTIONS,
    OWN_SECRETS,
    SIZE_RULES,
    LocalReference,
    Quantity,
    SubdomainName,
    Toleration,
    map_list,
    rules,
)

Labels = Annotated[dict[str, Annotated[str, Meta(max_length=63)]], Meta(max_length=32)]
Annotations = Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=32)]

MAX_VOLUMES: Final = 16
_SEGMENT: Final = "[-_a-zA-Z0-9][-._a-zA-Z0-9]*"
_TAKEN: Final = "^/(var|etc|usr|(tmp|opt|dev|proc|sys|run|bin|sbin|lib|lib64|etc/wisp|usr/local|var/(task|runtime|rapid|lang|run|log))(/.*)?)$"
_PATH = Annotated[str, Meta(min_length=1, max_length=256, pattern=f"^{_SEGMENT}(/{_SEGMENT})*$")]
SecretName = Annotated[SubdomainName, rules((f"!self.matches('{OWN_SECRETS}')", NOT_FOR_FUNCTIONS))]


class KeyFile(Struct, rename="camel", kw_only=True):
    """One key as a file."""

    key: Annotated[str, Meta(min_length=1, max_length=253)]
    """The key."""
    path: _PATH
    """The file's path below the mount."""


Items = Annotated[list[KeyFile], Meta(min_length=1, max_length=64)]


class ConfigMapVolume(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A ConfigMap of the same namespace as files."""

    name: SubdomainName
    """The ConfigMap's name."""
    items: Items | None = None
    """Which keys, and under what names. Absent: all, each under its own."""
    optional: bool = False
    """True: start without it where it is missing. False: wait for it."""


class SecretVolume(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A Secret of the same namespace as files."""

    secret_name: SecretName
    """The Secret's name."""
    items: Items | None = None
    """Which keys, and under what names. Absent: all, each under its own."""
    optional: bool = False
    """True: start without it where it is missing. False: wait for it."""


class SecretProjection(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A Secret of the same namespace among others."""

    name: SecretName
    """The Secret's name."""
    items: Items | None = None
    """Which keys, and under what names. Absent: all, each under its own."""
    optional: bool = False
    """True: start without it where it is missing. False: wait for it."""


class Projection(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One of several objects in one folder; exactly one of the fields."""

    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""
    secret: SecretProjection | None = None
    """A Secret."""


ListedProjection = Annotated[
    Projection, rules(("has(self.configMap) != has(self.secret)", "name one source: configMap or secret"))
]


class ProjectedVolume(Struct, rename="camel", kw_only=True):
    """Several ConfigMaps and Secrets in one folder."""

    sources: Annotated[list[ListedProjection], Meta(min_length=1, max_length=8)]
    """The objects."""


class EmptyVolume(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A folder that begins empty in each pod, and can be written to."""

    size_limit: Annotated[Quantity, SIZE_RULES] = "512Mi"
    """Its size; a pod that exceeds it is evicted."""
    medium: Literal["", "Memory"] = ""
    """Memory: it counts as the function's memory. Absent: the node's disk."""


class ClaimVolume(Struct, rename="camel", kw_only=True):
    """A PersistentVolumeClaim of the same namespace; Knative flag kubernetes.podspec-persistent-volume-claim."""

    claim_name: SubdomainName
    """The claim's name."""
    read_only: bool = True
    """False: the function may write to it; Knative flag kubernetes.podspec-persistent-volume-write."""


class Volume(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What can be mounted; exactly one kind."""

    name: Annotated[str, Meta(min_length=1, max_length=50, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """What volumeMounts call it."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap as files, which follow its changes within about a minute."""
    secret: SecretVolume | None = None
    """A Secret as files, which follow its changes within about a minute."""
    projected: ProjectedVolume | None = None
    """Several ConfigMaps and Secrets in one folder."""
    empty_dir: EmptyVolume | None = None
    """An empty folder that can be written to."""
    persistent_volume_claim: ClaimVolume | None = None
    """Storage that outlives the pods, where the cluster's Knative allows it."""


ListedVolume = Annotated[
    Volume,
    rules(
        (
            "[has(self.configMap), has(self.secret), has(self.projected), has(self.emptyDir), has(self.persistentVolumeClaim)].filter(kind, kind).size() == 1",
            "write exactly one kind of volume: configMap, secret, projected, emptyDir or persistentVolumeClaim",
        )
    ),
]


class VolumeMount(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Where a volume lies."""

    name: Annotated[str, Meta(min_length=1, max_length=50)]
    """Name of one of the volumes."""
    mount_path: Annotated[
        str,
        Meta(min_length=2, max_length=256),
        rules(
            (f"self.matches('^(/{_SEGMENT})+$')", "write an absolute path without '..', as /mnt/config"),
            (
                f"!self.matches('{_TAKEN}')",
                "the system's folders, /tmp, /opt, /var/task, /var/runtime and /etc/wisp are taken: write a path as /mnt/config",
            ),
        ),
    ]
    """The folder, an absolute path as /mnt/config; what the image has there is hidden."""
    sub_path: _PATH | None = None
    """A file or folder of the volume instead of all of it; such a mount does not follow changes."""


POD_RULES: Final = rules(
    (
        "!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name))",
        "each of pod.volumeMounts names one of pod.volumes",
    ),
    (
        "!has(self.volumes) || self.volumes.all(volume, has(self.volumeMounts) && self.volumeMounts.exists(mount, mount.name == volume.name))",
        "each of pod.volumes is mounted by one of pod.volumeMounts",
    ),
)


class Pod(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What the function's pods carry besides; the cluster's Knative must allow it (ConfigMap config-features in knative-serving)."""

    node_selector: Labels | None = None
    """Labels of the nodes that may run it; Knative flag kubernetes.podspec-nodeselector."""
    tolerations: Annotated[list[Toleration], Meta(max_length=16)] | None = None
    """Taints that it tolerates; Knative flag kubernetes.podspec-tolerations."""
    runtime_class_name: SubdomainName | None = None
    """How the cluster isolates its pods, as gvisor; Knative flag kubernetes.podspec-runtimeclassname."""
    image_pull_secrets: Annotated[list[LocalReference], Meta(max_length=8)] | None = None
    """Secrets for the image's registry."""
    volumes: Annotated[list[ListedVolume], Meta(max_length=MAX_VOLUMES), map_list("name")] | None = None
    """Configuration and storage for volumeMounts."""
    volume_mounts: Annotated[list[VolumeMount], Meta(max_length=MAX_VOLUMES), map_list("mountPath")] | None = None
    """Where they lie in the function's container."""
    labels: Labels | None = None
    """Labels for the pods; the platform's own stay."""
    annotations: Annotations | None = None
    """Annotations for the pods; the platform's own stay."""
