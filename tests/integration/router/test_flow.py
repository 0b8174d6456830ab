"""How many events a target gets at once: what its Subscription allows, less while it asks for less, on a real router."""

import asyncio

import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import World, event, eventually
from wisp_api.route import Retry

PARALLELISM = 4
QUICK = Retry(max_attempts=1000, initial_seconds=0.05, max_seconds=0.2)


async def flood(w: World, count: int = 400) -> None:
    """Have more events than may be under way, all of them ready whenever one may start."""
    await w.subscribe(order="none", parallelism=PARALLELISM, retry=QUICK, timeout_seconds=300)
    await w.publish(*(event(n, f"k{n}") for n in range(count)))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_target_that_is_full_gets_less_at_once_and_then_more_again(w: World, status: int) -> None:
    """Refused by 429, or by the platform's 503, deliveries become fewer, down to one at a time; taken, as many as before, and no more."""
    alone = 0

    async def full(_: Request) -> Answer:
        nonlocal alone
        alone = alone + 1 if w.function.active == 1 else 0
        await asyncio.sleep(0.02)
        return status, {}, b""

    async def takes(request: Request) -> Answer:
        await asyncio.sleep(0.02)
        return ok(request)

    w.function.answer = full
    await flood(w)
    await eventually(lambda: alone >= 10, "one at a time")
    w.function.peak = 0
    w.function.answer = takes
    await eventually(lambda: w.function.peak == PARALLELISM, "as many as before")
    assert len(set(await w.delivered(400))) == 400
    assert w.function.peak == PARALLELISM


@pytest.mark.parametrize("fault", [(500, MARKED), (503, MARKED), (404, {})])
async def test_a_fault_is_no_reason_to_send_less(w: World, fault: tuple[int, dict[str, str]]) -> None:
    """What the function's code answers, or the ingress for a pod that is not there, leaves as many under way as there were."""
    held = asyncio.Event()

    async def holds(request: Request) -> Answer:
        await held.wait()
        return ok(request)

    w.function.answer = lambda _: (*fault, b"")
    await flood(w, 40)
    await eventually(lambda: len(w.function.requests) > 100, "many have failed")
    w.function.answer = holds
    await eventually(lambda: w.function.active == PARALLELISM, "all that may are under way")
    held.set()
    await w.delivered(40)
