"""Row changes as CloudEvents: what the server tests can't show well."""

from hypothesis import given
from hypothesis import strategies as st
from wisp_events.sources.row_events import Place

places = st.builds(Place, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))


@given(places, places)
def test_ids_sort_as_places_do(one: Place, other: Place) -> None:
    """Functions and the log compare them as text."""
    assert (str(one) < str(other)) == (one < other)
    assert Place.parse(str(one)) == one


def test_what_is_no_place_is_none() -> None:
    """A sequence that somebody else wrote."""
    assert Place.parse("00000001-2") is None
