"""Who gets which tables' rows, and what is remembered of it."""

from wisp_api.source import TableConfig
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_given import Given, Wanted, anew, begun, forgotten, missing, remembered

TABLE = Table(frozenset({"insert"}), ("id",))


def config(**snapshots: list[str]) -> list[TableConfig]:
    """These tables and who asks for their rows."""
    return [TableConfig(name=name, operations=["insert"], snapshots=uids) for name, uids in snapshots.items()]


def test_rows_are_missing_where_a_followed_table_has_somebody_without_them() -> None:
    """With the table as it is followed now: it may go while its rows are written."""
    asked = config(a=["1", "2"], b=["1"], c=[], d=["1"])
    followed = dict.fromkeys("abc", TABLE)
    assert missing(asked, Given({"a": ["1"], "b": ["1"]}), followed) == {"a": Wanted(TABLE, ["2"])}


def test_who_begins_has_a_number_that_nobody_had() -> None:
    """And keeps it until it has all of the table's rows: who dies in between goes on under it."""
    wanted = {"a": Wanted(TABLE, ["1", "2"]), "b": Wanted(TABLE, ["1"])}
    first = begun(Given({"a": ["0"]}, {"a": {"1": 3}}, 4), wanted)
    assert first == Given({"a": ["0"]}, {"a": {"1": 3, "2": 5}, "b": {"1": 6}}, 6)
    assert begun(first, wanted) == first


def test_a_table_is_remembered_when_its_rows_are_written_whatever_becomes_of_the_others() -> None:
    """Beside what was remembered before."""
    given = Given({"a": ["2"], "c": ["1"]}, {"a": {"1": 2, "3": 4}, "d": {"1": 3}}, 4)
    left = Given({"a": ["1", "2"], "c": ["1"]}, {"a": {"3": 4}, "d": {"1": 3}}, 4)
    assert remembered(given, {"a": Wanted(TABLE, ["1"])}) == left


def test_who_asks_no_more_is_forgotten_and_nobody_else() -> None:
    """Also with a part of the rows: asking again it begins under another number. Where nobody left, nothing changes."""
    asked = config(a=["1", "2"], b=[], c=["1"])
    left = Given({"a": ["1", "gone"], "b": ["1"], "gone": ["1"]}, {"a": {"2": 7}, "b": {"2": 8}, "c": {"gone": 9}}, 9)
    kept = Given({"a": ["1"]}, {"a": {"2": 7}}, 9)
    assert forgotten(asked, left) == kept
    assert forgotten(asked, kept) == kept


def test_rows_come_anew_under_other_numbers_to_whoever_had_some() -> None:
    """All of a table's, or a part of them."""
    assert anew(Given({"a": ["1"]}, {"b": {"1": 3}}, 3)) == Given(round=3)
