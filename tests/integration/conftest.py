"""Servers of a test's own that several folders use; a folder that shares one among its tests has a fixture of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane, data_plane
from fixtures.nats import NatsServer, nats_server


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server of the test's own."""
    with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
def plane(nats: NatsServer, tmp_path: Path) -> Iterator[DataPlane]:
    """The data plane's streams and buckets on it."""
    with data_plane(nats, tmp_path) as made:
        yield made
