"""A list of requirements as a Job: the same layer is the same name, and nothing else is."""

from typing import Any

import msgspec
import pytest
from fixtures.objects import make_function
from wisp_api.code import BuildTask
from wisp_api.function import FunctionSpec
from wisp_operator.config import OperatorConfig
from wisp_operator.function_objects import make_owner_reference
from wisp_operator.requirements_objects import build_key, make_build_job

CONFIG = OperatorConfig(
    namespace="wisp-system",
    runtimes={},
    events_image="events",
    nats_url="",
    store_url="http://store",
    package_index_url="https://index/simple",
)
ARM: dict[str, Any] = {"nodeSelector": {"kubernetes.io/arch": "arm64", "disk": "fast"}}


def function(*requirements: str, **spec: Any) -> dict[str, Any]:
    """A Function with requirements."""
    made = make_function(requirements=list(requirements), **spec)
    return made | {"metadata": made["metadata"] | {"uid": "u1"}}


def key(*requirements: str, config: OperatorConfig = CONFIG, **spec: Any) -> str:
    """The key of its layer."""
    return build_key(msgspec.convert(function(*requirements, **spec)["spec"], FunctionSpec), config)


def test_same_layer_has_the_same_key() -> None:
    """Order, spaces and what stands twice don't count, nor what else the Function says."""
    expected = key("a==1", "b>2,<3", "c ; python_version < '4'")
    assert key("b >2, < 3", "c;python_version  < '4'", "a == 1", "a==1") == expected
    assert key("a==1", "b>2,<3", "c ; python_version < '4'", memory="1Gi", pod={"labels": {"x": "y"}}) == expected


@pytest.mark.parametrize(
    "other",
    [
        key("a==1.0"),
        key("a==1", "b"),
        key("a==1", pod=ARM),
        key("a==1", config=msgspec.structs.replace(CONFIG, package_index_url="https://other/simple")),
        key("a==1 ; x == 'a b'"),
        key("a==1 ; x == 'ab'"),
    ],
)
def test_other_layer_has_another_key(other: str) -> None:
    """Each that the layer depends on counts: the list, the architecture, the index."""
    assert other != key("a==1")


def test_job_is_told_nothing_secret() -> None:
    """The task stands in the Job's environment; the index's Secret may be missing, and what is over goes by itself."""
    made = function("b", "a", pod=ARM | {"tolerations": [{"key": "arm", "operator": "Exists"}]})
    spec = msgspec.convert(made["spec"], FunctionSpec)
    job = make_build_job(made, make_owner_reference(made), spec, CONFIG)
    pod = job["spec"]["template"]["spec"]
    (variable,) = pod["containers"][0]["env"]
    task = msgspec.json.decode(variable["value"], type=BuildTask)
    assert (task.requirements, task.index, task.store) == (["a", "b"], "https://index/simple", "http://store")
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert pod["tolerations"] == [{"key": "arm", "operator": "Exists"}]
    assert {one["name"]: one["secret"].get("optional") for one in pod["volumes"] if "secret" in one} == {
        "index": True,
        "token": None,
    }
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
