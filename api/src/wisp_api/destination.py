"""Where something goes that a Function's work brings about: a bus, another Function or an Addressable of the same namespace, or a URL."""

from msgspec import Meta, Struct

from wisp_api.kube import Name, rules
from wisp_api.sink import Ref, Sink, Uri


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
    ref: Ref = None
    """Posts it to an Addressable of this namespace, as a Subscription's sink gets events."""
    uri: Uri | None = None
    """Posts it to a URL outside of the cluster, on a host that the installation admits (chart value sinks.allowed)."""

    @property
    def sink(self) -> Sink | None:
        """What it is posted to, where it is no stream of the log."""
        return Sink(ref=self.ref, uri=self.uri) if self.ref or self.uri else None


class Reply(Struct, rename="camel", kw_only=True):
    """Where the function's replies go."""

    bus: BusReference
    """Puts them on a bus."""


DESTINATION_RULES: Meta = rules(
    (
        "[has(self.bus), has(self.__function__), has(self.ref), has(self.uri)].exists_one(given, given)",
        "write exactly one destination: bus, function, ref or uri",
    ),
)
