"""A model of what delivery promises, run against a real router and log: random events and failures, crashes, suspensions.

Bounded, and the same each time, so that it takes seconds; with `WISP_MODEL_EXAMPLES=500` it searches.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fixtures.function_server import MARKED, Answer, Request
from fixtures.router_world import NAMESPACE, World, event, eventually, world
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from wisp_api import cloudevent, names
from wisp_api.route import Retry, Target

EXAMPLES = int(os.environ.get("WISP_MODEL_EXAMPLES", "4"))
SEARCHING = "WISP_MODEL_EXAMPLES" in os.environ
KEYS = ["a", "b", "c"]
RETRY = Retry(max_attempts=3, initial_seconds=0.02, max_seconds=0.05)
ANSWERS: dict[str, Answer] = {
    "take": (200, MARKED, b""),
    "fail": (500, MARKED, b"no"),
    "time out": (504, MARKED | {"wisp-function-error": "Timeout"}, b"late"),
    "refuse": (400, MARKED, b"never"),
    "away": (503, {}, b""),
}
COUNTED = ("fail", "time out")
PLANS = st.lists(st.sampled_from(["fail", "fail", "time out", "away", "refuse"]), max_size=5)
"""What the attempts of an event meet before the function takes it."""

Result = TypeVar("Result")


def is_out(met: list[str]) -> bool:
    """Whether an event is done after these attempts: taken, refused, or without an attempt left."""
    return "take" in met or "refuse" in met or sum(one in COUNTED for one in met) >= RETRY.max_attempts


def expected(plan: list[str]) -> list[str]:
    """What an event's attempts meet where nothing crashes."""
    met: list[str] = []
    while not is_out(met):
        met.append(plan[len(met)] if len(met) < len(plan) else "take")
    return met


class Model:
    """The function of one route, which notes what the router does, and says where that is wrong."""

    def __init__(self) -> None:
        """Nothing was published yet."""
        self.plans: dict[str, list[str]] = {}
        self.lanes: dict[str, list[str]] = defaultdict(list)
        """Key -> its events in the order of the log."""
        self.met: dict[str, list[str]] = defaultdict(list)
        self.stuck: set[str] = set()
        self.crashes = 0
        self.held: set[str] = set()
        """Published while the route is suspended."""
        self.wrong: list[str] = []

    def publish(self, key: str, plan: list[str]) -> str:
        """Plan a new event."""
        name = str(len(self.plans))
        self.plans[name] = plan
        self.lanes[key].append(name)
        return name

    async def answer(self, request: Request) -> Answer:
        """One attempt."""
        name, met = request.id, self.met[request.id]
        before = self.lanes[request.key][: self.lanes[request.key].index(name)]
        if early := [one for one in before if not is_out(self.met[one])]:
            self.wrong.append(f"{name} was tried before {early} of its key were out")
        if name in self.held:
            self.wrong.append(f"{name} was tried although the route is suspended")
        what = "away" if name in self.stuck else self.plans[name][len(met)] if len(met) < len(self.plans[name]) else ""
        met.append(what or "take")
        if what == "time out":
            await asyncio.sleep(0.03)
        return ANSWERS[met[-1]]

    def check(self, letters: dict[str, tuple[str, int]]) -> None:
        """Nothing is lost, order was kept, attempts were counted; what a crash takes back is repeated, no more."""
        assert not self.wrong
        for name, plan in self.plans.items():
            met = self.met[name]
            counts = Counter(met)
            assert is_out(met), f"{name} is lost: {met}"
            assert "take" in met or name in letters, f"{name} was neither taken nor is it a dead letter: {met}"
            assert counts["fail"] + counts["time out"] <= RETRY.max_attempts * (1 + self.crashes)
            assert counts["take"] <= 1 + self.crashes
            tries = [one for one in met if one != "away"]
            if self.crashes == 0:
                assert tries == [one for one in expected(plan) if one != "away"]
                reason = "Rejected" if "refuse" in met else "MaxAttempts"
                assert letters.get(name) == (None if "take" in met else (reason, len(met)))


