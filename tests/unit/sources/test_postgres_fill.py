"""Who gets which tables' rows, and what is remembered of it."""

from wisp_api.source import PostgresConfig, TableConfig
from wisp_events.sources.postgres_fill import Given, Wanted, missing, remembered
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
    """Those who don't ask any more are forgotten."""
    asked = config(a=["1", "2"], b=["1"], c=["1"])
    given = Given({"a": ["1", "gone"], "c": ["1"], "gone": ["1"]})
    assert remembered(asked, given, {"a": Wanted(TABLE, ["2"])}) == Given({"a": ["1", "2"], "c": ["1"]})
