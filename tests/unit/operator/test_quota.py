"""A quota refuses growth, in a sentence with its numbers, and nothing else."""

import msgspec
import pytest
from wisp_api.function import FunctionSpec
from wisp_api.quota import FunctionQuotaSpec, PerFunction, QuotaDefaults
from wisp_operator.quota import Share, complete, demand, excess, foreseen, grows, held, reserved, sizes

OTHERS = [Share.of(10, 128), Share.of(5, 512)]


@pytest.mark.parametrize(
    ("quota", "wanted", "had", "words"),
    [
        (FunctionQuotaSpec(functions=2), Share.of(1, 128), None, "functions is 2, other functions have 2"),
        (
            FunctionQuotaSpec(instances=20),
            Share.of(6, 128),
            None,
            "instances is 20, other functions have 15, this function asks for 6. Lower spec.scale.max",
        ),
        (
            FunctionQuotaSpec(memory="5Gi"),
            Share.of(10, 128),
            None,
            "memory is 5120 MiB, other functions have 3840 MiB, this function asks for 1280 MiB",
        ),
        (FunctionQuotaSpec(memory="4Gi"), Share.of(3, 128), Share.of(2, 128), "asks for 384 MiB"),
        (
            FunctionQuotaSpec(per_function=PerFunction(memory="256Mi")),
            Share.of(1, 512),
            None,
            "perFunction.memory is 256 MiB, this",
        ),
        (
            FunctionQuotaSpec(per_function=PerFunction(instances=4)),
            Share.of(5, 32),
            Share.of(3, 32),
            "perFunction.instances is 4",
        ),
    ],
)
def test_refused(quota: FunctionQuotaSpec, wanted: Share, had: Share | None, words: str) -> None:
    """What is asked for beyond a number is refused with number, use and remedy; an exact fit is not."""
    told = excess(quota, wanted, had, OTHERS)
    if words.endswith("1280 MiB"):
        assert not told
    else:
        assert words in told
        assert grows(quota, wanted, had)


@pytest.mark.parametrize("had", [Share.of(8, 256), Share.of(8, 512)])
def test_what_is_there_stays(had: Share) -> None:
    """A quota that is far too low takes nothing away, and lets what asks for no more be changed."""
    low = FunctionQuotaSpec(
        functions=0, instances=0, memory="1Mi", per_function=PerFunction(memory="32Mi", instances=1)
    )
    assert not grows(low, Share.of(8, 256), had)
    assert excess(low, Share.of(8, 256), had, OTHERS) == ""
    assert "instances is 0" in excess(FunctionQuotaSpec(instances=0), Share.of(9, 256), had, OTHERS)


@pytest.mark.parametrize(
    ("spec", "memory", "most"),
    [
        ({}, "256Mi", 5),
        ({"memory": "1Gi", "scale": {"max": 7}}, "1Gi", 7),
        ({"scale": {"min": 6, "perInstance": 2}}, "256Mi", 6),
    ],
)
def test_defaults(spec: dict[str, object], memory: str, most: int) -> None:
    """The namespace's defaults stand where a Function says nothing, and never below its own minimum."""
    made = complete(spec, FunctionQuotaSpec(defaults=QuotaDefaults(memory="256Mi", instances=5)))
    assert (made["memory"], made["scale"]["max"]) == (memory, most)
    assert {**made["scale"], **spec.get("scale", {})} == made["scale"]  # type: ignore[dict-item]


def test_more_than_the_platforms_default_at_least() -> None:
    """Without a quota a Function with many pods at least has as many at most."""
    assert complete({"scale": {"min": 300}}, FunctionQuotaSpec()) == {"scale": {"min": 300, "max": 300}}
    assert complete({"scale": {"min": 1}}, FunctionQuotaSpec()) == {"scale": {"min": 1}}


def spec(most: int, **fields: object) -> FunctionSpec:
    """A Function with this many pods of 128Mi at most."""
    code = {"runtime": "python3.13", "handler": "app.handler", "code": {"files": {"app.py": ""}}}
    return msgspec.convert(code | {"scale": {"max": most}} | fields, FunctionSpec)


def revision(name: str, most: int, memory: str) -> dict[str, object]:
    """A Revision as Knative makes it: the front's container may stand before the code's."""
    containers = [
        {"name": "front"},
        {"name": "function", "resources": {"limits": {"memory": memory}}},
    ]
    annotations = {"autoscaling.knative.dev/max-scale": str(most)}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"containers": containers}}


KNOWN = sizes([revision("hello-a", 100, "1Gi"), revision("hello-b", 1, "128Mi"), revision("hello-c", 8, "256Mi")])


@pytest.mark.parametrize(
    ("fields", "serving", "instances", "memory", "total"),
    [
        pytest.param({}, ["hello-b"], 1, 128, 128, id="alone"),
        pytest.param({}, ["hello-a", "hello-b"], 100, 1024, 102400, id="the old one still serves: the larger"),
        pytest.param({"pin": "hello-a"}, ["hello-b"], 100, 1024, 102400, id="pinned in its stead: the larger"),
        pytest.param({"pin": "hello-b"}, ["hello-b"], 1, 128, 128, id="pinned to itself"),
        pytest.param({"tags": {"old": {"revision": "hello-a"}}}, [], 101, 1024, 102528, id="tagged beside it"),
        pytest.param(
            {
                "tags": {
                    "old": {"revision": "hello-a"},
                    "older": {"revision": "hello-a"},
                    "new": {"revision": "hello-b"},
                }
            },
            ["hello-b"],
            101,
            1024,
            102528,
            id="each once",
        ),
        pytest.param(
            {"tags": {"old": {"revision": "hello-a"}}, "pin": "hello-c"}, ["hello-a"], 108, 1024, 104448, id="both"
        ),
        pytest.param({"tags": {"old": {"revision": "gone"}}, "pin": "gone"}, ["hello-c"], 8, 256, 2048, id="gone"),
    ],
)
def test_earlier_revisions_count(
    fields: dict[str, object], serving: list[str], instances: int, memory: int, total: int
) -> None:
    """Tagged revisions count beside what serves, each by what it was made with; the status keeps it."""
    share = demand(spec(1, **fields), "hello-b", KNOWN, serving)
    assert share == Share(instances, memory, total, instances - 1)
    assert held({"status": {"reserved": reserved(share)}}) == Share(instances, memory, total)
    if instances > 1:
        assert f"with {instances - 1} pods of earlier revisions" in excess(
            FunctionQuotaSpec(instances=1), share, None, ()
        )


def test_foreseen_at_least() -> None:
    """The webhook doesn't know which revision a spec makes: one of its size may be that one, another is not."""
    tags = {"one": {"revision": "hello-b"}, "two": {"revision": "hello-a"}}
    assert foreseen(spec(1, tags=tags), KNOWN).instances == 101
    assert foreseen(spec(2, tags=tags), KNOWN).instances == 103
    assert held({"status": {"reserved": {"instances": 4, "memory": "128Mi"}}}) == Share.of(4, 128)
