"""What is done about code that nothing refers to."""

import asyncio
import logging
from typing import Any

import pytest
from wisp_operator import code_store


async def test_a_store_that_is_away_is_told_of_once_and_asked_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And as often as usual, and told of again, when it was there in between."""
    api: Any = None
    pauses: list[float] = []
    fails = [True] * 14 + [False, True]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > len(fails):
            raise asyncio.CancelledError

    async def collect(*_: Any) -> None:
        if fails[len(pauses) - 1]:
            raise code_store.StoreError("it is away")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(code_store, "collect", collect)
    with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
        await code_store.keep_collecting(api, code_store.CodeStore("http://store", "key"), 6)
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert max(pauses) == pauses[14] == 3600
    assert pauses[15:] == [1, 2]
    said = [record.message for record in caplog.records]
    assert ["away" in one for one in said] == [True, False, True]
