"""Who gets which tables' rows, and what is remembered of it."""

from wisp_api.source import TableConfig
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_fill import Given, Wanted, anew, forgotten, missing, remembered

TABLE = Table(frozenset({"insert"}), ("id",))


def config(**snapshots: list[str]) -> list[TableConfig]:
    """These tables and who asks for their rows."""
    return [TableConfig(name=name, operations=["insert"], snapshots=uids) for name, uids in snapshots.items()]


def test_rows_are_missing_where_a_followed_table_has_somebody_without_them() -> None:
    """With the table as it is followed now: it may go while its rows are written."""
    asked = config(a=["1", "2"], b=["1"], c=[], d=["1"])
    followed = dict.fromkeys("abc", TABLE)
    assert missing(asked, Given({"a": ["1"], "b": ["1"]}), followed) == {"a": Wanted(TABLE, ["2"])}


def test_a_table_is_remembered_when_its_rows_are_written_whatever_becomes_of_the_others() -> None:
    """Beside what was remembered before."""
    given = Given({"a": ["2"], "c": ["1"]}, 3)
    assert remembered(given, {"a": Wanted(TABLE, ["1"])}) == Given({"a": ["1", "2"], "c": ["1"]}, 3)


def test_who_asks_no_more_is_forgotten() -> None:
    """And gets rows under other ids when it asks again; where nobody left, nothing changes."""
    asked = config(a=["1", "2"], b=[], c=["1"])
    left = Given({"a": ["1", "gone"], "b": ["1"], "c": ["1"], "gone": ["1"]})
    assert forgotten(asked, left) == Given({"a": ["1"], "c": ["1"]}, 1)
    assert forgotten(asked, Given({"a": ["1"]}, 1)) == Given({"a": ["1"]}, 1)


def test_rows_come_anew_under_other_ids_to_whoever_had_some() -> None:
    """Where nobody has any, nothing changes."""
    assert anew(Given({"a": ["1"]}, 3)) == Given(round=4)
    assert anew(Given(round=3)) == Given(round=3)
