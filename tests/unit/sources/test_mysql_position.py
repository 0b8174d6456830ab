"""Where a reader of MySQL goes on, and where it begins anew."""

from wisp_events.sources.mysql_catalog import Server
from wisp_events.sources.mysql_position import Position, after_gap, begin, returned, seen
from wisp_events.sources.row_events import Place
from wisp_events.sources.row_given import Given

HERE = Server(mariadb=True, identity="1@db", position="0-1-9", charsets={})
KNOWN = Position(epoch=100, count=7, gtids="0-1-5", server="1@db", mariadb=True)


def test_a_first_reader_begins_now_without_a_gap() -> None:
    """Nothing was followed before, so nothing is missing."""
    found = begin(None, HERE, [])
    assert (found.gtids, found.count, found.gap, found.pending) == ("0-1-9", 0, "", False)


def test_the_same_server_is_gone_on_with() -> None:
    """Also where the gap events of an earlier break are still to be written."""
    assert begin(KNOWN, HERE, [Place(100, 6 << 20, 4)]) == KNOWN


def test_another_server_with_the_same_transactions_is_a_new_epoch_without_a_gap() -> None:
    """It may have them in another order, so places begin anew; nothing is missing."""
    moved = Server(mariadb=True, identity="2@other", position="0-2-20", charsets={})
    found = begin(KNOWN, moved, [Place(2**31, 1, 2)])
    assert (found.gtids, found.count, found.server, found.pending) == ("0-1-5", 0, "2@other", False)
    assert found.epoch == 2**31 + 1


def test_a_lost_position_is_a_gap_where_the_log_holds_something() -> None:
    """The epoch is above all that the log holds."""
    found = begin(None, HERE, [Place(2**31, 1, 2)])
    assert (found.epoch, found.pending) == (2**31 + 1, True)
    assert "lost" in found.gap


def test_a_server_of_another_make_is_a_gap() -> None:
    """MariaDB's ids mean nothing to MySQL."""
    mysql = Server(mariadb=False, identity="u", position="", charsets={})
    assert begin(KNOWN, mysql, []).pending


def test_what_was_purged_is_a_gap_from_now_on() -> None:
    """The position is the server's own."""
    found = after_gap(KNOWN, HERE, [], "purged")
    assert (found.gtids, found.count, found.gap, found.pending) == ("0-1-9", 0, "purged", True)
    assert found.epoch > KNOWN.epoch


def test_rows_come_anew_behind_a_gap() -> None:
    """Whoever had some has none, under ids that no rows had before, also where the position was lost."""
    known = Position(
        epoch=100,
        gtids="0-1-5",
        server="1@db",
        mariadb=True,
        given=Given({"shop.orders": ["1"]}, {"shop.late": {"1": 4}}, 4),
    )
    assert after_gap(known, HERE, [], "purged").given == Given(round=4)
    assert begin(None, HERE, [Place(2**31, 1, 2)]).given == Given(round=2**31 + 1)
    moved = Server(mariadb=True, identity="2@other", position="0-2-20", charsets={})
    assert begin(known, moved, []).given == known.given


def test_a_table_that_was_gone_when_the_reader_looked_is_remembered_until_it_is_there_again() -> None:
    """One that was never followed, and one that is wanted no more, are nothing to tell of."""
    known = seen({}, ["a", "b"], ["a"])
    assert known == {"a": True}
    gone = seen(known, ["a", "b"], ["b"])
    assert gone == {"a": False, "b": True}
    assert returned(known, gone) == []
    back = seen(gone, ["a", "b"], ["a", "b"])
    assert returned(gone, back) == ["a"]
    assert seen(gone, ["b"], ["b"]) == {"b": True}
