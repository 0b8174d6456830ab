"""PostgreSQL's text as JSON."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_events.sources import postgres_values
from wisp_events.sources.postgres_values import converter

OIDS = [16, 17, 20, 25, 114, 700, 1114, 1184, 1700, 3802, 1007, 1009, 1231, 3807, 99999]


@given(st.sampled_from([oid for oid in OIDS if oid not in (20, 1007)]), st.text())
def test_any_text_becomes_one_json_value(oid: int, value: str) -> None:
    """Also text that the type would never print: the log must be able to read what is written (integers are taken as they stand)."""
    msgspec.json.decode(converter(oid)(value.encode()))


def elements(value: list[object] | str | None) -> str:
    """PostgreSQL's text of a text array."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "{" + ",".join(elements(one) for one in value) + "}"  # type: ignore[arg-type] # recursive


@given(st.recursive(st.lists(st.text() | st.none()), lambda inner: st.lists(inner, min_size=1), max_leaves=20))
def test_arrays_round_trip(value: list[object]) -> None:
    """Quotes, commas, braces, escapes and nesting in a text array come out as they went in."""
    assert json.loads(converter(1009)(elements(value).encode())) == value


def test_json_that_nests_too_deeply_is_a_string() -> None:
    """It would make the whole frame unreadable otherwise."""
    deep = b"[" * 100_000 + b"]" * 100_000
    assert json.loads(postgres_values.document(deep)) == deep.decode()
    assert postgres_values.document(b"[[1]]") == b"[[1]]"


@pytest.mark.parametrize("value", [b"0", b"-1.50", b"1e+20", b"12345678901234567890.1"])
def test_numbers_keep_their_digits(value: bytes) -> None:
    """Exact on the wire."""
    assert postgres_values.number(value) == value


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    """A database without an encoding can hold them; the row becomes a dead letter."""
    with pytest.raises(ValueError, match="utf-8"):
        postgres_values.text(b"\xff")
