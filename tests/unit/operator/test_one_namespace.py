"""However much one namespace holds, the operator goes on with the others, and keeps its Lease."""

import asyncio
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from fixtures.objects import make_subscription, postgres
from wisp_api.route import RouteStatus
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import View, plan
from wisp_operator.handlers import subscription
from wisp_operator.sources import decode

if TYPE_CHECKING:
    from wisp_operator.context import Context

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")


class _PlannedError(OSError):
    """Raised to end a reconciliation after its plan."""


async def test_the_loop_runs_while_a_namespace_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that takes its time keeps nothing else from being done."""

    async def nothing(*_: Any) -> Any:
        return None

    turned = threading.Event()

    def slow(*_: Any) -> Any:
        assert turned.wait(60), "the loop stands still"
        raise _PlannedError

    for name, stand_in in {"read_view": nothing, "add_finalizers": nothing, "_log_away": nothing, "plan": slow}.items():
        monkeypatch.setattr(subscription, name, stand_in)
    context = SimpleNamespace(
        api=SimpleNamespace(list=lambda *_: asyncio.sleep(0, [])),
        log=SimpleNamespace(connected=True),
        accounts=True,
        config=CONFIG,
        cluster="",
        namespaces={"media"},
    )
    work = asyncio.ensure_future(subscription.reconcile(cast("Context", context), "media"))
    await asyncio.sleep(0.01)
    turned.set()
    assert await work


def test_a_plan_grows_with_the_namespace_and_not_with_its_square() -> None:
    """Subscriptions that each have a connection of their own are looked at once each, not once for each reader."""
    looked: list[int] = []
    for count in (50, 200):
        wishes = [decode(make_subscription(f"s{n}", source=postgres(connection=f"c{n}"))) for n in range(count)]
        reports = _Counted({w.name: RouteStatus(uid=w.uid, generation=9, state="Active") for w in wishes})
        view = View("media", wishes, cursors={wish.uid for wish in wishes}, route_reports=reports)
        plan(view, CONFIG, "cluster")
        looked.append(reports.looked)
    assert looked[1] <= 4 * looked[0]


class _Counted(dict[str, RouteStatus]):
    """Counts how often somebody asks."""

    looked = 0

    def get(self, key: str, default: Any = None) -> Any:
        """As any dict."""
        self.looked += 1
        return super().get(key, default)
