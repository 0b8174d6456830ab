"""The FunctionQuota kind: what the Functions of a namespace may have together and each, and what one has that does not say."""

from typing import Annotated

from msgspec import Meta, Struct

from wisp_api.kube import SIZE_RULES, Quantity, rules

Instances = Annotated[int, Meta(ge=1, le=1000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
TotalMemory = Annotated[
    Quantity, rules(("self.matches('^[0-9]+(Mi|Gi)$')", "write a whole number of Mi or Gi, as 64Gi"))
]


class QuotaDefaults(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What a Function has that does not say."""

    memory: Annotated[Quantity, SIZE_RULES] | None = None
    """Its memory; absent: 128Mi."""
    instances: Instances | None = None
    """Its scale.max, or its scale.min where that is more; absent: 100."""


class PerFunction(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What one Function may have at most."""

    memory: Annotated[Quantity, SIZE_RULES] | None = None
    """Its memory."""
    instances: Instances | None = None
    """Its scale.max, with those of the revisions that its tags name."""


class FunctionQuotaSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The quota. What is left out is not limited. A lower one ends nothing that was there before: it holds from the next change that asks for more."""

    functions: Count | None = None
    """Functions at most."""
    instances: Count | None = None
    """Pods at most, all Functions at their scale.max."""
    memory: TotalMemory | None = None
    """Memory at most, all Functions at their scale.max."""
    per_function: PerFunction | None = None
    """What one Function may have at most."""
    defaults: QuotaDefaults | None = None
    """What a Function has that does not say. A change rolls out to all of these."""


class FunctionQuotaStatus(Struct, rename="camel", kw_only=True):
    """What is used."""

    functions: int = 0
    """Functions that were deployed."""
    instances: int = 0
    """Their pods, all at their scale.max."""
    memory: str = "0Mi"
    """The memory of these."""


SPEC_RULES = rules(
    *(
        (
            f"!has(self.defaults) || !has(self.perFunction) || !has(self.defaults.{name}) || !has(self.perFunction.{name}) || {inside}",
            f"defaults.{name} is above perFunction.{name}: a Function that does not say would be refused",
        )
        for name, inside in (
            ("instances", "self.defaults.instances <= self.perFunction.instances"),
            ("memory", "quantity(self.defaults.memory).compareTo(quantity(self.perFunction.memory)) <= 0"),
        )
    )
)


class FunctionQuota(Struct, rename="camel", kw_only=True):
    """What the Functions of its namespace may have; for the cluster's administrators to write, and for everybody there to read."""

    spec: Annotated[FunctionQuotaSpec, SPEC_RULES]
    """The quota."""
    status: FunctionQuotaStatus | None = None
    """What is used of it."""


NAME_RULES = rules(
    ("self.metadata.name == 'default'", "metadata.name: a namespace has one FunctionQuota, named default")
)
"""On the object itself."""
