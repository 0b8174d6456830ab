"""Which routes a replica follows when what it reads may be older than what it has read."""

import msgspec
from wisp_api.route import Route, Target
from wisp_events.router.bucket import Entry
from wisp_events.router.plan import InvalidRoute
from wisp_events.router.routes import Routes


def entry(name: str, revision: int, *, gone: bool = False) -> Entry:
    """A route of this revision, which is its generation, too."""
    target = Target(url="http://function")
    route = Route(
        namespace="shop", name=name, uid=name, generation=revision, stream="s", subjects=["a.>"], targets=[target]
    )
    return Entry(f"shop.{name}", None if gone else msgspec.json.encode(route), revision)


def known(*entries: Entry) -> Routes:
    """What a replica knows after a listing."""
    routes = Routes()
    routes.take(entries, whole=True)
    return routes


def generations(routes: Routes) -> dict[str, int]:
    """What it follows."""
    return {
        key: plan.generation if isinstance(plan, InvalidRoute) else plan.route.generation
        for key, plan in routes.plans.items()
    }


def test_changes_and_listings_are_taken() -> None:
    """Changed, deleted, and missing in a listing that is as new as what was seen."""
    routes = known(entry("a", 1), entry("b", 2), entry("c", 3))
    routes.take([entry("a", 4), entry("b", 5, gone=True)], whole=False)
    assert generations(routes) == {"shop.a": 4, "shop.c": 3}
    routes.take([entry("a", 6)], whole=True)
    assert generations(routes) == {"shop.a": 6}
    assert routes.revision == 6


def test_a_listing_of_a_replica_that_lags_changes_nothing() -> None:
    """Neither an older route comes back, nor one that was deleted, nor does one go that the listing has not yet."""
    routes = known(entry("a", 1), entry("b", 2))
    routes.take([entry("a", 3), entry("b", 4, gone=True), entry("c", 5)], whole=False)
    late = [entry("a", 1), entry("b", 2)]
    assert not routes.reached(late)
    routes.compare(5)
    routes.take(late, whole=True)
    assert generations(routes) == {"shop.a": 3, "shop.c": 5}
    assert routes.revision == 5


def test_a_bucket_made_anew_is_taken_as_it_is() -> None:
    """Its leader counts from 1 again."""
    routes = known(entry("a", 8), entry("b", 9))
    listing = [entry("a", 1)]
    assert not routes.reached(listing)
    routes.compare(1)
    routes.take(listing, whole=True)
    assert generations(routes) == {"shop.a": 1}
    assert routes.revision == 1


def test_a_listing_leaves_what_did_not_change_as_it_is() -> None:
    """The same plan goes on, so that no filter is compiled again, and no flow that a target's refusals made less starts anew."""
    routes = known(entry("a", 1), entry("b", 2))
    before = dict(routes.plans)
    routes.take([entry("a", 1), entry("b", 3)], whole=True)
    assert routes.plans["shop.a"] is before["shop.a"]
    assert routes.plans["shop.b"] is not before["shop.b"]
