"""What the router's tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fixtures.router_world import World, world


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    """A world with one router."""
    async with world(tmp_path) as made:
        made.router()
        yield made
