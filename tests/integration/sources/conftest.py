"""Servers that the reader tests share: started once, each test with a database, bucket or namespace of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane
from fixtures.mariadb import MariaDb, mariadb
from fixtures.mariadb_shop import MariaShop, maria_shop_on
from fixtures.mongo_shop import MongoShop, mongo_shop_on
from fixtures.mongod import mongod
from fixtures.postgres import Postgres, postgres
from fixtures.shop import Shop, shop_on


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL for all tests that leave it running."""
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def shop(plane: DataPlane, database_server: Postgres, tmp_path: Path) -> Iterator[Shop]:
    """A shop on the shared PostgreSQL."""
    with shop_on(plane, database_server, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """One MariaDB for all tests that leave it running."""
    with mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def maria(plane: DataPlane, mariadb_server: MariaDb, tmp_path: Path) -> Iterator[MariaShop]:
    """A shop on the shared MariaDB."""
    with maria_shop_on(plane, mariadb_server, tmp_path) as made:
        yield made


@pytest.fixture
def mongo(plane: DataPlane, tmp_path: Path) -> Iterator[MongoShop]:
    """A shop on a MongoDB of its own."""
    with mongod() as server, mongo_shop_on(plane, server, tmp_path) as made:
        yield made
