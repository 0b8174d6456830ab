"""Ingest, NATS and MinIO on loopback, wired as the chart wires them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane, Part
from fixtures.minio import MinioServer, minio_server
from fixtures.process import free_port
from fixtures.webhook import Webhook


@pytest.fixture
def webhook(plane: DataPlane, tmp_path: Path) -> Iterator[Webhook]:
    """A running ingest for the server `minio`."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "minio").write_text("token-of-minio")
    port = free_port()
    ingest = Part("ingest", plane, {"WISP_INGEST_PORT": str(port), "WISP_INGEST_TOKENS": str(tokens)})
    made = Webhook(plane, ingest, port, tokens)
    ingest.start()
    ingest.wait_ready()
    try:
        yield made
    finally:
        ingest.stop()


@pytest.fixture
def minio(webhook: Webhook, tmp_path: Path) -> Iterator[MinioServer]:
    """A MinIO that tells this ingest of its events."""
    with minio_server(tmp_path / "minio", webhook.url, "token-of-minio") as server:
        yield server
