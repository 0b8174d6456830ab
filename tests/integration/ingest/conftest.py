"""Ingest, NATS and MinIO on loopback, wired as the chart wires them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane
from fixtures.minio import MinioServer, minio_server
from fixtures.webhook import Webhook, webhook_on


@pytest.fixture
def webhook(plane: DataPlane, tmp_path: Path) -> Iterator[Webhook]:
    """A running ingest for the server `minio`."""
    with webhook_on(plane, tmp_path) as made:
        yield made


@pytest.fixture
def minio(webhook: Webhook, tmp_path: Path) -> Iterator[MinioServer]:
    """A MinIO that tells this ingest of its events."""
    with minio_server(tmp_path / "minio", webhook.url, "token-of-minio") as server:
        yield server
