"""Destinations compiled for the router: the streams behind a namespace's buses and Functions. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wisp_api import names
from wisp_api.destination import Destination
from wisp_api.route import Outlet
from wisp_api.subscription import BUS, FUNCTION

from wisp_operator.api import Object
from wisp_operator.destinations import invocable, posting
from wisp_operator.sources import bus_stream


@dataclass(frozen=True)
class Outlets:
    """What of a namespace can take something."""

    namespace: str
    buses: Collection[str]
    """Those that a Subscription names."""
    functions: Mapping[str, Object]

    def bus(self, name: str) -> Outlet:
        """A bus, with its stream if there is one."""
        return Outlet(kind=BUS, name=name, stream=bus_stream(self.namespace, name) if name in self.buses else "")

    def function(self, name: str) -> Outlet:
        """A Function's invocations, with their stream if it takes any."""
        found = self.functions.get(name)
        return Outlet(kind=FUNCTION, name=name, stream=invocation_stream(found) if found and invocable(found) else "")

    def destination(self, owner: Object, outcome: str, wanted: Destination | None) -> Outlet | None:
        """What a Function's `onSuccess` or `onFailure` says, or a Subscription's `deadLetter`."""
        if posted := posting(owner, "", outcome, wanted):
            return posted.outlet
        if wanted and wanted.bus:
            return self.bus(wanted.bus.name)
        return self.function(wanted.function.name) if wanted and wanted.function else None


def invocation_stream(function: Object) -> str:
    """The stream of a Function's asynchronous invocations."""
    meta = function["metadata"]
    return names.stream(meta["namespace"], FUNCTION, names.owned_source(meta["name"], meta["uid"]))
