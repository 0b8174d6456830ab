"""Kubernetes' own types that our kinds embed, cut down to what they need, and how a type states its validation rules.

A field's documentation is the docstring under it, its bounds are `msgspec.Meta`, and what a schema can't say is a CEL
rule from `rules`. `wisp_api.crd` turns all three into the CRD, so there is one place for each.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

NAME_PATTERN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=NAME_PATTERN)]
"""Name of an object: lower-case letters, digits and '-'."""
SubdomainName = Annotated[str, Meta(min_length=1, max_length=253, pattern="^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""Name of an object whose kind also takes dots."""


Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339, in UTC."""


def rules(*rule: tuple[str, str]) -> Meta:
    """CEL rules for the annotated field: pairs of an expression over `self` and what to write instead.

    Rules on a struct run only when the field is there; a rule that names `oldSelf` runs on updates.
    """
    validations = [{"rule": expression, "message": message} for expression, message in rule]
    return Meta(extra_json_schema={"x-kubernetes-validations": validations})


def any_object(properties: int) -> Meta:
    """An object of any form, with so many properties at most, which whoever applies it sets as a whole.

    Were its fields owned one by one, as they are without `atomic`, the API server would note each path in `managedFields`, deeper than the path
    itself: it stores an object of 9,997 levels so that no list of the kind can be read any more, by anyone.
    """
    schema = {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"}
    return Meta(max_length=properties, extra_json_schema=schema)


Poster = Annotated[
    str,
    Meta(max_length=127),
    rules(
        (
            "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/([*]|[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?)$')",
            "write namespace/serviceaccount, or namespace/* for all of a namespace",
        )
    ),
]
Posters = Annotated[list[Poster], Meta(max_length=64, extra_json_schema={"x-kubernetes-list-type": "set"})]
"""ServiceAccounts of other namespaces."""


def map_list(*keys: str) -> Meta:
    """A list whose items are told apart by these fields, so that they merge and none stands twice."""
    return Meta(extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


Quantity = Annotated[str, Meta(min_length=1, max_length=16)]
SIZE_RULES = rules(
    ("self.matches('^[0-9]+(Mi|Gi)$')", "write a whole number of Mi or Gi, as 256Mi"),
    ("!isQuantity(self) || quantity(self).compareTo(quantity('32Mi')) >= 0", "write 32Mi or more"),
    (
        "!isQuantity(self) || quantity(self).compareTo(quantity('64Gi')) <= 0",
        "write 64Gi or less",
    ),
)


OWN_SECRETS: Final = "^wisp-(code|reader)(-.*)?$"
"""Secrets of tenants' namespaces that hold the platform's own credentials there."""
NOT_FOR_FUNCTIONS: Final = (
    "Secrets named wisp-code and wisp-reader-... hold the platform's own credentials: name another"
)

NO_DEFAULT: Final = "x-wisp-no-default"
OPEN: Final = Meta(extra_json_schema={NO_DEFAULT: True})
"""For a field whose default is not the API server's to write, because it may differ between namespaces."""


class KeyReference(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One key of a Secret or ConfigMap in the same namespace."""

    name: SubdomainName
    """The object's name."""
    key: Annotated[str, Meta(min_length=1, max_length=253)]
    """The key in its data."""
    optional: bool = False
    """True: start without the variable where the object or key is missing. False: wait for it."""


class EnvSource(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Where a variable's value comes from; exactly one."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvVar(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One environment variable: `value` or `valueFrom`."""

    name: Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
    """Letters, digits and '_'. Names that start with WISP_ or K_, and PORT, belong to the platform."""
    value: Annotated[str, Meta(max_length=32768)] | None = None
    """The value itself; absent, with no `valueFrom`, is the empty string."""
    value_from: Annotated[
        EnvSource | None,
        rules(
            (
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "name one source of the value: secretKeyRef or configMapKeyRef",
            )
        ),
    ] = None
    """Takes the value from a Secret or ConfigMap."""


class EnvFromObject(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A Secret or ConfigMap of the same namespace."""

    name: SubdomainName
    """The object's name."""
    optional: bool = False
    """True: start without it where it is missing."""


class EnvFrom(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Every key of a Secret or ConfigMap as a variable; exactly one of the two."""

    prefix: Annotated[str, Meta(max_length=64)] = ""
    """Put before each key."""
    secret_ref: EnvFromObject | None = None
    """The Secret."""
    config_map_ref: EnvFromObject | None = None
    """The ConfigMap."""


class LocalReference(Struct, rename="camel", kw_only=True):
    """An object of the same namespace, by name."""

    name: SubdomainName
    """The object's name."""


class Toleration(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A taint that the pods tolerate, as in a Pod."""

    key: Annotated[str, Meta(max_length=317)] | None = None
    """The taint's key; absent with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Equal compares the value, Exists takes any."""
    value: Annotated[str, Meta(max_length=63)] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent matches every effect."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated, in seconds; absent: for ever."""


class Condition(Struct, rename="camel", kw_only=True):
    """One aspect of the object's state, as in every Kubernetes API."""

    type: Annotated[str, Meta(max_length=316)]
    """Name of the aspect."""
    status: Literal["True", "False", "Unknown"]
    """Unknown: still at work on it, or not able to tell."""
    reason: Annotated[str, Meta(max_length=1024)]
    """A constant for programs."""
    message: Annotated[str, Meta(max_length=32768)]
    """For people: what is wrong, where, and what to do. Empty where nothing is."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: int
    """The metadata.generation that this speaks of."""


Conditions = Annotated[list[Condition], Meta(max_length=16), map_list("type")]
