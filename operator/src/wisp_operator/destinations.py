"""Destinations that are posted to: an Addressable, or a URL, that a Subscription's `deadLetter` or a Function's `async` names. Pure.

Each has a stream and a route of its own: the record that the router stores there is delivered as any event, so one that is away holds up
nobody else. Invariant: a destination's route has no destination, so that what it gives up is one dead letter and nothing after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from wisp_api import names
from wisp_api.destination import Destination
from wisp_api.function import Async
from wisp_api.route import Outlet, Retry, Route, Target
from wisp_api.sink import Sink
from wisp_api.subscription import DESTINATION, FUNCTION

from wisp_operator.api import Object
from wisp_operator.sources import Wish

SUCCESS: Final = "success"
FAILURE: Final = "failure"
_PARALLELISM: Final = 10


@dataclass(frozen=True)
class Posting:
    """One of them."""

    owner: Object
    """The Subscription or Function."""
    field: str
    """Of the owner, where it is written."""
    outcome: str
    """What its records tell of."""
    sink: Sink

    @property
    def route(self) -> str:
        """The route's name."""
        return names.record_route(self.outcome, self.owner["kind"].lower(), self.owner["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The route's uid: one of an owner made anew is another one."""
        return f"{self.owner['metadata']['uid']}-{self.outcome}"

    @property
    def stream(self) -> str:
        """The stream's name."""
        return names.stream(self.owner["metadata"]["namespace"], DESTINATION, self._source)

    @property
    def outlet(self) -> Outlet:
        """Where the owner's route puts the records."""
        return Outlet(kind=DESTINATION, name=self.route, stream=self.stream)

    @property
    def _source(self) -> str:
        meta = self.owner["metadata"]
        return f"{names.owned_source(meta['name'], meta['uid'])}_{self.outcome}"

    def make_route(self, target: Target | None) -> Route:
        """What delivers the records; without a target they wait."""
        meta = self.owner["metadata"]
        return Route(
            namespace=meta["namespace"],
            name=self.route,
            uid=self.uid,
            generation=meta["generation"],
            stream=self.stream,
            subjects=[
                names.record_subject(meta["namespace"], self._source),
                names.redrive_subject(self.stream, self.uid),
            ],
            start="earliest",  # the stream holds nothing but its own records
            targets=[target] if target else [],
            order="none",
            parallelism=_PARALLELISM,
            retry=Retry(),
            records=True,
        )


def invocable(function: Object) -> bool:
    """Whether a Function takes asynchronous invocations."""
    return "async" in function["spec"] and "deletionTimestamp" not in function["metadata"]


def decode_async(function: Object) -> Async | None:
    """How a Function takes asynchronous invocations; None where that was stored before a rule and can't be read, as its own status says."""
    try:
        return msgspec.convert(function["spec"]["async"], Async)
    except msgspec.ValidationError:
        return None


def own_streams(function: Object) -> set[str]:
    """The streams of a Function's invocations and of the records of them that are posted, whether there are any or not."""
    meta = function["metadata"]
    source = names.owned_source(meta["name"], meta["uid"])
    posted = {names.stream(meta["namespace"], DESTINATION, f"{source}_{outcome}") for outcome in (SUCCESS, FAILURE)}
    return posted | {names.stream(meta["namespace"], FUNCTION, source)}


def posting(owner: Object, field: str, outcome: str, wanted: Destination | None) -> Posting | None:
    """A destination as it is posted to; None where it is a stream of the log, or none at all."""
    return Posting(owner, field, outcome, wanted.sink) if wanted and wanted.sink else None


def postings(wishes: Iterable[Wish], functions: Iterable[Object]) -> Iterator[Posting]:
    """All of a namespace's, of what is there to stay."""
    for wish in wishes:
        if not wish.deleting and (found := posting(wish.live, "spec.deadLetter", FAILURE, wish.spec.dead_letter)):
            yield found
    for function in functions:
        if not invocable(function) or (wanted := decode_async(function)) is None:
            continue
        for field, outcome, one in (
            ("spec.async.onSuccess", SUCCESS, wanted.on_success),
            ("spec.async.onFailure", FAILURE, wanted.on_failure),
        ):
            if found := posting(function, field, outcome, one):
                yield found
