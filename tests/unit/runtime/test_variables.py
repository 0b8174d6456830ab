"""The variables that the kubelet would give a container now, made of the mounted files by what the operator tells."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fixtures.mounted import Mounted
from fixtures.objects import make_function
from wisp_api.function import FunctionSpec
from wisp_operator.function_objects import make_knative_service
from wisp_runtime.variables import Variables, VariablesError, expand

if TYPE_CHECKING:
    from pathlib import Path

NAMED = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\)|.?)", re.DOTALL)


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    """A pod's folder."""
    return Mounted(tmp_path / "env")


def secret(name: str, key: str, *, of: str = "s", optional: bool = False) -> dict[str, Any]:
    """A variable from a Secret's key."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": of, "key": key, "optional": optional}}}


def variables(mounted: Mounted, has: dict[str, str] | None = None, **spec: Any) -> Variables:
    """What the runtime makes of the operator's pod for a Function with this spec, in a container that has these variables."""
    function = make_function(**spec)
    made = make_knative_service(function, msgspec.convert(function["spec"], FunctionSpec), "image")
    container = made["spec"]["template"]["spec"]["containers"][0]
    return Variables({**start(container["env"], has or {}), **(has or {}), "WISP_ENV_DIR": str(mounted.folder)})


def start(env: list[dict[str, str]], has: dict[str, str]) -> dict[str, str]:
    """The platform's variables as the kubelet gives them, where the earlier ones in the container include what it has."""
    made = dict(has)
    for one in env:
        if "value" in one and one["name"].startswith("WISP_"):
            made[one["name"]] = NAMED.sub(lambda found: _named(found, made), one["value"])
    return made


def _named(found: re.Match[str], made: dict[str, str]) -> str:
    """What Kubernetes puts in the place of `$$`, `$(NAME)` or another `$` with the sign behind it."""
    if found[0] == "$$":
        return "$"
    return found[0] if found["name"] is None else made.get(found["name"], found[0])


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $(A", "$A $(A"),
        ("$", "$"),
        ("$()", "$()"),
        ("$$", "$"),
        ("$(KUBERNETES_SERVICE_HOST)$(HOME)", "10.0.0.1$(HOME)"),
        ("x$(A)", "x1"),
    ],
)
def test_values_that_name_others(text: str, is_: str) -> None:
    """Names are replaced as Kubernetes does it; what nobody has made stays as it is written."""
    assert expand(text, {"A": "1"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOME": "/"})[0] == is_


def test_single_keys_and_what_names_them(mounted: Mounted) -> None:
    """A variable from a key, and each that is made of it; not those that depend on no Secret."""
    env = [
        {"name": "HOST", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "host"}}},
        {"name": "USER", "value": "shop"},
        secret("PASSWORD", "password"),
        {"name": "DSN", "value": "pg://$(USER):$(PASSWORD)@$(HOST)/$(WISP_NAMESPACE)"},
        {"name": "BANNER", "value": "$(USER) $$"},
    ]
    mounted.write("secrets/s", password="new", other="hidden")
    made = variables(mounted, {"HOST": "db", "USER": "shop", "PASSWORD": "old"}, env=env)
    assert made.read() == {"DSN": "pg://shop:new@db/media", "PASSWORD": "new"}


@pytest.mark.parametrize("password", ["old", 'a"b', "abc\n", "a\\b", "$$(X)"])
def test_the_kubelet_leaves_the_recipe_alone(mounted: Mounted, password: str) -> None:
    """What a container's Secrets hold neither breaks what is told of the variables, nor is in it, nor stays in what is made."""
    env = [{"name": "DSN", "value": "pg://u:$(PASSWORD)@h"}, {"name": "USAGE", "value": "$$(PASSWORD) is it, $$"}]
    mounted.write("secrets/s", PASSWORD=password)
    has = {"PASSWORD": password, "DSN": f"pg://u:{password}@h", "USAGE": "$(PASSWORD) is it, $"}
    made = variables(mounted, has, envFrom=[{"secretRef": {"name": "s"}}], env=env)
    assert made.read() == {"DSN": f"pg://u:{password}@h", "PASSWORD": password}
    mounted.write("secrets/s", PASSWORD="new")
    assert made.read() == {"DSN": "pg://u:new@h", "PASSWORD": "new"}


def test_whole_objects_in_their_order(mounted: Mounted) -> None:
    """A later object hides an earlier one's keys, and a single variable both; a ConfigMap keeps its first values."""
    mounted.write("secrets/a", X="a", Y="a", Z="a")
    mounted.write("secrets/b", Y="b")
    mounted.write("configmaps/c", Z="c", LEVEL="c")
    sources = [
        {"secretRef": {"name": "a"}},
        {"secretRef": {"name": "b"}},
        {"configMapRef": {"name": "c"}},
        {"prefix": "P_", "secretRef": {"name": "b"}},
    ]
    has = {"X": "mine", "Y": "b", "Z": "c", "LEVEL": "c", "P_Y": "b"}
    made = variables(mounted, has, envFrom=sources, env=[{"name": "X", "value": "mine"}])
    assert made.read() == {"Y": "b", "P_Y": "b"}
    mounted.write("configmaps/c", LEVEL="new")
    mounted.write("secrets/b", Q="b")
    assert made.read() == {"Y": "a", "Q": "b", "P_Q": "b"}


