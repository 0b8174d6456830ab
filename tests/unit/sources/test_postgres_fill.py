"""Who gets which tables' rows, and what is remembered of it."""

from wisp_api.source import PostgresConfig, TableConfig
from wisp_events.sources.postgres_fill import Given, Wanted, forgotten, missing, remembered
from wisp_events.sources.row_events import Table

TABLE = Table(frozenset({"insert"}), ("id",))


def config(**snapshots: list[str]) -> PostgresConfig:
    """A task with these tables and who asks for their rows."""
    tables = [TableConfig(name=name, operations=["insert"], snapshots=uids) for name, uids in snapshots.items()]
    return PostgresConfig(slot="slot", stream="stream", tables=tables)


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
