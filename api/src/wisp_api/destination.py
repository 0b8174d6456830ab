"""Where something goes that a Function's work brings about: a bus, or another Function, of the same namespace."""

from msgspec import Meta, Struct

from wisp_api.kube import Name, rules


class BusReference(Struct, rename="camel", kw_only=True):
    """A bus of the same namespace: one that a Subscription there names as its source."""

    name: Name
    """The bus."""


class AsyncFunctionReference(Struct, rename="camel", kw_only=True):
    """A Function of the same namespace that can be invoked asynchronously."""

    name: Name
    """The Function; its spec has async."""


class Destination(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Exactly one of the fields."""

    bus: BusReference | None = None
    """Puts it on a bus, as an event."""
    function: AsyncFunctionReference | None = None
    """Invokes a Function with it, asynchronously."""


class Reply(Struct, rename="camel", kw_only=True):
    """Where the function's replies go."""

    bus: BusReference
    """Puts them on a bus."""


DESTINATION_RULES: Meta = rules(
    ("has(self.bus) != has(self.__function__)", "write exactly one destination: bus or function"),
)