class Ground:
    """A log, a function and a router that the examples share; each has a route and a table of its own."""

    def __init__(self, runner: asyncio.Runner, w: World) -> None:
        """Start a router."""
        self._runner = runner
        self.w = w
        self.models: dict[str, Model] = {}
        self.w.router()

        async def answer(request: Request) -> Answer:
            return await self.models[request.path].answer(request)

        self.w.function.answer = answer

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end."""
        return self._runner.run(work)


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """It, until the block ends."""
    with asyncio.Runner() as runner:
        made = world(directory)
        w = runner.run(made.__aenter__())
        try:
            yield Ground(runner, w)
        finally:
            runner.run(made.__aexit__(None, None, None))


class Delivery(RuleBasedStateMachine):
    """One route's life, on the ground that the test gives."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        """A route of its own, which runs."""
        super().__init__()
        self.name = f"m{len(self.ground.models)}"
        self.model = self.ground.models[f"/{self.name}"] = Model()
        self.generation = 0
        self.suspended = False
        self.ground.run(self._route(suspend=False))

    async def _route(self, *, suspend: bool) -> None:
        self.generation += 1
        self.suspended = suspend
        if not suspend:
            self.model.held.clear()
        await self.ground.w.subscribe(
            self.name,
            generation=self.generation,
            subjects=[names.row_subject(NAMESPACE, "db", "public", self.name, "*")],
            targets=[Target(url=f"{self.ground.w.function.url}{self.name}")],
            retry=RETRY,
            suspend=suspend,
        )
        if suspend:
            await self.ground.w.status(lambda s: s.state == "Suspended" and s.generation == self.generation, self.name)

    async def _publish(self, key: str, plan: list[str]) -> str:
        one = self.model.publish(key, plan)
        if self.suspended:
            self.model.held.add(one)
        await self.ground.w.publish(event(int(one), key), table=self.name)
        return one

    @rule(key=st.sampled_from(KEYS), plan=PLANS)
    def publish(self, key: str, plan: list[str]) -> None:
        """An event is stored."""
        self.ground.run(self._publish(key, plan))

    @rule()
    def pass_time(self) -> None:
        """The router gets on."""
        self.ground.run(asyncio.sleep(0.05))

    @precondition(lambda self: self.model.crashes < 2 and self.model.plans)
    @rule()
    def crash(self) -> None:
        """The router is killed, and started again."""
        self.model.crashes += 1
        self.ground.w.routers[0].kill()
        self.ground.w.routers[0].start()

    @rule()
    def suspend_or_resume(self) -> None:
        """The user stops the deliveries, or lets them go on."""
        self.ground.run(self._route(suspend=not self.suspended))

    @precondition(lambda self: not self.suspended and not self.model.stuck)
    @rule()
    def park(self) -> None:
        """A key that fails for long holds up nobody else."""
        self.ground.run(self._park())

    async def _park(self) -> None:
        self.model.stuck.add(str(len(self.model.plans)))
        await self._publish("a", [])
        behind, beside = await self._publish("a", []), await self._publish("d", [])
        await eventually(lambda: "take" in self.model.met[beside], "an event beside one that fails")
        assert not self.model.met[behind]

    def teardown(self) -> None:
        """In the end all is delivered or a dead letter."""
        self.ground.run(self._settle())

    async def _settle(self) -> None:
        self.model.stuck.clear()
        await self._route(suspend=False)
        letters = await self._letters()
        async with asyncio.timeout(60):
            while not all("take" in self.model.met[one] or one in letters for one in self.model.plans):
                letters = await self._letters()
        self.model.check(letters)

    async def _letters(self) -> dict[str, tuple[str, int]]:
        found = [one for one in await self.ground.w.dead_letters(0) if one.subscription == self.name]
        return {cloudevent.decode(one.event or b"").id: (one.reason, one.attempts) for one in found}


def test_the_model_of_delivery_holds(tmp_path: Path) -> None:
    """Whatever is published, fails, crashes and is suspended: nothing is lost, order holds by key, and attempts end in a dead letter."""
    with ground(tmp_path) as Delivery.ground:
        run_state_machine_as_test(
            Delivery,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=25,
                deadline=None,
                database=None,
                derandomize=not SEARCHING,
                phases=(Phase.generate, Phase.shrink) if SEARCHING else (Phase.generate,),
            ),
        )
