"""What is done about code that nothing refers to."""

import asyncio
import logging
from typing import Any

import pytest
from wisp_operator import code_store


async def test_a_store_that_is_away_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked as often as ever, so that code is collected soon when it is back; it is told of again when it was there in between."""
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
    assert set(pauses) == {1}
    said = [record.message for record in caplog.records]
    assert ["away" in one for one in said] == [True, False, True]