def test_binary_data_of_a_config_map(mounted: Mounted) -> None:
    """What the kubelet mounts and makes no variable of neither stops what is followed nor hides it, text included."""
    mounted.write("secrets/s", PASSWORD="old", TOKEN="old")
    binary: dict[str, str | bytes] = {
        "logo.png": b"\x89PNG\xff",
        "nul": b"\0",
        "USER": b"\xff",
        "TOKEN": "text",
        "notes": "text",
    }
    mounted.write("configmaps/c", LEVEL="1", **binary)
    sources = [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}]
    env = [{"name": "USER", "value": "u"}, {"name": "DSN", "value": "$(USER):$(PASSWORD) $(LEVEL) $(notes)"}]
    has = {"PASSWORD": "old", "TOKEN": "old", "LEVEL": "1", "USER": "u", "DSN": "u:old 1 $(notes)"}
    made = variables(mounted, has, envFrom=sources, env=env)
    assert made.read() == {"DSN": "u:old 1 $(notes)", "PASSWORD": "old", "TOKEN": "old"}
    mounted.write("secrets/s", PASSWORD="new", TOKEN="new")
    assert made.read() == {"DSN": "u:new 1 $(notes)", "PASSWORD": "new", "TOKEN": "new"}


def test_a_config_map_below_a_secret(mounted: Mounted) -> None:
    """Its value shows when the Secret has the key no more, and counts no longer as a Secret's."""
    mounted.write("configmaps/c", LEVEL="default")
    mounted.write("secrets/s", LEVEL="s", USER="u")
    sources = [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]
    env = [{"name": "DSN", "value": "$(USER) $(LEVEL)"}]
    has = {"LEVEL": "s", "USER": "u", "DSN": "u s"}
    made = variables(mounted, has, envFrom=sources, env=env)
    assert made.read() == {"DSN": "u s", "LEVEL": "s", "USER": "u"}
    mounted.write("secrets/s", USER="u")
    assert made.read() == {"DSN": "u default", "USER": "u"}


def test_an_empty_secret_beside_others(mounted: Mounted) -> None:
    """One that was empty when the container started stops nothing; when it has got keys it is one that may not go."""
    mounted.write("secrets/s", A="old")
    mounted.write("secrets/empty")
    made = variables(mounted, {"A": "old"}, envFrom=[{"secretRef": {"name": "s"}}, {"secretRef": {"name": "empty"}}])
    mounted.write("secrets/s", A="new")
    assert made.read() == {"A": "new"}
    mounted.write("secrets/empty", B="1")
    assert made.read() == {"A": "new", "B": "1"}
    mounted.write("secrets/empty")
    with pytest.raises(VariablesError, match="the Secret empty is missing, or empty"):
        made.read()


def test_what_belongs_to_the_platform_stays(mounted: Mounted) -> None:
    """No Secret sets what the platform or the process's own start goes by, nor what the kubelet takes for no name."""
    mounted.write(
        "secrets/s", WISP_HANDLER="x", K_REVISION="x", PORT="1", LD_LIBRARY_PATH="/x", **{"1st": "x", "a.b": "y"}
    )
    assert variables(mounted, envFrom=[{"secretRef": {"name": "s"}}]).read() == {"a.b": "y"}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"env": [secret("A", "gone")]}, "the Secret s has no key gone"),
        ({"env": [secret("A", "a", of="none")]}, "the Secret none has no key a"),
        ({"env": [secret("A", "binary")]}, "the Secret s, key binary: its value is none for a variable"),
        ({"env": [secret("A", "nul")]}, "the Secret s, key nul: its value is none for a variable"),
    ],
)
def test_what_no_container_starts_with(mounted: Mounted, spec: dict[str, Any], problem: str) -> None:
    """What the kubelet would wait for, or fail at, is told in a sentence without a value."""
    mounted.write("secrets/s", a="1", binary=b"\xff", nul="a\0b")
    made = variables(mounted, **spec)
    with pytest.raises(VariablesError, match=problem):
        made.read()


def test_what_may_be_missing(mounted: Mounted) -> None:
    """An optional key or Secret makes no variable; one of the same name from a whole object then shows."""
    mounted.write("secrets/s", A="whole")
    sources = [{"secretRef": {"name": "s"}}, {"secretRef": {"name": "none", "optional": True}}]
    env = [secret("A", "gone", optional=True), secret("B", "gone", optional=True)]
    assert variables(mounted, envFrom=sources, env=env).read() == {"A": "whole"}


def test_the_stamp_tells_of_each_change(mounted: Mounted) -> None:
    """Every change of the files is another stamp, a Secret that comes included; looking twice is none."""
    made = variables(mounted, env=[secret("A", "a", optional=True)])
    stamps = [made.stamp()]
    for value in ("1", "2"):
        mounted.write("secrets/s", a=value)
        stamps.append(made.stamp())
    assert stamps[0] != stamps[1] != stamps[2] == made.stamp()


def test_a_broken_recipe_is_no_recipe() -> None:
    """Nonsense fails at once and is not served by."""
    with pytest.raises(ValueError, match="Expecting"):
        Variables({"WISP_ENV": json.dumps({})[:1]})
