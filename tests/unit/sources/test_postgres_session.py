"""What is said of a PostgreSQL server that can't be used."""

import pytest
from wisp_api import conditions
from wisp_events.sources.postgres_session import open_session
from wisp_events.sources.reader import Trouble


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:s3cr@tword@127.0.0.1:1/shop",  # libpq: host tword@127.0.0.1
        "postgresql://shop:s3cr@tword@127.0.0.1:1,127.0.0.1:1/shop",
        "postgresql://shop:tword/s3cr@127.0.0.1:1/shop",  # host shop, port tword
        "postgresql://shop:tword/s3cr@127.0.0.1@127.0.0.1:1/shop",
        "host=127.0.0.1 port=tword",
        "host=127.0.0.1 port=1 password=s3cr tword",
        "postgresql://shop:tword%zz@127.0.0.1:1/shop",
    ],
)
def test_a_password_that_is_not_escaped_is_told_nowhere(dsn: str) -> None:
    """Of which libpq would take a part for the host or the port, and say that there is no such host."""
    with pytest.raises(Trouble) as told:
        open_session(dsn)
    assert told.value.reason == conditions.INVALID_CONNECTION
    assert "tword" not in str(told.value)
    assert "%40" in told.value.message


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:s3cr%40tword@127.0.0.1:1/shop",
        "postgresql://shop:s3cr:tword@127.0.0.1:1,127.0.0.1:2/shop?connect_timeout=1",
        "host=127.0.0.1 port=1 password='s3cr@tword'",
        "host=127.0.0.1,127.0.0.1 port=1,1 password=s3cr/tword",
    ],
)
def test_others_are_tried(dsn: str) -> None:
    """An escaped password, several hosts, and the form with keywords."""
    with pytest.raises(Trouble, match="onnection refused") as told:
        open_session(dsn)
    assert told.value.reason == conditions.SERVER_UNREACHABLE
    assert "tword" not in str(told.value)
