"""What of a ConfigMap makes a new revision, and whom a change concerns."""

from typing import Any

import msgspec
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_operator.env import EnvObjects, env_digest, named_config_maps
from wisp_operator.function_objects import make_knative_service
from wisp_operator.keys import FunctionKey

ENV = [
    {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "level"}}},
    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}},
]
FIRST, SECOND = FunctionKey("media", "first"), FunctionKey("media", "second")


def spec(**fields: Any) -> FunctionSpec:
    """A Function's spec."""
    return msgspec.convert(make_function(**fields)["spec"], FunctionSpec)


def test_only_the_values_that_it_uses_count() -> None:
    """A used key and any key of a whole ConfigMap count; another key, label or version doesn't, and no Secret is named."""
    wish = spec(env=ENV, envFrom=[{"configMapRef": {"name": "all"}}, {"secretRef": {"name": "hidden"}}])
    assert named_config_maps(wish) == {"one", "all"}
    held: dict[str, Any] = {"one": {"data": {"level": "1", "other": "x"}}, "all": {"data": {"a": "1"}}}
    before = env_digest(wish, held)
    assert before == env_digest(wish, held | {"one": {"data": {"level": "1"}, "metadata": {"labels": {"a": "b"}}}})
    others: list[dict[str, Any]] = [
        {"one": {"data": {"level": "2"}}},
        {"one": None},
        {"all": {"data": {"a": "1", "b": ""}}},
        {"all": {}},
    ]
    assert len({before, *(env_digest(wish, held | change) for change in others)}) == 5


def test_a_function_without_config_maps_keeps_its_revision() -> None:
    """Neither annotation nor another name where there is nothing to follow; a restart makes both."""
    function = make_function()
    wish = spec()
    assert env_digest(wish, {}) == ""
    plain = make_knative_service(function, wish, "python", env="")["spec"]["template"]["metadata"]
    assert not any(name.startswith("wisp.dev/") for name in plain["annotations"])
    function["metadata"]["annotations"] = {"wisp.dev/restartedAt": "now"}
    again = make_knative_service(function, wish, "python", env="")["spec"]["template"]["metadata"]
    assert again["name"] != plain["name"]
    assert again["annotations"]["wisp.dev/restartedAt"] == "now"


class Held:
    """Plays the API: the ConfigMap in some version."""

    def __init__(self, version: str) -> None:
        """In this one."""
        self.version = version

    async def get(self, *_: object) -> dict[str, Any]:
        """The object."""
        return {"metadata": {"resourceVersion": self.version}}


async def test_whoever_read_another_version_is_told() -> None:
    """Each Function by what it has read itself; one that names it no more isn't, and without readers nothing is watched."""
    env = EnvObjects()
    assert not env.some.is_set()
    await env.read(Held("1"), FIRST, {"one"})  # type: ignore[arg-type]
    await env.read(Held("2"), SECOND, {"one", "two"})  # type: ignore[arg-type]
    assert env.some.is_set()
    assert env.behind("media", "one", "2") == [FIRST]
    assert set(env.behind("media", "one", "")) == {FIRST, SECOND}
    assert env.behind("shop", "one", "3") == []
    env.name(FIRST, set())
    assert env.behind("media", "one", "3") == [SECOND]
    env.name(SECOND, set())
    assert not env.some.is_set()
