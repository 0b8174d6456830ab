"""The store over a real MinIO, namespaces with their capabilities, and real function processes."""

import io
import itertools
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.code_store import CodeStore, Tenant, code_store
from fixtures.minio import MinioServer, minio_server
from fixtures.process import wait_until
from unit.runtime.conftest import serve, start  # noqa: F401 - fixtures

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A MinIO for the users' archives and the store's."""
    with minio_server(tmp_path_factory.mktemp("minio"), "http://127.0.0.1:1", "unused") as running:
        running.client().make_bucket("code")
        yield running


@pytest.fixture(scope="session")
def store(minio: MinioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeStore]:
    """A code store that has its bucket."""
    with code_store(tmp_path_factory.mktemp("store"), minio) as running:
        wait_until(lambda: _ready(running), "the store is ready")
        yield running


def _ready(store: CodeStore) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{store.health_port}/readyz", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def tenant(store: CodeStore, tmp_path: Path) -> Tenant:
    """A fresh namespace."""
    return Tenant(tmp_path / "tenant", store, f"tenant-{next(_numbers)}")


@pytest.fixture
def upload(minio: MinioServer) -> Callable[[str, bytes], None]:
    """Put an object into the users' bucket."""

    def upload(key: str, data: bytes) -> None:
        minio.client().put_object("code", key, io.BytesIO(data), len(data))

    return upload
