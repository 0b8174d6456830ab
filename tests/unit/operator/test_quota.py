"""A quota refuses growth, in a sentence with its numbers, and nothing else."""

import pytest
from wisp_api.quota import FunctionQuotaSpec, PerFunction, QuotaDefaults
from wisp_operator.quota import Share, complete, excess, grows

OTHERS = [Share(10, 128), Share(5, 512)]


@pytest.mark.parametrize(
    ("quota", "wanted", "had", "words"),
    [
        (FunctionQuotaSpec(functions=2), Share(1, 128), None, "functions is 2, other functions have 2"),
        (
            FunctionQuotaSpec(instances=20),
            Share(6, 128),
            None,
            "instances is 20, other functions have 15, this function asks for 6. Lower spec.scale.max",
        ),
        (
            FunctionQuotaSpec(memory="5Gi"),
            Share(10, 128),
            None,
            "memory is 5120 MiB, other functions have 3840 MiB, this function asks for 1280 MiB",
        ),
        (FunctionQuotaSpec(memory="4Gi"), Share(3, 128), Share(2, 128), "asks for 384 MiB"),
        (
            FunctionQuotaSpec(per_function=PerFunction(memory="256Mi")),
            Share(1, 512),
            None,
            "perFunction.memory is 256 MiB, this",
        ),
        (
            FunctionQuotaSpec(per_function=PerFunction(instances=4)),
            Share(5, 32),
            Share(3, 32),
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


@pytest.mark.parametrize("had", [Share(8, 256), Share(8, 512)])
def test_what_is_there_stays(had: Share) -> None:
    """A quota that is far too low takes nothing away, and lets what asks for no more be changed."""
    low = FunctionQuotaSpec(
        functions=0, instances=0, memory="1Mi", per_function=PerFunction(memory="32Mi", instances=1)
    )
    assert not grows(low, Share(8, 256), had)
    assert excess(low, Share(8, 256), had, OTHERS) == ""
    assert "instances is 0" in excess(FunctionQuotaSpec(instances=0), Share(9, 256), had, OTHERS)


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
