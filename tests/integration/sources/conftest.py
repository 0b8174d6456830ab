"""Servers that the reader tests share: started once, each test with a database, bucket or namespace of its own."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import pytest
from fixtures.dataplane import DataPlane, Part, data_plane
from fixtures.nats import NatsServer, nats_server
from fixtures.postgres import Postgres, postgres
from fixtures.process import wait_until
from wisp_api import names
from wisp_api.cloudevent import Event
from wisp_api.source import PostgresConfig, ReaderConfig, ReaderStatus, TableConfig

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One PostgreSQL for all tests that leave it running."""
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


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


@dataclass
class Shop:
    """A namespace with a database connection and its reader."""

    plane: DataPlane
    server: Postgres
    secret: Path
    database: str = field(default_factory=lambda: f"shop{next(_numbers)}")
    namespace: str = "shop"
    connection: str = "shop-db"
    version: int = 0
    reader: Part | None = None

    @property
    def slot(self) -> str:
        """Slot and publication."""
        return f"wisp_{self.database}"

    @property
    def stream(self) -> str:
        """The stream of this connection."""
        return names.stream(self.namespace, "postgres", names.token(self.connection))

    def set_up(self) -> None:
        """Make database, stream and Secret."""
        self.server.execute(f"CREATE DATABASE {self.database}")
        self.plane.add_stream(
            self.stream, [names.stream_subjects(self.namespace, "postgres", names.token(self.connection))]
        )
        self.secret.mkdir()
        self.write_dsn(self.server.dsn(database=self.database))

    def write_dsn(self, dsn: str) -> None:
        """Change the Secret."""
        (self.secret / "dsn").write_text(dsn)

    def sql(self, *statements: str) -> None:
        """Run statements in one transaction."""
        session = psycopg2.connect(self.server.dsn(database=self.database))
        try:
            with session, session.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            session.close()

    def wish(self, *tables: tuple[str, list[str]], draining: bool = False) -> None:
        """Tell the reader what to follow, as the operator does."""
        self.version += 1
        config = ReaderConfig(
            namespace=self.namespace,
            kind="postgres",
            connection=self.connection,
            version=str(self.version),
            draining=draining,
            postgres=PostgresConfig(
                slot=self.slot,
                stream=self.stream,
                tables=[TableConfig(name=name, operations=operations) for name, operations in tables],
            ),
        )
        self.plane.put(names.KV_SOURCES, f"reader.{self.namespace}.postgres.{self.connection}", config)

    def status(self) -> ReaderStatus | None:
        """What the reader reported last."""
        return self.plane.get(names.KV_STATUS, f"reader.{self.namespace}.postgres.{self.connection}", ReaderStatus)

    def wait_status(self, condition: Callable[[ReaderStatus], bool], what: str) -> ReaderStatus:
        """Wait for a report on the newest wish that fulfils a condition; returns it."""
        found: list[ReaderStatus] = []

        def reported() -> bool:
            status = self.status()
            found[:] = [status] if status else []
            return status is not None and status.version == str(self.version) and condition(status)

        try:
            wait_until(reported, what)
        except TimeoutError as error:
            raise AssertionError(f"{what}; reported: {found}\n{self.log()[-3000:]}") from error
        return found[0]

    def wait_ready(self) -> ReaderStatus:
        """Wait until all wanted tables are followed."""
        return self.wait_status(
            lambda status: status.ready and all(item.ready for item in status.items.values()), "the reader is not ready"
        )

    def log(self) -> str:
        """What the reader wrote."""
        return self.reader.log.read_text() if self.reader else ""

    def events(self) -> list[Event]:
        """What stands in the log."""
        return self.plane.events(self.stream)

    def wait_events(self, count: int) -> list[Event]:
        """Wait for this many events in the log; returns all."""
        found: list[Event] = []

        def there() -> bool:
            found[:] = self.events()
            return len(found) >= count

        try:
            wait_until(there, f"{count} events")
        except TimeoutError as error:
            raise AssertionError(f"{len(found)} events of {count}; {self.status()}\n{self.log()[-3000:]}") from error
        return found

    def start(self) -> Part:
        """Start the reader process."""
        self.reader = Part(
            "reader",
            self.plane,
            {
                "WISP_READER_NAMESPACE": self.namespace,
                "WISP_READER_KIND": "postgres",
                "WISP_READER_CONNECTION": self.connection,
                "WISP_READER_DIRECTORY": str(self.secret),
            },
        )
        self.reader.start()
        return self.reader


@contextlib.contextmanager
def shop_on(plane: DataPlane, server: Postgres, directory: Path) -> Iterator[Shop]:
    """A shop with its reader running; slot and publications are removed with it."""
    made = Shop(plane, server, directory / "secret")
    made.set_up()
    made.start()
    try:
        yield made
    finally:
        if made.reader:
            made.reader.stop()
        if server.answers():
            server.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                made.slot,
            )
            slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
            wait_until(
                lambda: (
                    not server.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", made.slot)
                ),
                "the slot stays in use",
            )
            server.execute(f"SELECT pg_drop_replication_slot(slot_name) FROM ({slots}) AS mine", made.slot)


@pytest.fixture
def shop(plane: DataPlane, database_server: Postgres, tmp_path: Path) -> Iterator[Shop]:
    """A shop on the shared PostgreSQL."""
    with shop_on(plane, database_server, tmp_path) as made:
        yield made
