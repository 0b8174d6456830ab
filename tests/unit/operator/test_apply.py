"""Nothing is written where the cluster holds what is wanted, whatever it holds besides."""

from typing import Any

import pytest
from wisp_operator.apply import covers, digest, stamped


@pytest.mark.parametrize(
    ("reason", "live", "wanted", "same"),
    [
        ("fields of others stay", {"a": 1, "b": 2}, {"a": 1}, True),
        ("a changed field", {"a": 2}, {"a": 1}, False),
        ("a missing field", {}, {"a": None}, False),
        ("false is not absent", {}, {"a": False}, False),
        (
            "items are found by name",
            {"l": [{"name": "y"}, {"name": "x", "v": 1}]},
            {"l": [{"name": "x", "v": 1}]},
            True,
        ),
        ("an item is missing", {"l": [{"name": "y"}]}, {"l": [{"name": "x"}]}, False),
        (
            "mounts are told apart by path",
            {"l": [{"name": "a", "mountPath": "/x"}]},
            {"l": [{"name": "a", "mountPath": "/y"}]},
            False,
        ),
        ("a plain list is whole", {"l": ["a", "b"]}, {"l": ["a"]}, False),
        ("order of a plain list counts", {"l": ["b", "a"]}, {"l": ["a", "b"]}, False),
        ("another type", {"l": "a"}, {"l": ["a"]}, False),
    ],
)
def test_covers(reason: str, live: Any, wanted: Any, same: bool) -> None:  # noqa: FBT001 - a table's column
    """`covers` tells drift from additions."""
    assert covers(live, wanted) is same, reason


def test_stamp_tells_of_a_field_that_is_not_wanted_any_more() -> None:
    """Two wishes that one live object covers differ in their stamp."""
    one, two = ({"metadata": {"name": "a", "labels": labels}} for labels in ({"x": "1", "y": "2"}, {"x": "1"}))
    assert not covers(stamped(one), stamped(two))
    assert covers(stamped(one), stamped(one))


def test_digest_does_not_depend_on_order() -> None:
    """Keys in another order are the same content."""
    assert digest({"a": 1, "b": [1]}) == digest({"b": [1], "a": 1})
